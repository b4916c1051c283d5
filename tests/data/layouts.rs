//! Folders as people have them: layouts that are read right, and those that are doubted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use alexnet_split::data::sources::{self, Part, Result, SourceOptions, Sources};
use tempfile::TempDir;

use crate::support::forms::*;

/// A set of small images: `("train/cat", 3)` is train/cat/0.jpg to 2.jpg, and `("words.txt", 0)` nothing.
pub fn set(folders: &[(&str, usize)], texts: &[(&str, &str)]) -> TempDir {
    let place = TempDir::new().unwrap();
    let image = jpeg(&picture(1));
    for (folder, count) in folders {
        (0..*count).for_each(|i| write(place.path().join(format!("{folder}/{i}.jpg")), &image));
    }
    texts.iter().for_each(|(name, text)| write(place.path().join(name), text.as_bytes()));
    place
}

pub fn open(path: &Path) -> Result<Sources> {
    sources::open(path, &SourceOptions::holding_out(0.25))
}

pub fn open_with(path: &Path, change: impl Fn(&mut SourceOptions)) -> Result<Sources> {
    let mut options = SourceOptions::holding_out(0.25);
    change(&mut options);
    sources::open(path, &options)
}

/// Class names of the images by their paths from the set.
pub fn classes_of(root: &Path, found: &Sources, part: &Part) -> BTreeMap<String, String> {
    let root = root.canonicalize().unwrap();
    let name = |name: &str| Path::new(name).canonicalize().unwrap().strip_prefix(&root).unwrap().display().to_string();
    (0..part.len()).map(|i| part.item(i)).map(|i| (name(&i.name), found.classes[i.class as usize].clone())).collect()
}

pub fn counts(found: &Sources) -> (usize, usize, Vec<&str>) {
    (found.train.len(), found.val.len(), found.classes.iter().map(|class| &**class).collect())
}

/// The set is refused, and the message has all of `parts` and no advice that loses data.
pub fn refused(result: Result<Sources>, parts: &[&str]) {
    let text = match result {
        Ok(found) => panic!("{parts:?} passed as {}: {:?}, {:?}", found.form, counts(&found), found.notes),
        Err(error) => error.to_string(),
    };
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in: {text}"));
    assert!(!text.contains("remove the folder"), "{text}");
}

pub fn noted(found: &Sources, parts: &[&str]) {
    let is_it = |note: &String| parts.iter().all(|part| note.contains(part));
    assert!(found.notes.iter().filter(|note| is_it(note)).count() == 1, "no note {parts:?} in {:?}", found.notes);
}

const TINY: [(&str, usize); 4] =
    [("train/n01443537/images", 4), ("train/n01629819/images", 3), ("val/images", 4), ("test/images", 5)];

#[test]
fn tiny_imagenet_is_read_as_it_is_unpacked() {
    // The answers are in another order than the images, and some image has none.
    let annotations = "2.jpg\tn01443537\t0\t0\t62\t62\n0.jpg\tn01629819\t0\t0\t1\t1\n1.jpg\tn01443537\t5\t5\t9\t9\n";
    let texts = [
        ("val/val_annotations.txt", annotations),
        ("train/n01443537/n01443537_boxes.txt", "n01443537_0.JPEG\t0\t0\t9\t9\n"),
        ("wnids.txt", "n01629819\nn01443537\n"),
        (
            "words.txt",
            "n00001740\tentity\nn01629819\tEuropean fire salamander\nn01443537\tgoldfish, Carassius auratus\n",
        ),
    ];
    let place = set(&TINY, &texts);
    let found = open(place.path()).unwrap();
    assert_eq!(found.form, "Tiny ImageNet");
    assert_eq!(counts(&found), (7, 3, vec!["goldfish, Carassius auratus", "European fire salamander"]));
    let val = classes_of(place.path(), &found, &found.val);
    assert_eq!(val["val/images/0.jpg"], "European fire salamander");
    assert_eq!(val["val/images/1.jpg"], "goldfish, Carassius auratus");
    assert_eq!(val["val/images/2.jpg"], "goldfish, Carassius auratus");
    noted(&found, &["1 image that", "val_annotations.txt has no label for", "val/images/3.jpg"]);
    noted(&found, &["test (5 images)", "not read"]);
    // Names that cannot be read are a note.
    fs::write(place.path().join("words.txt"), "n01629819\tone\nn01629819\ttwo\n").unwrap();
    let found = open(place.path()).unwrap();
    assert_eq!(found.classes, ["n01443537", "n01629819"]);
    noted(&found, &["no names of classes taken from", "words.txt", "twice"]);
    // One who has moved the images into folders of classes, as many scripts do.
    for (i, class) in ["n01629819", "n01443537", "n01443537", "n01629819"].into_iter().enumerate() {
        fs::create_dir_all(place.path().join("val").join(class)).unwrap();
        let to = place.path().join(format!("val/{class}/{i}.jpg"));
        fs::rename(place.path().join(format!("val/images/{i}.jpg")), to).unwrap();
    }
    let found = open(place.path()).unwrap();
    assert_eq!((found.train.len(), found.val.len(), found.classes.len()), (7, 4, 2));
    noted(&found, &["1 folder without images that is no class not read: ", "val/images"]);
}

#[test]
fn kaggles_ilsvrc_is_read_from_each_of_its_folders() {
    let folders = [
        ("k/ILSVRC/Data/CLS-LOC/train/n01440764", 3),
        ("k/ILSVRC/Data/CLS-LOC/train/n01443537", 3),
        ("k/ILSVRC/Data/CLS-LOC/val", 3),
        ("k/ILSVRC/Data/CLS-LOC/test", 2),
    ];
    let solution = "ImageId,PredictionString\n2,n01440764 1 2 3 4 n01440764 9 9 9 9 \n0,n01443537 5 6 7 8 \n1,n01440764 1 2 3 4 \n";
    let texts = [
        ("k/LOC_val_solution.csv", solution),
        ("k/LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn01484850 great white shark\n"),
        ("k/ILSVRC/Annotations/CLS-LOC/train/n01440764/0.xml", "<annotation/>"),
        ("k/ILSVRC/ImageSets/CLS-LOC/val.txt", "0 1\n1 2\n2 3\n"),
    ];
    let place = set(&folders, &texts);
    let names = ["tench, Tinca tinca", "goldfish"];
    for start in ["", "k", "k/ILSVRC", "k/ILSVRC/Data/CLS-LOC"] {
        let found = open(&place.path().join(start)).unwrap();
        assert_eq!((found.form, counts(&found)), ("Kaggle's ILSVRC", (6, 3, names.to_vec())), "{start}");
        let val = classes_of(&place.path().join("k/ILSVRC/Data/CLS-LOC/val"), &found, &found.val);
        assert_eq!([&val["0.jpg"], &val["1.jpg"], &val["2.jpg"]], [names[1], names[0], names[0]]);
        noted(&found, &["CLS-LOC/test (2 images)", "not read"]);
    }
    // Without the answers the images to validate with are not left alone in silence.
    fs::remove_file(place.path().join("k/LOC_val_solution.csv")).unwrap();
    refused(
        open(&place.path().join("k")),
        &["CLS-LOC/val", "3 images", "nothing tells the classes of 0.jpg", "--val DIR"],
    );
}

#[test]
fn a_set_may_lie_in_the_one_folder_below() {
    let place = set(
        &[("imagenette2/train/a", 2), ("imagenette2/train/b", 2), ("imagenette2/val/a", 1), ("imagenette2/val/b", 1)],
        &[("readme.txt", "x")],
    );
    let found = open(place.path()).unwrap();
    assert_eq!(counts(&found), (4, 2, vec!["a", "b"]));
    noted(&found, &["read from", "imagenette2"]);
    let classes = set(&[("x/animals/cat", 2), ("x/animals/dog", 2)], &[]);
    assert_eq!(counts(&open(classes.path()).unwrap()), (2, 2, vec!["cat", "dog"]));
    // Sets of other forms, too.
    let tars = TempDir::new().unwrap();
    as_webdataset(&tars.path().join("shards"));
    let found = open(tars.path()).unwrap();
    assert_eq!((found.form, found.train.len()), ("WebDataset tars", 9));
    noted(&found, &["read from", "shards"]);

    as_idx(&tars.path().join("digits"), 8);
    refused(
        open(tars.path()),
        &[
            "more than one set",
            "digits (the files of CIFAR or MNIST)",
            "shards (WebDataset tars)",
            "give the folder of one",
        ],
    );
    for (folder, count) in [("imagewoof/train/a", 2), ("imagewoof/train/c", 2), ("imagewoof/val/a", 1)] {
        (0..count).for_each(|i| write(place.path().join(format!("{folder}/{i}.jpg")), b""));
    }
    refused(open(place.path()), &["more than one set", "imagenette2 (6 images)", "imagewoof (5 images)"]);
    // The parts of each class apart.
    let parts = set(&[("cat/train", 2), ("cat/test", 2), ("dog/train", 2), ("dog/test", 2)], &[]);
    refused(open(parts.path()), &["more than one set", "cat (4 images)"]);
}

#[test]
fn parts_are_known_by_many_names() {
    for (train, val) in [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("training_set", "test_set"),
        ("train/train", "val/val"),
        ("train/images", "valid/images"),
        ("Train", "Eval"),
        ("train", "dev"),
        ("train", "validation_set"),
        ("train_images", "test_images"),
        ("training", "holdout"),
    ] {
        let [[a, b], [c, d]] = [train, val].map(|part| ["sea", "street"].map(|class| format!("{part}/{class}")));
        let place = set(&[(&a, 3), (&b, 3), (&c, 2), (&d, 2)], &[]);
        let found = open(place.path()).unwrap();
        assert_eq!(counts(&found), (6, 4, vec!["sea", "street"]), "{train} {val}");
        let val_images = classes_of(place.path(), &found, &found.val);
        assert!(
            val_images.iter().all(|(path, class)| path.starts_with(val) && path.contains(&**class)),
            "{val_images:?}"
        );
        assert_eq!(found.form, "train and val with a folder a class");
    }
    let more = set(&[("train/a", 3), ("train/b", 3), ("val/a", 1), ("val/b", 1), ("test/a", 2), ("pred", 4)], &[]);
    let found = open(more.path()).unwrap();
    assert_eq!((found.train.len(), found.val.len()), (6, 2));
    noted(&found, &["not read", "test (2 images)"]);
    noted(&found, &["not read", "pred (4 images)"]);
    write(more.path().join("stray.jpg"), b"");
    noted(&open(more.path()).unwrap(), &["1 image beside the folders of the parts", "stray.jpg"]);
    // A test set without labels is none to hold out.
    let test = set(&[("train/a", 4), ("train/b", 4), ("test", 5)], &[]);
    let found = open(test.path()).unwrap();
    assert_eq!((found.train.len(), found.val.len(), found.form), (6, 2, "a folder a class"));
    noted(&found, &["not read", "test (5 images)"]);
}

#[test]
fn flat_images_have_the_classes_of_a_file() {
    let train = [("train/a", 3), ("train/b c", 3), ("val", 3)];
    for (name, text) in [
        ("val.txt", "0.jpg a\n1.jpg a\n2.jpg a\n"),
        ("val.txt", "val/0.jpg\tb c\nval/1.jpg\ta\nval/2.jpg\tb c\n"),
        ("val/labels.csv", "\u{feff}name,Label\r\n2.jpg,b c\r\n1.jpg,a\r\n0.jpg,b c\r\n"),
        ("val_labels.csv", "id;class\n\"2\";\"b c\"\n1;a\n0;b c\n"),
        ("val/metadata.csv", "score,file_name,label\n0.5,0.jpg,b c\n0.5,1.jpg,a\n0.1,2.jpg,b c\n"),
        (
            "val/metadata.jsonl",
            "{\"label\": \"b c\", \"file_name\": \"0.jpg\"}\n{\"file_name\": \"1.jpg\", \"label\": \"a\"}\n{\"label\": \"b c\", \"file_name\": \"2.jpg\"}\n",
        ),
        ("labels.csv", "a column,image,another\nb c,C:\\val\\0.jpg,7\na,C:\\val\\1.jpg,7\nb c,C:\\val\\2.jpg,7\n"),
    ] {
        let place = set(&train, &[(name, text)]);
        let found = open(place.path()).unwrap();
        let val = classes_of(place.path(), &found, &found.val);
        let expected = if text.contains("b c") { ["b c", "a", "b c"] } else { ["a", "a", "a"] };
        assert_eq!([&val["val/0.jpg"], &val["val/1.jpg"], &val["val/2.jpg"]], expected, "{name} {text}");
        noted(&found, &[name, "tells the classes"]);
    }
    let with = |name: &str, text: &str| open(set(&train, &[(name, text)]).path());
    refused(with("val.txt", "0.jpg 0\n1.jpg 1\n2.jpg 0\n"), &["val.txt", "label \"0\"", "--classes FILE"]);
    refused(with("val.txt", "0.jpg a\n1.jpg d\n"), &["val.txt", "label \"d\" is not among the 2 classes"]);
    refused(with("val.csv", "0.jpg,a\n0.jpg,b c\n"), &["val.csv", "gives \"0.jpg\" two classes"]);
    refused(
        with("val.csv", "image,one,two\n0.jpg,a,b c\n1.jpg,b c,a\n"),
        &["which column", "image, one, two", "--label-column"],
    );
    refused(with("val.txt", "7.jpg a\n8.jpg a\n"), &["val.txt", "labels for none of 3 images"]);
    refused(with("val/metadata.jsonl", "0.jpg a"), &["metadata.jsonl", "line 1"]);
    let place = set(&train, &[("val.csv", "0,a\n1,a\n")]);
    write(place.path().join("val/0.png"), b"");
    refused(open(place.path()), &["val.csv", "one label for", "val/0.jpg", "val/0.png"]);
    // Folders of classes come first, and that is told.
    let place = set(&[("train/a", 2), ("train/b", 2)], &[("train/metadata.csv", "file_name,label\na/0.jpg,x\n")]);
    let found = open(place.path()).unwrap();
    assert_eq!(found.classes, ["a", "b"]);
    noted(&found, &["train/metadata.csv", "not read", "folders tell the classes"]);
    // Some lack, on both sides.
    let place = set(&train, &[("val.txt", "0.jpg a\n7.jpg a\n8.jpg a\n1.jpg -1\n")]);
    let found = open(place.path()).unwrap();
    assert_eq!(found.val.len(), 1);
    noted(&found, &["2 images that", "has no label for"]);
    noted(&found, &["val.txt", "2 labels of images that are not there"]);
    noted(&found, &["1 class without a held-out image: \"b c\""]);
}

#[test]
fn imagefolders_with_metadata_are_read() {
    let rows = "file_name,label\n0.jpg,10\n1.jpg,9\n2.jpg,10\n3.jpg,9\n4.jpg,9\n5.jpg,10\n";
    let place = set(&[("train", 6), ("test", 5)], &[("train/metadata.csv", rows)]);
    let found = open(place.path()).unwrap();
    // Numbers are in their own order, and it is the number that is kept.
    assert_eq!((found.form, counts(&found)), ("images with a file of labels", (4, 2, vec!["9", "10"])));
    let train = classes_of(place.path(), &found, &found.train);
    assert!(train.iter().all(|(path, class)| rows.contains(&format!("{},{class}", &path[6..]))), "{train:?}");
    noted(&found, &["not read", "test (5 images)"]);
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    // With a part to validate, in folders within, and a list of names.
    let line = |i: u32| format!("{{\"file_name\": \"images/{i}.jpg\", \"text\": \"a\", \"label\": {}}}\n", i % 2);
    let text: String = (0..6).map(line).collect();
    let names = [("train/metadata.jsonl", &*text), ("validation/metadata.jsonl", &*text), ("names", "cat\ndog\n")];
    let place = set(&[("train/images", 6), ("validation/images", 4)], &names);
    let found = open_with(place.path(), |options| options.classes = Some(place.path().join("names"))).unwrap();
    assert_eq!(counts(&found), (6, 4, vec!["cat", "dog"]));
    assert_eq!(classes_of(place.path(), &found, &found.val)["validation/images/3.jpg"], "dog");
    // One table for one folder, as many contests have it.
    let place = set(&[("images", 4)], &[("labels.csv", "id,breed\n0,pug\n1,boxer\n2,pug\n3,boxer\n")]);
    assert_eq!(counts(&open(place.path()).unwrap()), (2, 2, vec!["boxer", "pug"]));
    // Captions are no classes.
    let place = set(&[("train", 2)], &[("train/metadata.csv", "file_name,text\n0.jpg,a\n1.jpg,b\n")]);
    refused(open(place.path()), &["metadata.csv", "file_name, text", "--label-column"]);
    let table = "file_name,text,more\n0.jpg,a,b\n1.jpg,b,c\n2.jpg,d,c\n3.jpg,a,b\n";
    let place = set(&[("train", 4)], &[("train/metadata.csv", table)]);
    refused(open(place.path()), &["metadata.csv", "file_name, text, more", "--label-column"]);
    let found = open_with(place.path(), |options| options.label_column = Some("more".into())).unwrap();
    assert_eq!(found.classes, ["b", "c"]);
}
