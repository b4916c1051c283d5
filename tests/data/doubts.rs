//! Layouts that are doubted, what settles them, and what is left alone and counted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use alexnet_split::data::sources::{ClassesFrom, SourceOptions};
use tempfile::TempDir;

use crate::layouts::{classes_of, counts, noted, open, open_with, refused, set};
use crate::support::forms::*;

#[test]
fn doubtful_layouts_are_refused_with_what_settles_them() {
    let folders = |folders: &[(&str, usize)]| set(folders, &[]);
    for (folders, parts) in [
        // Classes in the names of the files.
        (
            &[("train", 4), ("test1", 3)][..],
            &["train", "4 images", "0.jpg", "--classes-from names", "metadata.csv"][..],
        ),
        (&[("train_images", 4), ("test_images", 3)], &["train_images", "4 images", "--classes-from names"]),
        (&[("images/train", 4), ("images/val", 4)], &["images/train", "nothing tells the classes"]),
        (&[("jpg", 5)], &["one class, \"jpg\", with 5 images"]),
        (&[("cat", 5)], &["one class, \"cat\", with 5 images", "two at least"]),
        (&[("train/cat", 5), ("val/cat", 5)], &["one class, \"cat\""]),
        // Masks.
        (
            &[("images", 4), ("annotations/trimaps", 4)],
            &["images (4 images)", "annotations (4 images)", "--classes-from folders"],
        ),
        (
            &[("images/001.Black", 4), ("images/002.Laysan", 4), ("segmentations/001.Black", 4)],
            &["images (8 images)", "segmentations (4 images)", "images: give that folder", "--classes-from folders"],
        ),
        (&[("cat", 4), ("dog", 4), ("masks", 8)], &["masks (8 images)", "--classes-from folders"]),
        (&[("cat", 4), ("dog", 4), ("test1", 8)], &["test1 (8 images)", "--classes-from folders"]),
        // Levels.
        (
            &[("animals/cat", 4), ("animals/dog", 4), ("vehicles/car", 4), ("vehicles/bus", 4)],
            &["two folders deep", "animals has cat, dog", "--classes-from folders"],
        ),
        // Parts.
        (
            &[("train/a", 4), ("train/b", 4), ("val", 3)],
            &["val", "3 images", "nothing tells the classes of 0.jpg", "--val DIR"],
        ),
        (&[("train/a", 4), ("train/b", 4), ("validation_set", 3)], &["validation_set", "3 images"]),
        (
            &[("train/a", 4), ("train/b", 4), ("val/a", 3), ("val/b", 1), ("dev/a", 2), ("dev/b", 2)],
            &["held out", "val (4 images)", "dev (4 images)", "--val DIR"],
        ),
        (
            &[("train/a", 4), ("train/b", 4), ("train_2/a", 4), ("train_2/b", 4)],
            &["to train on", "train (8 images)", "train_2 (8 images)", "--train DIR"],
        ),
        (&[("seg_test/a", 4), ("val/a", 4)], &["no folder train beside it", "--train DIR"]),
        (&[("images", 4), ("images/deeper", 2)], &["one class"]),
    ] {
        let place = set(folders, &[]);
        refused(open(place.path()), parts);
    }
    refused(open(folders(&[]).path()), &["no folders of classes", "prepare --help"]);
    let flat = folders(&[]);
    (0..3).for_each(|i| write(flat.path().join(format!("{i}.jpg")), b""));
    refused(open(flat.path()), &["3 images", "no folders of classes"]);
}

#[test]
fn what_the_user_says_settles_it() {
    let from = |classes_from: ClassesFrom| move |options: &mut SourceOptions| options.classes_from = Some(classes_from);
    // The folders are the classes, whatever they are called.
    for folders in [
        &[("test1", 4), ("train", 4)][..],
        &[("images", 4), ("trimaps", 4)],
        &[("animals/cat", 2), ("animals/dog", 2), ("vehicles/bus", 2), ("vehicles/car", 2)],
    ] {
        let place = set(folders, &[]);
        let found = open_with(place.path(), from(ClassesFrom::Folders)).unwrap();
        let total: usize = folders.iter().map(|(_, count)| count).sum();
        assert_eq!((found.train.len() + found.val.len(), found.classes.len()), (total, 2));
    }
    // Classes in names of files, where it is asked for.
    let place = set(&[("test1", 3)], &[]);
    for name in [
        "cat.0.jpg",
        "cat.1.jpg",
        "dog.0.jpg",
        "dog.1.jpg",
        "tabby_cat_1.jpg",
        "tabby_cat_12.jpg",
        "n01440764_9.JPEG",
        "n01440764_10.JPEG",
    ] {
        write(place.path().join("train").join(name), &jpeg(&picture(1)));
    }
    let found = open_with(place.path(), from(ClassesFrom::Names)).unwrap();
    assert_eq!(counts(&found), (4, 4, vec!["cat", "dog", "n01440764", "tabby_cat"]));
    assert_eq!(found.form, "images with their classes in their names");
    noted(&found, &["test1 (3 images)", "not read"]);
    write(place.path().join("train/7.jpg"), b"");
    refused(open_with(place.path(), from(ClassesFrom::Names)), &["7.jpg", "begins with no class"]);
    let digits = set(&[("a", 2), ("b", 2)], &[]);
    refused(open_with(digits.path(), from(ClassesFrom::Names)), &["0.jpg", "begins with no class"]);

    // Parts that are called otherwise, within the set and beside it.
    let place = set(&[("one/a", 3), ("one/b", 3), ("two/a", 1), ("two/b", 1), ("three/a", 2), ("three/b", 2)], &[]);
    let found = open_with(place.path(), |options| {
        (options.train, options.val) = (Some("one".into()), Some(place.path().join("three")));
    });
    let found = found.unwrap();
    assert_eq!(counts(&found), (6, 4, vec!["a", "b"]));
    noted(&found, &["two (2 images)", "not read"]);
    noted(&found, &["held out", "three"]);
    let classes = set(&[("a", 3), ("b", 3)], &[]);
    let found = open_with(classes.path(), |options| options.val = Some(place.path().join("three"))).unwrap();
    assert_eq!(counts(&found), (6, 4, vec!["a", "b"]));
    let inside = set(&[("a", 3), ("b", 3), ("c/a", 1), ("c/b", 1)], &[]);
    let found = open_with(inside.path(), |options| options.val = Some("c".into())).unwrap();
    assert_eq!(counts(&found), (6, 2, vec!["a", "b"]));
    let found = open_with(place.path(), |options| options.train = Some("one".into())).unwrap();
    assert_eq!((found.train.len(), found.val.len()), (4, 2));
    refused(open_with(place.path(), |options| options.val = Some("four".into())), &["four", "no such folder"]);
    let tars = TempDir::new().unwrap();
    as_webdataset(tars.path());
    refused(open_with(tars.path(), |options| options.val = Some("three".into())), &["--val", "WebDataset"]);
}

#[test]
fn a_list_of_classes_orders_names_and_chooses() {
    let place = set(
        &[("set/cat", 4), ("set/dog", 4), ("set/docs", 4)],
        &[("list", "dog\ncat\n"), ("twice", "cat\ndog\ncat\n"), ("more", "cat\ndog\nowl\n")],
    );
    let with = |folder: &str, list: &str| {
        open_with(&place.path().join(folder), |options| options.classes = Some(place.path().join(list)))
    };
    let found = with("set", "list").unwrap();
    assert_eq!(counts(&found), (6, 2, vec!["dog", "cat"]));
    let all = classes_of(place.path(), &found, &found.train);
    assert!(all.iter().all(|(path, class)| path.starts_with(&format!("set/{class}/"))), "{all:?}");
    noted(&found, &["1 folder that", "list does not list", "set/docs"]);
    refused(with("set", "twice"), &["twice", "\"cat\" twice"]);
    refused(with("set", "more"), &["\"owl\" is listed, but has no folder"]);
    // Numbers are lines, and 10 comes after 9.
    let numbers = set(&[("0", 4), ("1", 4), ("10", 4)], &[("names", "a\nb\n2\n3\n4\n5\n6\n7\n8\n9\nk\n")]);
    let open_numbers = |list: &Path| open_with(numbers.path(), |options| options.classes = Some(list.to_owned()));
    refused(open_numbers(&numbers.path().join("names")), &["\"2\" is listed, but has no folder"]);
    fs::rename(numbers.path().join("10"), numbers.path().join("2")).unwrap();
    write(numbers.path().join("names"), "zero\none\ntwo\n".as_bytes());
    let found = open_numbers(&numbers.path().join("names")).unwrap();
    assert_eq!(found.classes, ["zero", "one", "two"]);
    let train = classes_of(numbers.path(), &found, &found.train);
    assert!(
        train.iter().all(|(path, class)| found.classes[path[..1].parse::<usize>().unwrap()] == *class),
        "{train:?}"
    );
    // Sets of other forms have their classes by number.
    as_webdataset(&place.path().join("tars"));
    write(place.path().join("three"), b"x\ny\nz\n");
    assert_eq!(with("tars", "three").unwrap().classes, ["x", "y", "z"]);
    refused(with("tars", "list"), &["list", "2 classes"]);
}

#[test]
fn what_lies_between_the_images_is_left_alone_and_counted() {
    let place = set(
        &[
            ("a", 3),
            ("b", 3),
            ("a/@eaDir/0.jpg", 2),
            ("b/@eaDir/1.jpg", 3),
            ("__MACOSX/a", 2),
            ("$RECYCLE.BIN", 1),
            ("lost+found", 1),
            ("a/thumbnails", 2),
        ],
        &[("a/._0.jpg", "x"), ("a/.DS_Store", "x"), ("b/Thumbs.db", "x"), ("b/notes", "x"), ("b/list.txt", "x")],
    );
    write(place.path().join("stray.jpg"), &jpeg(&picture(1)));
    let found = open(place.path()).unwrap();
    assert_eq!(counts(&found), (4, 2, vec!["a", "b"]));
    noted(&found, &["6 folders of thumbnails, or that systems leave behind", "$RECYCLE.BIN"]);
    noted(&found, &["2 hidden files and folders"]);
    noted(&found, &["3 files that are no images", "b/Thumbs.db"]);
    noted(&found, &["1 image beside the folders of classes", "stray.jpg"]);
    assert_eq!(found.notes.len(), 4, "{:?}", found.notes);
    // Images below images are read, and told.
    let place = set(&[("a", 2), ("a/more", 3), ("b", 2)], &[]);
    let found = open(place.path()).unwrap();
    assert_eq!(found.train.len() + found.val.len(), 7);
    noted(&found, &["3 images in folders below those of their classes", "/a,"]);
}

#[test]
fn images_are_told_by_their_bytes_where_their_ending_says_nothing() {
    use image::ImageFormat::*;
    let place = set(&[("b", 2)], &[]);
    let image = picture(1);
    let files = [
        ("0", jpeg(&image)),
        ("1.image", encoded(&image.clone().into(), Png)),
        ("2.dat", encoded(&image.clone().into(), WebP)),
        ("3.1234", encoded(&image.clone().into(), Bmp)),
        ("6.ppm", b"P6 1 1 255 abc".to_vec()),
        ("4.x", encoded(&image.clone().into(), Gif)),
        ("5.JFIF", jpeg(&image)),
    ];
    files.iter().for_each(|(name, bytes)| write(place.path().join("a").join(name), bytes));
    write(place.path().join("a/LICENSE"), b"BMW, a text");
    ["a/1.heic", "a/2.heif"]
        .iter()
        .for_each(|name| write(place.path().join(name), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"));
    let pipe = std::process::Command::new("mkfifo").arg(place.path().join("a/pipe")).status().unwrap();
    assert!(pipe.success());
    let found = open(place.path()).unwrap();
    assert_eq!(found.train.len() + found.val.len(), 9, "{:?}", found.notes);
    noted(&found, &["2 files that are no images", "a/LICENSE"]);
    noted(&found, &["2 files, each an HEIC image (convert it to JPEG or PNG), not read", "a/1.heic"]);
    write(place.path().join("a.zip"), b"PK\x03\x04");
    refused(open(&place.path().join("a.zip")), &["a zip archive"]);
    // A class of others has no images.
    write(place.path().join("c/1.txt"), b"x");
    refused(open(place.path()), &["/c", "a class without images", "1 file and 0 folders, 1.txt", "--classes FILE"]);
    write(place.path().join("c/0.heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic");
    refused(open(place.path()), &["/c", "0.heic among them (an HEIC image: convert it to JPEG or PNG)"]);
    ["c/1.txt", "c/0.heic"].iter().for_each(|name| fs::remove_file(place.path().join(name)).unwrap());
    refused(open(place.path()), &["/c", "a class without images", "it is empty"]);
}

#[test]
fn vehicles_and_masks_may_be_classes() {
    let found = open(set(&[("bus", 2), ("train", 2)], &[]).path()).unwrap();
    noted(&found, &["read as a class", "\"train\""]);
    let found = open(set(&[("Mask", 2), ("no_mask", 2)], &[]).path()).unwrap();
    assert_eq!(found.classes, ["Mask", "no_mask"]);
    let linked = set(&[("store/one", 2), ("store/two", 2)], &[]);
    fs::create_dir(linked.path().join("set")).unwrap();
    for class in ["one", "two"] {
        symlink(linked.path().join("store").join(class), linked.path().join("set").join(class)).unwrap();
    }
    assert_eq!(open(&linked.path().join("set")).unwrap().classes, ["one", "two"]);
}

#[test]
fn labels_that_would_be_wrong_are_refused() {
    let images = [("train", 4), ("val", 4)];
    let with = |name: &str, text: &str| set(&images, &[(name, text)]);
    // One label for two pictures, in train and in val.
    let place = with("labels.csv", "id,label\n0,cat\n1,dog\n2,cat\n3,dog\n");
    refused(open(place.path()), &["labels.csv", "one label for", "train/0.jpg", "val/0.jpg"]);
    let rows = "train/0.jpg,a\ntrain/1.jpg,b\ntrain/2.jpg,a\ntrain/3.jpg,b\nval/0.jpg,a\nval/1.jpg,b\nval/2.jpg,a\nval/3.jpg,b\n";
    let place = with("labels.csv", &format!("file_name,label\n{rows}"));
    assert_eq!(open(place.path()).unwrap().classes, ["a", "b"]);
    let flat = |text: &str| set(&[("images", 4)], &[("images/metadata.csv", text)]);
    for (text, words) in [
        // Commas and quotes that are not in quotes, or not closed.
        ("file_name,label\n0.jpg,kite, bird\n1.jpg,b\n2.jpg,b\n3.jpg,kite\n", ["line 2", "3 fields"]),
        ("file_name,label\n0.jpg,a\n1.jpg,\"b\n2.jpg,a\n3.jpg,b\n", ["line 3", "quote"]),
    ] {
        refused(open(flat(text).path()), &[&["metadata.csv"], &words[..]].concat());
    }
    let place = set(&[("images", 2)], &[("images/metadata.jsonl", "{\"file_name\":\"0.jpg\",\"label\":[\"a\"]}\n")]);
    refused(open(place.path()), &["metadata.jsonl", "list"]);
    fs::write(place.path().join("images/metadata.jsonl"), b"\xff\xfel\0").unwrap();
    refused(open(place.path()), &["metadata.jsonl", "UTF-8"]);
}

#[test]
fn a_file_of_labels_beside_folders_is_noted_or_read() {
    let rows = "file_name,label\n00/0.jpg,cat\n00/1.jpg,dog\n01/0.jpg,dog\n01/1.jpg,cat\n";
    let place = set(&[("train/00", 2), ("train/01", 2)], &[("train/labels.csv", rows)]);
    let found = open(place.path()).unwrap();
    assert_eq!(found.classes, ["00", "01"]);
    noted(&found, &["labels.csv not read: the folders tell the classes"]);
    let found = open_with(place.path(), |options| options.label_column = Some("label".into())).unwrap();
    assert_eq!(found.classes, ["cat", "dog"]);
    let same = |options: &mut SourceOptions| {
        options.train = Some("train".into());
        options.val = Some("train".into());
    };
    refused(open_with(place.path(), same), &["train", "two folders"]);
}

#[test]
fn tars_that_are_called_like_no_part_are_refused_beside_others() {
    let place = TempDir::new().unwrap();
    as_webdataset(place.path());
    let mut paths = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
    let tar = paths.find(|path| path.to_string_lossy().contains("train")).unwrap();
    fs::copy(&tar, place.path().join("extra-000000.tar")).unwrap();
    refused(open(place.path()), &["extra-000000.tar", "neither train"]);
}

#[test]
fn labels_that_say_nothing_are_none() {
    let rows = "file_name,label\n0.jpg,cat\n1.jpg,NaN\n2.jpg,dog\n3.jpg,-1.0\n4.jpg,cat\n5.jpg,dog\n6.jpg,null\n";
    let place = set(&[("train", 7)], &[("train/metadata.csv", rows)]);
    let found = open(place.path()).unwrap();
    assert_eq!(counts(&found), (2, 2, vec!["cat", "dog"]));
    noted(&found, &["3 images that", "has no label for not read"]);
    // A class may be called so where a list says it.
    let place = set(&[("train", 7)], &[("train/metadata.csv", rows), ("names", "cat\ndog\nNaN\n")]);
    let found = open_with(place.path(), |options| options.classes = Some(place.path().join("names"))).unwrap();
    assert_eq!(found.train.len() + found.val.len(), 5);
}

#[test]
fn labels_of_another_folder_are_not_taken() {
    let with = |rows: &str, ending: &str| {
        let rows: String = rows.split(' ').map(|row| row.replacen(',', &format!("{ending},"), 1) + "\n").collect();
        let place =
            set(&[("train/x", 2), ("train/y", 3)], &[("train/labels.csv", &format!("file_name,label\n{rows}"))]);
        open_with(place.path(), |options| options.label_column = Some("label".into())).unwrap()
    };
    for ending in [".jpg", ""] {
        let found = with("x/0,cat x/1,dog y/0,cat y/1,dog y/2,dog", ending);
        assert_eq!(counts(&found), (3, 2, vec!["cat", "dog"]));
        // y/2.jpg is not z/2.jpg.
        let found = with("x/0,cat x/1,dog y/0,cat y/1,dog z/2,dog", ending);
        assert_eq!(counts(&found), (2, 2, vec!["cat", "dog"]));
        noted(&found, &["1 image that", "has no label for not read", "y/2.jpg"]);
        noted(&found, &["1 label of an image that is not there"]);
    }
    let found = with("/home/me/train/x/0,cat C:\\train\\x\\1,dog train/y/0,cat y/1,dog 2,dog", ".jpg");
    assert_eq!(counts(&found), (3, 2, vec!["cat", "dog"]));
}

#[test]
fn what_is_wrong_with_a_file_of_labels_is_said_as_it_is() {
    let with = |name: &str, text: &str| open(set(&[("train", 4)], &[(name, text)]).path());
    // Labels by position: one missing image would move the rest.
    refused(with("train_labels.txt", "0\n1\n0\n1\n"), &["one word a line", "the name of an image and its class"]);
    refused(with("train/metadata.jsonl", "[\n"), &["line 1", "one a line", "file_name"]);
    refused(with("train/-labels.json", "{}"), &["classes of 0.jpg"]);
    let text = match with("train/metadata.csv", "file_name,a,b\n0.jpg,1,1\n1.jpg,0,1\n2.jpg,1,0\n3.jpg,1,0\n") {
        Ok(_) => panic!("two classes passed"),
        Err(error) => error.to_string(),
    };
    assert!(text.contains("one class. --label-column NAME takes one column"), "{text}");
}

#[test]
fn classes_that_are_alike_or_empty_are_told() {
    let place = set(&[("Cat", 2), ("cat", 2), ("dog", 2)], &[("names", "0 cat\n1 dog\n")]);
    noted(&open(place.path()).unwrap(), &["1 class called as another but for capitals", "\"cat\" beside \"Cat\""]);
    let listed = |options: &mut SourceOptions| options.classes = Some(place.path().join("names"));
    refused(open_with(place.path(), listed), &["none of its folders", "\"Cat\"", "\"0 cat\"", "a line"]);
    // In a file of labels.
    let rows = "file_name,label\n0.jpg,CAT\n1.jpg,cat\n2.jpg,dog\n3.jpg,dog\n";
    let place = set(&[("train", 4)], &[("train/metadata.csv", rows)]);
    noted(&open(place.path()).unwrap(), &["1 class called as another but for capitals"]);
    // A listed class that is held out alone.
    let rows = ["file_name,label\n0.jpg,cat\n1.jpg,dog\n", "file_name,label\n0.jpg,cat\n1.jpg,elk\n"];
    let files = [("train/metadata.csv", rows[0]), ("val/metadata.csv", rows[1]), ("names", "cat\ndog\nelk\n")];
    let place = set(&[("train", 2), ("val", 2)], &files);
    let found = open_with(place.path(), |options| options.classes = Some(place.path().join("names"))).unwrap();
    noted(&found, &["1 class without an image to train on: \"elk\""]);
}

#[test]
fn a_part_that_is_a_link_to_the_other_is_refused() {
    let place = set(&[("train/a", 2), ("train/b", 2)], &[]);
    symlink("train", place.path().join("val")).unwrap();
    refused(open(place.path()), &["val", "by a link", "--val DIR"]);
}
