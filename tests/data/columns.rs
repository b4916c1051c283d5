//! Columns of files of labels that tell the parts of a set.

use alexnet_split::data::sources::{ClassesFrom, Part, SourceOptions};
use tempfile::TempDir;

use crate::layouts::{classes_of, counts, noted, open, open_with, refused, set};

/// Images 0 to 7 in one folder, and a file of their labels.
fn flat(name: &str, text: &str) -> TempDir {
    set(&[("images", 8)], &[(&format!("images/{name}"), text)])
}

/// The numbers of the images of a part.
fn numbers(part: &Part) -> Vec<String> {
    (0..part.len()).map(|i| part.item(i).name.rsplit('/').next().unwrap().replace(".jpg", "")).collect()
}

const ROWS: &str = "0.jpg,a,train\n1.jpg,b,Val\n2.jpg,a,TRAIN\n3.jpg,b,train\n4.jpg,a,test\n5.jpg,a,valid\n6.jpg,b,\
                    Validation\n7.jpg,b,test\n";

#[test]
fn a_column_of_a_labels_file_tells_the_parts() {
    let lines: String = ROWS
        .lines()
        .map(|row| row.split(',').collect::<Vec<_>>())
        .map(|row| format!("{{\"split\": {:?}, \"file_name\": {:?}, \"label\": {:?}}}\n", row[2], row[0], row[1]))
        .collect();
    for (name, text) in [
        ("metadata.csv", format!("file_name,label,split\n{ROWS}")),
        ("metadata.csv", format!("file_name,label,Data Split\n{ROWS}")),
        ("metadata.csv", format!("\u{feff}file_name;label;subset\n{ROWS}").replace(',', ";").replace('\n', "\r\n")),
        // By its values, whatever it is called.
        ("labels.csv", format!("file_name,label,data set\n{ROWS}")),
        ("metadata.jsonl", lines),
    ] {
        let place = flat(name, &text);
        let found = open(place.path()).unwrap();
        assert_eq!([numbers(&found.train), numbers(&found.val)], [["0", "2", "3"], ["1", "5", "6"]]);
        assert_eq!(found.classes, ["a", "b"]);
        let val = classes_of(place.path(), &found, &found.val);
        assert_eq!([&val["images/1.jpg"], &val["images/5.jpg"], &val["images/6.jpg"]], ["b", "a", "b"]);
        noted(&found, &["the column", name, "tells which images are held out"]);
        noted(&found, &["2 images of a test set not read", "images/4.jpg"]);
    }
}

#[test]
fn a_test_set_is_held_out_where_nothing_else_is() {
    let rows = "file_name,label,split\n0.jpg,a,train\n1.jpg,b,train\n2.jpg,b,test\n3.jpg,a,test\n";
    let found = open(flat("metadata.csv", rows).path()).unwrap();
    assert_eq!([numbers(&found.train), numbers(&found.val)], [["0", "1"], ["2", "3"]]);
    // Without labels it is left out, and what is held out comes from the images to train on.
    let rows = "file_name,label,split\n0.jpg,a,train\n1.jpg,b,train\n2.jpg,a,train\n3.jpg,b,train\n4.jpg,,test\n5.jpg,-1,test\n";
    let found = open(flat("metadata.csv", rows).path()).unwrap();
    assert_eq!(counts(&found), (2, 2, vec!["a", "b"]));
    noted(&found, &["4 images that", "metadata.csv has no label for not read"]);
    // Labels that are no classes do not matter in a test set that is not read; elsewhere they do.
    let rows = "file_name,label,split\n0.jpg,a,train\n1.jpg,b,train\n2.jpg,a,val\n3.jpg,unknown,test\n";
    assert_eq!(counts(&open(flat("metadata.csv", rows).path()).unwrap()), (2, 1, vec!["a", "b"]));
    let wrong = rows.replace("test", "val");
    refused(open(flat("metadata.csv", &wrong).path()), &["\"unknown\" is not among the 2 classes to train on"]);
}

#[test]
fn words_that_are_no_parts_are_refused_by_name_and_counted() {
    let rows = "0.jpg,a,train\n1.jpg,b,Val\n2.jpg,a,extra\n3.jpg,b,extra\n4.jpg,a,\n5.jpg,a,x\n";
    let with = |column: &str| flat("metadata.csv", &format!("file_name,label,{column}\n{rows}"));
    let parts =
        ["metadata.csv", "column split has \"\" in 1 row, \"extra\" in 2 rows, \"x\" in 1 row", "train, val or test"];
    refused(open(with("split").path()), &parts);
    // A column of another name may have other words.
    let found = open(with("note").path()).unwrap();
    assert_eq!((found.train.len() + found.val.len(), found.val.len()), (6, 2));
    // One word for all images tells nothing, unless it is that of another part.
    let all =
        |word: &str| format!("file_name,label,split\n0.jpg,a,{word}\n1.jpg,b,{word}\n2.jpg,a,{word}\n3.jpg,b,{word}\n");
    for word in ["all", "train", ""] {
        assert_eq!(counts(&open(flat("metadata.csv", &all(word)).path()).unwrap()), (2, 2, vec!["a", "b"]), "{word}");
    }
    refused(open(flat("metadata.csv", &all("test")).path()), &["column split", "none of 4 images", "to train on"]);
    let twice = "file_name,label,split\n0.jpg,a,train\n1.jpg,b,train\n0.jpg,a,val\n";
    refused(open(flat("metadata.csv", twice).path()), &["puts \"0.jpg\" into two parts"]);
}

#[test]
fn columns_of_yes_and_no_tell_the_parts() {
    let valid = "file_name,label,is_valid\n0.jpg,a,False\n1.jpg,b,False\n2.jpg,a,True\n3.jpg,b,True\n";
    let both = "file_name,label,is_test,is_valid\n0.jpg,a,0,0\n1.jpg,b,0,0\n2.jpg,a,0,1\n3.jpg,b,0,1\n4.jpg,b,1,0\n";
    let train = "file_name,label,is_train\n0.jpg,a,1\n1.jpg,b,1\n2.jpg,a,0\n3.jpg,b,0\n";
    for text in [valid, both, train] {
        let found = open(flat("labels.csv", text).path()).unwrap();
        assert_eq!([numbers(&found.train), numbers(&found.val)], [["0", "1"], ["2", "3"]], "{text}");
        assert_eq!(found.classes, ["a", "b"]);
    }
    let strange = valid.replace("True", "maybe");
    refused(open(flat("labels.csv", &strange).path()), &["is_valid has \"maybe\" in 2 rows", "true or false"]);
    let folds = valid.replace("is_valid", "fold").replace("True", "1").replace("False", "0");
    refused(open(flat("labels.csv", &folds).path()), &["labels.csv", "column fold", "does not say which to hold out"]);
}

#[test]
fn a_column_and_the_folders_must_agree() {
    let folders = [("train", 3), ("val", 2)];
    let rows = "file_name,label,split\ntrain/2.jpg,b,train\ntrain/0.jpg,a,train\ntrain/1.jpg,b,train\nval/0.jpg,a,validation\nval/1.jpg,b,test\n";
    let found = open(set(&folders, &[("labels.csv", rows)]).path()).unwrap();
    assert_eq!(counts(&found), (3, 2, vec!["a", "b"]));
    let wrong = rows.replace("val/0.jpg,a,validation", "val/0.jpg,a,train");
    let place = set(&folders, &[("labels.csv", &wrong)]);
    refused(open(place.path()), &["labels.csv", "val/0.jpg is to train on", "folder of images to hold out"]);
    let wrong = rows.replace("train/1.jpg,b,train", "train/1.jpg,b,test");
    let place = set(&folders, &[("labels.csv", &wrong)]);
    refused(open(place.path()), &["train/1.jpg is to hold out", "folder of images to train on"]);
}

#[test]
fn a_column_tells_the_parts_of_folders_of_classes() {
    let rows = "file_name,label,split\na/0.jpg,a,train\na/1.jpg,a,test\nb/0.jpg,b,test\nb/1.jpg,b,train\n";
    let place = set(&[("a", 2), ("b", 3)], &[("metadata.csv", rows)]);
    let found = open(place.path()).unwrap();
    assert_eq!((found.form, counts(&found)), ("a folder a class, with lists of the parts", (2, 2, vec!["a", "b"])));
    let val: Vec<String> = classes_of(place.path(), &found, &found.val).into_keys().collect();
    assert_eq!(val, ["a/1.jpg", "b/0.jpg"]);
    noted(&found, &["the column split of", "metadata.csv tells which images are held out"]);
    noted(&found, &["1 image that", "metadata.csv does not list not read", "b/2.jpg"]);
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    // Folders of the parts are believed.
    let place = set(&[("train/a", 2), ("train/b", 2), ("val/a", 1), ("val/b", 1)], &[("train/metadata.csv", rows)]);
    let found = open(place.path()).unwrap();
    assert_eq!(counts(&found), (4, 2, vec!["a", "b"]));
    noted(&found, &["metadata.csv not read: the folders tell the classes"]);
    let folders = |options: &mut SourceOptions| options.classes_from = Some(ClassesFrom::Folders);
    let place = set(&[("a", 2), ("b", 3)], &[("metadata.csv", rows)]);
    assert_eq!(open_with(place.path(), folders).unwrap().train.len(), 3);
}

#[test]
fn labels_that_are_called_like_parts_are_doubted() {
    let rows = "0.jpg,train\n1.jpg,test\n2.jpg,train\n3.jpg,test\n";
    refused(open(flat("labels.csv", rows).path()), &["labels.csv", "(test, train)", "--label-column"]);
    let place = flat("labels.csv", &format!("file,kind\n{rows}"));
    let named = |options: &mut SourceOptions| options.label_column = Some("kind".into());
    assert_eq!(open_with(place.path(), named).unwrap().classes, ["test", "train"]);
}
