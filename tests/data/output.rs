//! What `prepare` and `--data` say about sets: before the work, instead of it, and where it cannot be done.

use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::layouts::set;
use crate::support::forms::*;
use crate::support::place::{Place, TINY};

fn photos(place: &Place, name: &str) {
    let image = jpeg(&picture(1));
    for (class, count) in [("cat", 4), ("dog", 2)] {
        (0..count).for_each(|i| write(place.path(&format!("{name}/{class}/{i}.jpg")), &image));
    }
}

#[test]
fn classes_and_counts_are_printed_before_the_work_or_instead_of_it() {
    let place = Place::new();
    photos(&place, "photos");
    let expected = "images   4 to train on, 2 held out, 2 classes\n\
                    class    cat: 3 to train on, 1 held out\n\
                    class    dog: 1 to train on, 1 held out\n";
    for args in [&["prepare", "photos", "--dry-run"][..], &["prepare", "photos", "out", "--dry-run"]] {
        let text = place.ok(args);
        assert!(text.starts_with("source   photos: a folder a class\n") && text.contains(expected), "{text}");
        assert!(!text.contains("wrote") && !place.path("out").exists(), "{text}");
    }
    let json: Value = serde_json::from_str(&place.ok(&["prepare", "photos", "--dry-run", "--json"])).unwrap();
    let class = |name: &str, train: u32| serde_json::json!({ "name": name, "train": train, "val": 1 });
    assert_eq!(json["class_counts"], serde_json::json!([class("cat", 3), class("dog", 1)]));
    assert_eq!((&json["form"], &json["train"], &json["classes"]), (&"a folder a class".into(), &4.into(), &2.into()));
    let text = place.ok(&["prepare", "photos", "a folder/it's"]);
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("--data 'a folder/it'\\''s'\n"), "{text}");
    let json: Value = serde_json::from_str(&place.ok(&["prepare", "photos", "other", "--json"])).unwrap();
    assert_eq!((&json["train"], &json["class_counts"][1]["name"]), (&4.into(), &"dog".into()));
    place.fails(&["prepare", "photos"], 2, &["<FOLDER>"]);

    let names: Vec<String> = (10..40).map(|i| format!("class{i}")).collect();
    let folders: Vec<(&str, usize)> = names.iter().map(|name| (&**name, 2)).collect();
    let many = set(&folders, &[]);
    let text = place.ok(&["prepare", many.path().to_str().unwrap(), "--dry-run"]);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("class ")).collect();
    assert_eq!(lines.len(), 14, "{text}");
    assert!(
        lines[9].contains("class19") && lines[10].contains("and 17 more") && lines[11].contains("class37"),
        "{text}"
    );
}

#[test]
fn nothing_is_held_out_where_that_is_asked_for_and_training_says_why_it_cannot() {
    let place = Place::new();
    photos(&place, "photos");
    let text = place.ok(&["prepare", "photos", "out", "--val-fraction", "0", "--size", "67", "--store", "raw"]);
    assert!(text.contains("6 to train on, 0 held out") && text.contains("note     nothing is held out"), "{text}");
    assert!(!text.contains("Next:"), "{text}");
    let train = [&TINY[..], &["--gpus", "0", "--data", "out"]].concat();
    place.fails(&train, 3, &["out", "no held-out images", "--val DIR", "--val-fraction above 0"]);
    // A held-out part that is there stays.
    let with_val = set(&[("train/a", 3), ("train/b", 3), ("val/a", 1), ("val/b", 1)], &[]);
    let text = place.ok(&["prepare", with_val.path().to_str().unwrap(), "--dry-run", "--val-fraction", "0"]);
    assert!(text.contains("6 to train on, 2 held out"), "{text}");
}

#[test]
fn data_that_is_not_prepared_names_the_command_that_prepares_it() {
    let place = Place::new();
    photos(&place, "my photos");
    as_webdataset(&place.path("tars"));
    as_parquet(&place.path("parquet"));
    as_official_files(&place.path("imagenet"));
    as_folders(&place.path("above/set"));
    for (folder, form, command) in [
        (
            "my photos",
            "folders of images",
            "prepare 'my photos' 'my photos-prepared', then --data 'my photos-prepared'",
        ),
        ("tars/", "WebDataset tars", "prepare tars/ tars-prepared, then --data tars-prepared"),
        ("parquet", "Hugging Face parquet shards", "prepare parquet parquet-prepared"),
        ("imagenet", "the official files of ILSVRC 2012", "prepare imagenet imagenet-prepared"),
        ("above", "folders of images", "prepare above above-prepared"),
    ] {
        place.fails(&["--gpus", "0", "--data", folder], 3, &["not prepared yet", form, command]);
    }
    std::fs::create_dir_all(place.path("empty")).unwrap();
    place.fails(&["--data", "empty"], 3, &["empty", "no data set of a known form", "prepare"]);
    write(place.path("a.zip"), b"PK");
    place.fails(&["--data", "a.zip"], 3, &["a.zip", "is a file"]);
    place.fails(&["--data", "nowhere"], 3, &["nowhere", "no such folder"]);
    place.ok(&["prepare", "my photos", "many/prepared"]);
    place.fails(&["--data", "many"], 3, &["holds a prepared set", "--data many/prepared"]);
}

#[test]
fn a_link_to_nothing_is_named_and_can_be_skipped() {
    let place = Place::new();
    photos(&place, "photos");
    symlink("/gone/x.jpg", place.path("photos/cat/x.jpg")).unwrap();
    let says = ["photos/cat/x.jpg", "is a link to /gone/x.jpg, which is not there", "--bad-images skip"];
    place.fails(&["prepare", "photos", "out"], 3, &says);
    let text = place.ok(&["prepare", "photos", "out", "--bad-images", "skip"]);
    assert!(text.contains("skipped  photos/cat/x.jpg: is a link to"), "{text}");
}
