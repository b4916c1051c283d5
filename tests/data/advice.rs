//! What messages say to do leads on: each advice is followed, and the same message does not come again.

use std::fs;
use std::path::Path;

use alexnet_split::data::sources::{ClassesFrom, SourceOptions};

use crate::layouts::{counts, noted, open, open_with, refused, set};
use crate::support::forms::*;
use crate::support::place::Place;

fn from_folders(options: &mut SourceOptions) {
    options.classes_from = Some(ClassesFrom::Folders);
}

fn from_names(options: &mut SourceOptions) {
    options.classes_from = Some(ClassesFrom::Names);
}

#[test]
fn classes_from_folders_settles_what_is_refused_with_it() {
    for folders in [
        &[("images", 4), ("trimaps", 4)][..],
        &[("cat", 4), ("masks", 4)],
        &[("train/photo", 4), ("train/mask_of", 4), ("train/masks", 4)],
        // Below the one folder that there is.
        &[("set/images", 4), ("set/trimaps", 4)],
        &[("set/animals/cat", 2), ("set/animals/dog", 2), ("set/vehicles/car", 2), ("set/vehicles/bus", 2)],
    ] {
        let place = set(folders, &[]);
        refused(open(place.path()), &["--classes-from folders"]);
        let found = open_with(place.path(), from_folders).unwrap();
        let total: usize = folders.iter().map(|(_, count)| count).sum();
        assert_eq!(found.train.len() + found.val.len(), total, "{folders:?}");
        assert!(found.classes.len() >= 2, "{:?}", found.classes);
    }
}

#[test]
fn classes_from_names_settles_what_is_refused_with_it() {
    let place = set(&[], &[]);
    for name in ["cat.0", "cat.1", "dog.0", "dog.1"] {
        for folder in ["all", "flat/train", "flat/val", "one/only"] {
            write(place.path().join(folder).join(format!("{name}.jpg")), &jpeg(&picture(1)));
        }
        // Masks are called like their images.
        ["images", "annotations/trimaps"]
            .iter()
            .for_each(|part| write(place.path().join("pets").join(part).join(format!("{name}.jpg")), b""));
    }
    for (folder, images) in [("all", [2, 2]), ("flat", [4, 4]), ("one", [2, 2])] {
        let path = place.path().join(folder);
        refused(open(&path), &["--classes-from names"]);
        let found = open_with(&path, from_names).unwrap();
        assert_eq!(counts(&found), (images[0], images[1], vec!["cat", "dog"]), "{folder}");
    }
    let found = open_with(&place.path().join("pets"), from_names).unwrap();
    assert_eq!(counts(&found), (2, 2, vec!["cat", "dog"]));
    noted(&found, &["not read, beside the images to train on", "annotations (4 images)"]);
    // What is held out is not trained on.
    write(place.path().join("all/held/dog.7.jpg"), &jpeg(&picture(1)));
    let held = |options: &mut SourceOptions| {
        (options.val, options.classes_from) = (Some("held".into()), Some(ClassesFrom::Names))
    };
    assert_eq!(counts(&open_with(&place.path().join("all"), held).unwrap()), (4, 1, vec!["cat", "dog"]));
    // It is not advised to one who has given it.
    let one = set(&[], &[]);
    (0..3).for_each(|i| write(one.path().join(format!("cat.{i}.jpg")), &jpeg(&picture(1))));
    let error = open_with(one.path(), from_names).err().unwrap().to_string();
    assert!(error.contains("one class, \"cat\"") && !error.contains("--classes-from"), "{error}");
}

#[test]
fn flags_that_a_form_has_no_use_for_are_refused() {
    let place = set(&[("photos/a", 2), ("photos/b", 2)], &[]);
    as_webdataset(&place.path().join("tars"));
    as_idx(&place.path().join("idx"), 8);
    refused(open_with(&place.path().join("tars"), from_names), &["WebDataset tars", "--classes-from does not fit"]);
    refused(
        open_with(&place.path().join("idx"), |options| options.val = Some("x".into())),
        &["MNIST", "--val does not fit"],
    );
    let image = |options: &mut SourceOptions| options.image_column = Some("x".into());
    refused(open_with(&place.path().join("photos"), image), &["folders of images", "--image-column does not fit"]);
}

#[test]
fn the_rest_of_a_prepared_set_is_named() {
    let place = Place::new();
    as_folders(&place.path("photos"));
    place.ok(&["prepare", "photos", "set", "--size", "24"]);
    fs::remove_file(place.path("set/dataset.json")).unwrap();
    let says = ["set", "looks like a prepared set without dataset.json", "copy that file, too"];
    place.fails(&["--data", "set"], 3, &says);
    place.fails(&["prepare", "set", "again"], 3, &says);
    let rename = |from: &str, to: &str| fs::rename(place.path(from), place.path(to)).unwrap();
    // Tars of one's own that are called so have no index beside them.
    rename("set/train-000000.tsv", "train.tsv");
    rename("set/val-000000.tsv", "val.tsv");
    let text = place.ok(&["prepare", "set", "--dry-run"]);
    assert!(text.contains("WebDataset tars") && text.contains("9 to train on, 6 held out"), "{text}");
}

#[test]
fn a_dry_run_looks_at_the_folder_as_the_run_would() {
    let place = Place::new();
    as_folders(&place.path("photos"));
    let both = |folder: &str, parts: &[&str]| {
        place.fails(&["prepare", "photos", folder, "--dry-run"], 3, parts);
        place.fails(&["prepare", "photos", folder], 3, parts);
    };
    write(place.path("full/x"), b"");
    both("full", &["full", "is not empty"]);
    both("photos/out", &["lies within the source"]);
    both("new/../photos/a/b", &["lies within the source"]);
    place.ok(&["prepare", "photos", "done"]);
    both("done", &["holds a prepared set already"]);
    for args in [&["--dry-run"][..], &[]] {
        place.fails(&[&["prepare", "photos", "full/x/y"], args].concat(), 1, &["full/x"]);
        place.fails(&[&["prepare", "photos", "/proc/x"], args].concat(), 1, &["/proc"]);
    }
    let before: Vec<_> = fs::read_dir(place.path(".")).unwrap().map(|entry| entry.unwrap().path()).collect();
    place.ok(&["prepare", "photos", "a/b/c", "--dry-run"]);
    let after: Vec<_> = fs::read_dir(place.path(".")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(before, after, "a dry run writes nothing");
    // What was begun with other options is not gone on with.
    write(place.path("photos/val/n01000002/bad.jpg"), b"no image");
    place.fails(&["prepare", "photos", "begun"], 3, &["bad.jpg"]);
    place.ok(&["prepare", "photos", "begun", "--dry-run"]);
    both("done", &["holds a prepared set already"]);
    place.fails(
        &["prepare", "photos", "begun", "--dry-run", "--size", "32"],
        3,
        &["--size 256", "go on with the same"],
    );
}

#[test]
fn classes_whose_held_out_images_are_all_bad_are_told() {
    let place = Place::new();
    let write_image = |name: &str, bytes: &[u8]| write(place.path("photos").join(name), bytes);
    for class in ["a", "b"] {
        (0..3).for_each(|i| write_image(&format!("train/{class}/{i}.jpg"), &jpeg(&picture(i))));
    }
    write_image("val/a/0.jpg", &jpeg(&picture(5)));
    write_image("val/b/0.jpg", b"no image");
    let text = place.ok(&["prepare", "photos", "out", "--bad-images", "skip"]);
    assert!(text.contains("note     1 class left without a held-out image: \"b\"\n"), "{text}");
    assert!(!text.contains("to train on:"), "{text}");
}

#[test]
fn images_of_all_formats_are_read_from_folders() {
    use image::ImageFormat::*;
    let image = image::DynamicImage::from(picture(1));
    let place = set(&[("b", 2)], &[]);
    let grey = image.to_luma8();
    let head = |magic: &str| format!("{magic}\n{} {}\n255\n", image.width(), image.height()).into_bytes();
    for (name, bytes) in [
        ("a.ppm", [&*head("P6"), image.as_bytes()].concat()),
        ("b.pgm", [&*head("P5"), grey.as_raw()].concat()),
        ("c.bmp", encoded(&image, Bmp)),
        ("d.webp", encoded(&image, WebP)),
        ("e.gif", encoded(&image, Gif)),
        ("f.PNG", encoded(&image, Png)),
        ("g.jpe", jpeg(&picture(1))),
    ] {
        write(place.path().join("a").join(name), &bytes);
    }
    let found = open(place.path()).unwrap();
    assert_eq!((found.train.len() + found.val.len(), found.notes.len()), (9, 0), "{:?}", found.notes);
    let (data, _) = crate::prepared(place.path(), &crate::options()).unwrap();
    assert_eq!(data.train.len() + data.held_out.len(), 9);
    // A text that is called so is a bad image, not left out in silence.
    write(place.path().join("a/h.pgm"), b"a text");
    crate::refused(Path::new(place.path()), &["h.pgm", "not an image"]);
}
