//! What tells the parts of a set and the classes of its images, beside folders: lists, columns, flags, ILSVRC's kit. Two that
//! disagree are refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use alexnet_split::data::sources::{Part, SourceOptions, Sources};
use parquet::basic::Compression::SNAPPY;
use tempfile::TempDir;

use crate::layouts::{classes_of, counts, noted, open, open_with, refused, set};
use crate::support::forms::*;
use crate::support::place::Place;
use crate::support::tables::{images as pictures, integers, table, texts};

const TRAIN: [(&str, usize); 2] = [("images/apple pie", 5), ("images/pho", 5)];

/// Food-101's lists; 4.jpg of each class is in none.
const LISTS: [(&str, &str); 3] = [
    ("meta/train.txt", "apple pie/0\napple pie/2\npho/0\npho/1\npho/9\n"),
    ("meta/test.txt", "pho/2\npho/3\napple pie/1\r\napple pie/3\n"),
    ("meta/classes.txt", "apple pie\npho\n"),
];

fn names(root: &Path, found: &Sources, part: &Part) -> Vec<String> {
    classes_of(root, found, part).into_keys().collect()
}

#[test]
fn lists_beside_the_images_tell_the_parts() {
    let place = set(&TRAIN, &LISTS);
    for start in ["", "images"] {
        let found = open(&place.path().join(start)).unwrap();
        assert_eq!(
            (found.form, counts(&found)),
            ("a folder a class, with lists of the parts", (4, 4, vec!["apple pie", "pho"]))
        );
        let train = ["images/apple pie/0.jpg", "images/apple pie/2.jpg", "images/pho/0.jpg", "images/pho/1.jpg"];
        let val = ["images/apple pie/1.jpg", "images/apple pie/3.jpg", "images/pho/2.jpg", "images/pho/3.jpg"];
        assert_eq!(names(place.path(), &found, &found.train), train);
        assert_eq!(names(place.path(), &found, &found.val), val);
        noted(&found, &["meta/train.txt and", "meta/test.txt tell which images are held out"]);
        noted(&found, &["2 images that", "do not list not read", "apple pie/4.jpg among them"]);
        noted(&found, &["1 line about an image that is not there"]);
    }
    // Beside the folder, with endings, labels and the folder's name; and in the folder of the classes.
    let lines = |from: usize, to: usize, form: &dyn Fn(&str, usize) -> String| -> String {
        ["apple pie", "pho"].iter().flat_map(|class| (from..to).map(move |i| form(class, i))).collect()
    };
    for (at, form) in [
        ("", &(|class: &str, i| format!("{class}/{i}.jpg 7\n")) as &dyn Fn(&str, usize) -> String),
        ("", &|class: &str, i| format!("./images/{class}/{i}.jpg\n")),
        ("images/", &|class: &str, i| format!("{class}\\{i}.jpg\n")),
    ] {
        let [train, val] = [lines(0, 3, form), lines(3, 5, form)];
        let place = set(&TRAIN, &[(&format!("{at}train.txt"), &train), (&format!("{at}val.txt"), &val)]);
        let found = open(place.path()).unwrap();
        assert_eq!(counts(&found), (6, 4, vec!["apple pie", "pho"]), "{train}");
        assert!(
            names(place.path(), &found, &found.val).iter().all(|name| name.contains("3.jpg") || name.contains("4.jpg"))
        );
    }
}

#[test]
fn lists_that_cannot_be_meant_are_refused_or_noted() {
    let with = |train: &str, test: &str| set(&TRAIN, &[("meta/train.txt", train), ("meta/test.txt", test)]);
    let both = "apple pie/0\npho/0\n";
    refused(
        open(with(both, "pho/0\napple pie/1\n").path()),
        &["meta/test.txt", "\"pho/0\" is to train on and to hold out"],
    );
    let place = with("pho/0\npho/1\n", "pho/2\n");
    refused(open(place.path()), &["train.txt", "no image of class \"apple pie\"", "--classes FILE"]);
    write(place.path().join("list"), b"pho\n");
    let list = place.path().join("list");
    refused(open_with(place.path(), |options| options.classes = Some(list.clone())), &["one class, \"pho\""]);
    // Lists of other images, and of one part.
    let found = open(with("x/1\ny/2\n", "x/3\n").path()).unwrap();
    assert_eq!((found.train.len(), found.val.len(), found.form), (8, 2, "a folder a class"));
    noted(&found, &["test.txt not read: no image is called as they say"]);
    let found = open(set(&TRAIN, &[("meta/train.txt", both)]).path()).unwrap();
    assert_eq!(found.train.len(), 8);
    noted(&found, &["meta/train.txt not read: beside it is no list of the other part"]);
    // A part that is given is believed.
    let place = set(&TRAIN, &LISTS);
    ["apple pie", "pho"].iter().for_each(|class| write(place.path().join(format!("more/{class}/0.jpg")), b""));
    let found = open_with(place.path(), |options| {
        (options.train, options.val) = (Some("images".into()), Some("more".into()));
    });
    assert_eq!(counts(&found.unwrap()), (10, 2, vec!["apple pie", "pho"]));
}

#[test]
fn cubs_numbered_lists_tell_the_parts() {
    let images = "1 001.Auk/0.jpg\n2 001.Auk/1.jpg\n3 002.Owl/0.jpg\n4 002.Owl/1.jpg\n";
    let texts = |parts: &'static str| {
        [("images.txt", images), ("train_test_split.txt", parts), ("classes.txt", "1 001.Auk\n2 002.Owl\n")]
    };
    let folders = [("images/001.Auk", 2), ("images/002.Owl", 2)];
    let place = set(&folders, &texts("1 0\n2 1\n3 1\n4 0\n"));
    let found = open(place.path()).unwrap();
    assert_eq!(names(place.path(), &found, &found.train), ["images/001.Auk/1.jpg", "images/002.Owl/0.jpg"]);
    assert_eq!(names(place.path(), &found, &found.val), ["images/001.Auk/0.jpg", "images/002.Owl/1.jpg"]);
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    refused(open(set(&folders, &texts("1 0\n2 1\n3 1\n")).path()), &["train_test_split.txt", "image 4", "expected 1"]);
}

/// ILSVRC's images as they are unpacked: folders of classes to train on, and images without folders to validate with.
fn unpacked_ilsvrc(change: impl Fn(&Path)) -> TempDir {
    let folder = TempDir::new().unwrap();
    as_official_files(folder.path());
    for name in ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    for (number, (class, file)) in images()[0].iter().enumerate() {
        write(folder.path().join(format!("train/{}/{number}.JPEG", CLASSES[*class])), file);
    }
    for (number, (_, file)) in images()[1].iter().enumerate() {
        write(folder.path().join(format!("val/ILSVRC2012_val_{:08}.JPEG", number + 1)), file);
    }
    change(folder.path());
    folder
}

#[test]
fn the_kit_beside_flat_validation_images_tells_their_classes() {
    let place = unpacked_ilsvrc(|_| ());
    let found = open(place.path()).unwrap();
    assert_eq!(counts(&found), (9, 6, NAMES.to_vec()));
    noted(&found, &["ILSVRC2012_devkit_t12.tar.gz tells the classes", "/val"]);
    let expected: BTreeMap<String, String> = (images()[1].iter().enumerate())
        .map(|(i, (class, _))| (format!("val/ILSVRC2012_val_{:08}.JPEG", i + 1), NAMES[*class].to_owned()))
        .collect();
    assert_eq!(classes_of(place.path(), &found, &found.val), expected);
    // Missing images move no label, and other files have none.
    let place = unpacked_ilsvrc(|folder| {
        fs::remove_file(folder.join("val/ILSVRC2012_val_00000002.JPEG")).unwrap();
        write(folder.join("val/extra.JPEG"), &jpeg(&picture(1)));
    });
    let found = open(place.path()).unwrap();
    let val = classes_of(place.path(), &found, &found.val);
    assert!(val.len() == 5 && val.iter().all(|(name, class)| expected[name] == *class), "{val:?}");
    noted(&found, &["1 answer of the kit without an image: number 2"]);
    noted(&found, &["1 image without the number of an answer in the name not read", "extra.JPEG"]);

    let first = "val/ILSVRC2012_val_00000001.JPEG";
    let rename =
        |to: &'static str| unpacked_ilsvrc(move |folder| fs::rename(folder.join(first), folder.join(to)).unwrap());
    refused(open(rename("val/ILSVRC2012_val_00000007.JPEG").path()), &["00000007", "answers for 1 to 6"]);
    let without = unpacked_ilsvrc(|folder| fs::remove_file(folder.join("ILSVRC2012_devkit_t12.tar.gz")).unwrap());
    refused(open(without.path()), &["/val", "Put ILSVRC2012_devkit_t12.tar.gz beside the folder"]);
    let lacking = unpacked_ilsvrc(|folder| fs::remove_dir_all(folder.join("train").join(CLASSES[0])).unwrap());
    refused(open(lacking.path()), &["its class n01000001 is not among the 2 classes to train on"]);
    // In folders, which must say the same.
    let in_folders = |of: &'static dyn Fn(usize) -> usize| {
        unpacked_ilsvrc(move |folder| {
            for (number, (class, file)) in images()[1].iter().enumerate() {
                let name = format!("ILSVRC2012_val_{:08}.JPEG", number + 1);
                fs::remove_file(folder.join("val").join(&name)).unwrap();
                write(folder.join("val").join(CLASSES[of(*class)]).join(name), file);
            }
        })
    };
    assert_eq!(open(in_folders(&|class| class).path()).unwrap().val.len(), 6);
    refused(open(in_folders(&|class| 2 - class).path()), &["ILSVRC2012_val_", "is in the folder of", "for its number"]);
}

#[test]
fn two_files_of_labels_that_disagree_are_refused() {
    let train = [("train/a", 3), ("train/b", 3), ("val", 3)];
    let first = ("val/metadata.csv", "file_name,label\n0.jpg,a\n1.jpg,b\n2.jpg,a\n");
    let with = |name: &str, text: &str| set(&train, &[first, (name, text)]);
    let found = open(with("val.txt", "0.jpg a\n1.jpg b\n").path()).unwrap();
    noted(&found, &["val.txt not read", "metadata.csv tells the classes"]);
    let parts =
        ["val_labels.csv", "val/1.jpg is of class \"a\"", "metadata.csv says \"b\"", "move the one that is wrong"];
    refused(open(with("val_labels.csv", "id,label\n0,a\n1,a\n").path()), &parts);
    // A class that is not trained on is another one, too; what is no labels of these images is not.
    refused(open(with("val.csv", "0.jpg,a\n1.jpg,c\n").path()), &["val/1.jpg is of class \"c\""]);
    for text in ["0.jpg one\n1.jpg two\n", "7.jpg a\n", "a caption of this\nand that\n"] {
        assert_eq!(open(with("val.txt", text).path()).unwrap().val.len(), 3, "{text}");
    }
    // The labels of the other part.
    let flat = [("train", 4), ("val", 4)];
    let labels = ["0.jpg,a\n1.jpg,b\n2.jpg,a\n3.jpg,b\n", "0.jpg,b\n1.jpg,a\n2.jpg,b\n3.jpg,a\n"];
    let place = set(&flat, &[("labels.csv", labels[0]), ("val.csv", labels[1])]);
    assert_eq!(open(place.path()).unwrap().val.len(), 4);

    // Folders and a file.
    let folders = [("train/n01440764", 3), ("train/n01443537", 3), ("val/n01440764", 2), ("val/n01443537", 1)];
    let tiny = |text: &str| set(&folders, &[("val/val_annotations.txt", text)]);
    let found = open(tiny("0.jpg\tn01440764\t0\t0\t9\t9\n").path());
    refused(
        found,
        &[
            "val_annotations.txt",
            "val/n01443537/0.jpg is of class \"n01440764\"",
            "lies in the folder of \"n01443537\"",
        ],
    );
    let found = open(tiny("1.jpg\tn01440764\t0\t0\t9\t9\n").path()).unwrap();
    noted(&found, &["val_annotations.txt not read: the folders tell the classes"]);
    refused(open(tiny("1.jpg\tn01443537\t0\t0\t9\t9\n").path()), &["val_annotations.txt", "val/n01440764/1.jpg"]);
}

#[test]
fn shards_may_be_named_by_flags() {
    let folder = TempDir::new().unwrap();
    as_webdataset(&folder.path().join("all"));
    let all = folder.path().join("all");
    for (from, to) in
        [("train-0", "one/00.tar"), ("train-1", "one/01.tar"), ("val-0", "two/00.tar"), ("val-1", "x.tar")]
    {
        let bytes = fs::read(all.join(format!("{from}.tar"))).unwrap();
        write(folder.path().join("apart").join(to), &bytes);
    }
    let apart = folder.path().join("apart");
    fs::copy(all.join("classes.txt"), apart.join("classes.txt")).unwrap();
    let given = |set: &Path, train: Option<&str>, val: Option<&str>| {
        open_with(set, |options| {
            (options.train, options.val) = (train.map(|path| set.join(path)), val.map(Into::into));
        })
    };
    let found = given(&apart, Some("one"), Some("two")).unwrap();
    assert_eq!((found.form, counts(&found)), ("WebDataset tars", (9, 3, CLASSES.to_vec())));
    assert_eq!(given(&apart, Some("one"), Some("x.tar")).unwrap().val.len(), 3);
    let found = given(&apart, Some("one"), None).unwrap();
    assert_eq!(found.train.len() + found.val.len(), 9);
    // Of a set of one part, all but what is held out.
    let found = given(&all, None, Some("train-1.tar")).unwrap();
    assert_eq!((found.train.len(), found.val.len()), (3, 6));
    refused(given(&all, None, Some("nowhere")), &["--val", "WebDataset tars", "files or folders of them"]);
    refused(given(&apart, Some("one"), Some("one")), &["00.tar", "cannot be trained on and held out"]);
    refused(given(&apart, Some("one"), Some("nowhere")), &["nowhere", "name shards with both"]);
    refused(given(&apart.join("two"), None, Some("00.tar")), &["no shards to train on but those of --val"]);

    let tables = TempDir::new().unwrap();
    for (number, name) in ["a/0.parquet", "b/0.parquet"].iter().enumerate() {
        let columns = [("image", pictures(4 * number as u32, 4)), ("label", integers(&[0, 1, 0, 1]))];
        table(&tables.path().join(name), &columns, &["x", "y"], SNAPPY);
    }
    refused(open(tables.path()), &["several sets"]);
    assert_eq!(counts(&given(tables.path(), Some("a"), Some("b")).unwrap()), (4, 4, vec!["x", "y"]));
}

#[test]
fn a_column_tells_the_parts_of_a_table() {
    let folder = TempDir::new().unwrap();
    let part = |name: &str, first: u32, labels: &[i64], parts: &[&'static str]| {
        let columns =
            [("image", pictures(first, labels.len() as u32)), ("label", integers(labels)), ("split", texts(parts))];
        table(&folder.path().join(name), &columns, &["x", "y"], SNAPPY);
    };
    let labels = |part: &Part| (0..part.len()).map(|i| part.item(i).class).collect::<Vec<_>>();
    part("a.parquet", 0, &[0, 1, 1, 1, 0, 0], &["train", "validation", "train", "test", "validation", "train"]);
    let found = open(folder.path()).unwrap();
    assert_eq!((labels(&found.train), labels(&found.val)), (vec![0, 1, 0], vec![1, 0]));
    assert!(found.val.item(1).name.contains("row 4"), "{}", found.val.item(1).name);
    noted(&found, &["1 file whose column split tells the part of each row", "a.parquet"]);
    noted(&found, &["1 row of a test set not read"]);
    // A file a part, which their names do not tell.
    part("a.parquet", 0, &[0, 1], &["train"; 2]);
    part("b.parquet", 2, &[1, 0, 1], &["test"; 3]);
    let found = open(folder.path()).unwrap();
    assert_eq!((labels(&found.train), labels(&found.val)), (vec![0, 1], vec![1, 0, 1]));
    // Other words.
    fs::remove_file(folder.path().join("b.parquet")).unwrap();
    part("a.parquet", 0, &[0, 1, 0, 1], &["fold1", "fold2", "fold1", "fold2"]);
    let found = open(folder.path()).unwrap();
    assert_eq!((found.train.len(), found.val.len()), (2, 2));
    noted(&found, &["1 file whose column split does not tell the part"]);
    // Names of files that tell as much.
    fs::remove_file(folder.path().join("a.parquet")).unwrap();
    part("train.parquet", 0, &[0, 1], &["train"; 2]);
    part("test.parquet", 2, &[1, 0, 1], &["test"; 3]);
    let found = open(folder.path()).unwrap();
    assert_eq!((labels(&found.train), labels(&found.val)), (vec![0, 1], vec![1, 0, 1]));
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    part("train.parquet", 0, &[0, 1, 1], &["train", "train", "validation"]);
    refused(open(folder.path()), &["test.parquet", "so are rows of", "train.parquet"]);
}

#[test]
fn more_tables_than_files_may_be_open_are_read() {
    let place = Place::new();
    for number in 0..500 {
        let columns = [("image", pictures(number, 1)), ("label", integers(&[i64::from(number % 2)]))];
        table(&place.path(&format!("set/train-{number:05}.parquet")), &columns, &["x", "y"], SNAPPY);
    }
    let program = env!("CARGO_BIN_EXE_alexnet-split");
    let line = format!("ulimit -n 400 && exec {program} prepare set out --size 8 --store raw --threads 2");
    let output = std::process::Command::new("sh").args(["-c", &line]).current_dir(place.path(".")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("450 to train on, 50 held out"), "{text}");
}

#[test]
fn columns_of_ones_and_zeros_are_labels() {
    let flags = "image,MEL,NV,size\n0,1.0,0.0,7\n1,0.0,1.0,8\n2,1.0,0.0,9\n3,0,1,9\n";
    let found = open(set(&[("images", 4)], &[("images/labels.csv", flags)]).path()).unwrap();
    assert_eq!(counts(&found), (2, 2, vec!["MEL", "NV"]));
    let place = set(&[("train/MEL", 2), ("train/NV", 2), ("val", 4)], &[("val.csv", flags)]);
    let found = open(place.path()).unwrap();
    let val = classes_of(place.path(), &found, &found.val);
    assert_eq!([&val["val/0.jpg"], &val["val/1.jpg"], &val["val/3.jpg"]], ["MEL", "NV", "NV"]);
    let several = set(&[("images", 4)], &[("images/labels.csv", "image,MEL,NV\n0,1,1\n1,0,1\n2,0,1\n3,1,0\n")]);
    refused(open(several.path()), &["labels.csv", "has 1 for 0 in 2 of its columns", "MEL, NV", "--label-column NAME"]);
    let with = |options: &mut SourceOptions| options.label_column = Some("mel".into());
    assert_eq!(open_with(several.path(), with).unwrap().classes, ["0", "1"]);
}
