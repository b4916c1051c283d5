//! Which files are the shards of a set, and which are missing: told, never guessed.

use alexnet_split::data::sources::{self, SourceOptions};
use tempfile::TempDir;

use super::support::forms::*;
use super::support::prepared::refused;

/// A set of tars with a sample each.
fn tars(names: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    write(folder.path().join("classes.txt"), b"a\nb\n");
    for (number, name) in names.iter().enumerate() {
        let image = jpeg(&picture(number as u32));
        let files = [("0.jpg".to_owned(), image), ("0.cls".to_owned(), b"0".to_vec())];
        write(folder.path().join(name), &tar_of(&files));
    }
    folder
}

/// Numbers of images to train on and held out, and the notes, of a set of tars.
fn found(names: &[&str]) -> ([usize; 2], Vec<String>) {
    let folder = tars(names);
    let found = sources::open(folder.path(), &SourceOptions::holding_out(0.3));
    let found = found.unwrap_or_else(|error| panic!("{names:?}: {error}"));
    ([found.train.len(), found.val.len()], found.notes)
}

#[test]
fn missing_shards_are_counted_and_told() {
    for (names, count, example) in [
        (&["train-000000.tar", "train-000002.tar", "val-0.tar"][..], 1, "train-000001.tar"),
        (&["train-00001-of-00005.tar", "train-00004-of-00005.tar", "val-0.tar"], 3, "train-00000-of-00005.tar"),
        (&["train-1-of-3.tar", "train-3-of-3.tar", "val-0.tar"], 1, "train-2-of-3.tar"),
        (&["train-0.tar", "train-5.tar", "val-1.tar", "val-3.tar"], 5, "train-1.tar"),
        (&["train-000003.tar", "val-0.tar"], 3, "train-000000.tar"),
        (&["train_00000_of_00002.tar.gz", "val-0.tar"], 1, "train_00001_of_00002.tar.gz"),
        (&["train/000000.tar", "train/000003.tar", "val/000000.tar"], 2, "train/000001.tar"),
    ] {
        let notes = found(names).1;
        let told = notes.iter().filter(|note| note.contains("missing")).collect::<Vec<_>>();
        assert_eq!(told.len(), 1, "{names:?}: {notes:?}");
        assert!(
            told[0].starts_with(&format!("{count} shard")) && told[0].contains(" missing") && told[0].contains(example),
            "{told:?}"
        );
    }
    for whole in [
        &["train-000000.tar", "train-000001.tar", "val-000002.tar"][..],
        &["train-1.tar", "train-2.tar", "val-0.tar"],
        &["train-00000-of-00002.tar", "train-00001-of-00002-5ac1f7e4.tar", "val-0.tar"],
        &["train-2017.tar", "train-2019.tar", "val-0.tar"],
        &["train-160.tar", "val-160.tar"],
        &["train.tar", "val.tar"],
        &["train-000000.tar", "data/train-000001.tar", "val-0.tar"],
    ] {
        // No shard is missing; of the two classes one has no sample.
        assert_eq!(found(whole).1, ["1 class without an image to train on: \"b\""], "{whole:?}");
    }
    let editions = tars(&["train-0-of-2.tar", "train-1-of-2.tar", "train-0-of-3.tar", "val-0.tar"]);
    refused(editions.path(), &["train-0-of-3.tar", "train-0-of-2.tar", "two editions"]);
}

#[test]
fn shards_are_read_once_and_from_the_folders_of_their_parts() {
    let twice = tars(&["train-0.tar", "val-0.tar"]);
    for name in ["train-0.tar", "val-0.tar"] {
        let bytes = std::fs::read(twice.path().join(name)).unwrap();
        write(twice.path().join("data").join(name), &bytes);
    }
    let options = SourceOptions::holding_out(0.);
    let once = sources::open(twice.path(), &options).unwrap();
    assert_eq!((once.train.len(), once.val.len()), (1, 1));
    assert!(once.notes[0].contains("2 shards that are there twice, read once"), "{:?}", once.notes);
    // Of one name, and not the same.
    let path = twice.path().join("data/train-0.tar");
    write(path.clone(), &[std::fs::read(&path).unwrap(), vec![0; 1024]].concat());
    refused(twice.path(), &["data/train-0.tar", "of the same name"]);

    assert_eq!(found(&["train/0.tar", "train/1.tar", "Validation/0.tar"]).0, [2, 1]);
    assert_eq!(found(&["data/train/0.tar", "data/test/0.tar"]).0, [1, 1]);
    let rest = found(&["train-0.tar", "train-1.tar.part", "val-0.tar", "._train-0.tar"]).1;
    assert!(rest.iter().any(|note| note.contains("1 file beside the shards") && note.contains("train-1.tar.part")));
    assert!(
        rest.iter().any(|note| note.contains("1 hidden file beside") && note.contains("._train-0.tar")),
        "{rest:?}"
    );

    // One file may be given alone.
    let files = (0..4).flat_map(|i| {
        [(format!("{i}.jpg"), jpeg(&picture(i))), (format!("{i}.cls"), format!("{}", i % 2).into_bytes())]
    });
    let single = TempDir::new().unwrap();
    let path = single.path().join("all.tar");
    write(path.clone(), &tar_of(&files.collect::<Vec<_>>()));
    let single = sources::open(&path, &SourceOptions::holding_out(0.5)).unwrap();
    assert_eq!((single.train.len(), single.val.len()), (2, 2));
}

#[test]
fn more_shards_are_read_than_files_may_be_open() {
    let mut names: Vec<String> = (0..300).map(|number| format!("train-{number:06}.tar")).collect();
    names.push("val-0.tar".into());
    let folder = tars(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let found = sources::open(folder.path(), &SourceOptions::holding_out(0.)).unwrap();
    let read = std::sync::atomic::AtomicUsize::new(0);
    found.train.read(0..300, &|_, picture| {
        picture.unwrap();
        read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(read.into_inner(), 300);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    assert!(open < 290, "{open} files are open");
}
