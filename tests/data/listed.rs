//! Lists of classes that lie beside the images.

use alexnet_split::data::sources::{ClassesFrom, SourceOptions};

use crate::layouts::{counts, noted, open, open_with, set};

const FOLDERS: [(&str, usize); 2] = [("cat", 4), ("dog", 4)];

#[test]
fn a_list_beside_folders_that_says_the_same_is_no_news() {
    for (name, text) in [
        ("classes.txt", "cat\ndog\n"),
        ("Class-Names.txt", "\u{feff}cat\r\ndog\r\n\r\n"),
        ("classes.txt", "0 cat\n1 dog\n"),
        ("classes.txt", "cat,0\ndog,1\n"),
        ("labels.txt", "1: cat\n2: dog\n"),
    ] {
        let found = open(set(&FOLDERS, &[(name, text)]).path()).unwrap();
        assert_eq!(counts(&found), (6, 2, vec!["cat", "dog"]), "{name} {text}");
        assert!(found.notes.is_empty(), "{name} {text}: {:?}", found.notes);
    }
    let synsets = [("n01440764", 2), ("n01443537", 2)];
    let list = ("synsets.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n");
    assert!(open(set(&synsets, &[list]).path()).unwrap().notes.is_empty());
}

#[test]
fn a_list_beside_folders_that_says_otherwise_is_told() {
    for (name, text, why) in [
        ("classes.txt", "dog\ncat\n", "has the classes in another order than that of their names"),
        ("labels.txt", "dog\ncat\n", "has the classes in another order than that of their names"),
        ("classes.txt", "1 dog\n2 cat\n", "has the classes in another order"),
        ("class_names.txt", "cat\ndog\nowl\n", "lists \"owl\", and no class here is called so"),
        ("CLASSES.TXT", "cat\n", "does not list \"dog\""),
        ("class_indices.json", "{\"dog\": 0, \"cat\": 1}", "may list the classes in its own way"),
        ("classes.txt", "Cats\nDogs\n", "lists \"Cats\""),
    ] {
        let place = set(&FOLDERS, &[(name, text)]);
        let found = open(place.path()).unwrap();
        assert_eq!(counts(&found), (6, 2, vec!["cat", "dog"]), "{name} {text}");
        noted(&found, &[name, "not read: it", why, "--classes FILE takes the classes and their order"]);
        assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
    }
    // In the folder of a part, and above it.
    let parts = [("train/cat", 3), ("train/dog", 3), ("val/cat", 1), ("val/dog", 1)];
    for name in ["classes.txt", "train/classes.txt"] {
        let place = set(&parts, &[(name, "dog\ncat\n")]);
        noted(&open(place.path()).unwrap(), &[name, "another order"]);
        // What the note says to do.
        let list = Some(place.path().join(name));
        let found = open_with(place.path(), |options: &mut SourceOptions| options.classes = list.clone()).unwrap();
        assert_eq!((counts(&found), found.notes.len()), ((6, 2, vec!["dog", "cat"]), 0), "{:?}", found.notes);
    }
    // Beside images whose classes a file of labels or their names tell.
    let rows = "file_name,label\n0.jpg,0\n1.jpg,1\n2.jpg,0\n3.jpg,1\n";
    let place = set(&[("images", 4)], &[("images/metadata.csv", rows), ("classes.txt", "cat\ndog\n")]);
    let found = open(place.path()).unwrap();
    assert_eq!(found.classes, ["0", "1"]);
    noted(&found, &["classes.txt not read: it lists \"cat\", and no class here is called so", "--classes FILE"]);
    let listed = |options: &mut SourceOptions| options.classes = Some(place.path().join("classes.txt"));
    assert_eq!(open_with(place.path(), listed).unwrap().classes, ["cat", "dog"]);
    let folders = |options: &mut SourceOptions| options.classes_from = Some(ClassesFrom::Folders);
    let place = set(&FOLDERS, &[("labels.txt", "dog\ncat\n")]);
    noted(&open_with(place.path(), folders).unwrap(), &["labels.txt", "another order"]);
}

#[test]
fn names_of_classes_that_are_not_taken_are_told() {
    let words = "n01440764\ttench\nn01484850\tgreat white shark\n";
    let place = set(&[("n01440764", 2), ("n01443537", 2)], &[("words.txt", words)]);
    let found = open(place.path()).unwrap();
    assert_eq!(found.classes, ["n01440764", "n01443537"]);
    noted(&found, &["no names of classes taken from", "words.txt", "it has none for \"n01443537\""]);
}
