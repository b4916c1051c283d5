//! What would be wrong in silence: labels of other images, classes that are one, images in both parts, files unread.

use std::fs;
use std::os::unix::fs::symlink;

use alexnet_split::data::sources::SourceOptions;
use parquet::basic::Compression::SNAPPY;
use tempfile::TempDir;

use crate::layouts::{classes_of, counts, noted, open, open_with, refused, set};
use crate::support::forms::*;
use crate::support::tables::{images as pictures, integers, table, texts};

#[test]
fn a_first_line_of_unknown_words_is_no_image() {
    let rows = "0.jpg,cat\n1.jpg,dog\n2.jpg,cat\n3.jpg,dog\n";
    let place = set(&[("images", 4)], &[("images/labels.csv", &format!("fname,klass\n{rows}"))]);
    refused(open(place.path()), &["which column has the classes", "--label-column", "fname, klass"]);
    let named = |options: &mut SourceOptions| options.label_column = Some("klass".into());
    assert_eq!(open_with(place.path(), named).unwrap().classes, ["cat", "dog"]);
    // Excel's first line.
    let text = format!("sep=,\nfile_name,label\n{rows}");
    assert_eq!(open(set(&[("images", 4)], &[("images/labels.csv", &text)]).path()).unwrap().classes, ["cat", "dog"]);
    let text = format!("Image Name,Class Label\n{rows}");
    assert_eq!(open(set(&[("images", 4)], &[("images/labels.csv", &text)]).path()).unwrap().classes, ["cat", "dog"]);
    // A class may be called as a column.
    let rows = "0.jpg,image\n1.jpg,target\n2.jpg,image\n3.jpg,target\n";
    let found = open(set(&[("images", 4)], &[("images/labels.csv", rows)]).path()).unwrap();
    assert_eq!(counts(&found), (2, 2, vec!["image", "target"]));
}

#[test]
fn numbers_of_rows_are_not_the_names_of_images() {
    for header in ["id,label,img_file", ",label,img_file", "id,label,my path"] {
        let text = format!("{header}\n0,cat,3.jpg\n1,cat,2.jpg\n2,dog,1.jpg\n3,dog,0.jpg\n");
        let place = set(&[("images", 4)], &[("images/labels.csv", &text)]);
        let found = open(place.path()).unwrap();
        let all = [&found.train, &found.val].map(|part| classes_of(place.path(), &found, part));
        let all: Vec<(&String, &String)> = all.iter().flatten().collect();
        assert!(
            all.iter().all(|(name, class)| (*class == "dog") == (name.contains("0") || name.contains("1"))),
            "{all:?}"
        );
    }
}

#[test]
fn a_label_is_not_cut_to_the_class_that_it_begins_with() {
    let train = [("train/hot", 2), ("train/cold", 2), ("val", 2)];
    let with = |name: &str, text: &str| open(set(&train, &[(name, text)]).path());
    refused(with("val.csv", "0.jpg,hot dog\n1.jpg,cold\n"), &["label \"hot dog\" is not among"]);
    refused(with("val.txt", "0.jpg hot dog\n1.jpg cold x\n"), &["val.txt", "which column", "into a first line"]);
    // Numbers of a box may follow.
    assert_eq!(with("val.csv", "0.jpg,hot 1 2 3 4\n1.jpg,cold 5 6 7 8\n").unwrap().val.len(), 2);
    assert_eq!(with("val.txt", "0.jpg hot 1 2\n1.jpg cold 5 6.5\n").unwrap().val.len(), 2);
}

#[test]
fn classes_that_are_called_alike_are_told() {
    let says = "called as another but for capitals, spaces, signs or zeros";
    for [one, other] in [["1", "01"], ["golden_retriever", "golden retriever"], ["cat", "cat "], ["Big-Cat", "big_cat"]]
    {
        let place = set(&[(one, 2), (other, 2), ("dog", 2)], &[]);
        noted(&open(place.path()).unwrap(), &["1 class ", says, &format!("{one:?}"), &format!("{other:?}")]);
    }
    let rows = "{\"file_name\": \"0.jpg\", \"label\": \"cat \"}\n{\"file_name\": \"1.jpg\", \"label\": \"dog\"}\n\
                {\"file_name\": \"2.jpg\", \"label\": \"cat\"}\n{\"file_name\": \"3.jpg\", \"label\": 1}\n\
                {\"file_name\": \"4.jpg\", \"label\": 1.0}\n";
    let found = open(set(&[("images", 5)], &[("images/metadata.jsonl", rows)]).path()).unwrap();
    assert_eq!(found.classes, ["1", "1.0", "cat", "dog"]);
    noted(&found, &["1 class ", says, "\"1.0\" beside \"1\""]);
    // In tables, too.
    let folder = TempDir::new().unwrap();
    let columns = [("image", pictures(0, 4)), ("label", texts(&["Cat", "cat", "Cat", "cat"]))];
    table(&folder.path().join("train.parquet"), &columns, &[], SNAPPY);
    noted(&open(folder.path()).unwrap(), &["1 class ", says, "\"cat\" beside \"Cat\""]);
}

#[test]
fn texts_that_say_nothing_are_no_labels_of_tables() {
    let folder = TempDir::new().unwrap();
    let labels = ["cat", "nan", "dog", "-1", "cat", "dog", "NULL"];
    let columns = [("image", pictures(0, 7)), ("label", texts(&labels))];
    table(&folder.path().join("train.parquet"), &columns, &[], SNAPPY);
    let found = open(folder.path()).unwrap();
    assert_eq!(counts(&found), (2, 2, vec!["cat", "dog"]));
    noted(&found, &["3 rows without a label"]);
}

#[test]
fn links_that_bring_images_into_two_classes_or_parts_are_refused() {
    let place = set(&[("cat", 3), ("dog", 3)], &[]);
    symlink("cat", place.path().join("kitten")).unwrap();
    refused(open(place.path()), &["kitten", "is a link", "cat", "two classes"]);
    let place = set(&[("train/cat", 3), ("train/dog", 3), ("val/cat", 2)], &[]);
    symlink("../train/dog", place.path().join("val/dog")).unwrap();
    refused(open(place.path()), &["val/dog", "is", "train/dog by a link", "--val DIR"]);
}

#[test]
fn what_is_held_out_of_a_folder_within_the_other_is_not_trained_on() {
    let all: String = (0..4).map(|i| format!("{i}.jpg,{}\nheld/{i}.jpg,{}\n", i % 2, i % 2)).collect();
    let place = set(&[("train", 4), ("train/held", 4)], &[("train/labels.csv", &format!("file_name,label\n{all}"))]);
    write(place.path().join("train/held/labels.csv"), b"file_name,label\n0.jpg,0\n1.jpg,1\n2.jpg,0\n3.jpg,1\n");
    let found = open_with(place.path(), |options| {
        (options.train, options.val) = (Some("train".into()), Some("train/held".into()));
        options.label_column = Some("label".into());
    });
    assert_eq!(counts(&found.unwrap()), (4, 4, vec!["0", "1"]));
}

#[test]
fn tars_that_hold_the_same_are_read_once() {
    let place = TempDir::new().unwrap();
    as_webdataset(place.path());
    let copy = |from: &str, to: &str| fs::copy(place.path().join(from), place.path().join(to)).unwrap();
    copy("train-0.tar", "train-0 (1).tar");
    let found = open(place.path()).unwrap();
    assert_eq!((found.train.len(), found.val.len()), (9, 6));
    noted(&found, &["1 file that holds the same as another, read once", "train-0 (1).tar", "train-0.tar"]);
    fs::remove_file(place.path().join("train-0 (1).tar")).unwrap();
    copy("train-0.tar", "val-7.tar");
    let found = open(place.path()).unwrap();
    noted(&found, &["1 file to hold out that holds the same as one to train on", "val-7.tar and", "train-0.tar"]);
    // Tables.
    let folder = TempDir::new().unwrap();
    for name in ["train.parquet", "test.parquet"] {
        let columns = [("image", pictures(0, 4)), ("label", integers(&[0, 1, 0, 1]))];
        table(&folder.path().join(name), &columns, &["x", "y"], SNAPPY);
    }
    noted(
        &open(folder.path()).unwrap(),
        &["1 file to hold out that holds the same as one to train on", "test.parquet"],
    );
}

#[test]
fn archives_and_tables_beside_the_folders_are_told() {
    let place = set(&[("train/a", 3), ("train/b", 3)], &[("val.tar", "x"), ("more.zip", "x"), ("birds.csv", "x,y\n")]);
    let found = open(place.path()).unwrap();
    assert_eq!((found.train.len(), found.val.len()), (4, 2));
    noted(
        &found,
        &["3 files beside the folders of images, which may belong to the set, not read", "birds.csv among them"],
    );
}
