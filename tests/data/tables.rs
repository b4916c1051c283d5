//! Tables (parquet): which files are a set, which columns are read, and whose numbers the labels are.

use std::fs;
use std::path::{Path, PathBuf};

use alexnet_split::data::sources::Error;
use alexnet_split::data::sources::{self, Part, Picture, SourceOptions, Sources};
use parquet::basic::Compression::SNAPPY;
use tempfile::TempDir;

use crate::support::forms::{jpeg, picture, write};
use crate::support::prepared::refused;
use crate::support::tables::{Values, images, integers, table, texts};

const ABC: [&str; 3] = ["ant", "bee", "cat"];

/// A file of an image for each label, whose pictures are counted from `first`.
fn shard(path: &Path, first: u32, labels: &[i64], names: &[&str]) {
    let images = images(first, labels.len() as u32);
    table(path, &[("image", images), ("label", integers(labels))], names, SNAPPY);
}

/// A folder with files of these names, of which each has two images of each class.
fn set(names: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (number, name) in names.iter().enumerate() {
        shard(&folder.path().join(name), 6 * number as u32, &[0, 1, 2, 0, 1, 2], &ABC);
    }
    folder
}

fn opened(folder: &Path) -> Sources {
    sources::open(folder, &SourceOptions::holding_out(0.25)).unwrap()
}

/// The name of each image's class, in order.
fn classes_of(found: &Sources, part: &Part) -> Vec<String> {
    (0..part.len()).map(|index| found.classes[part.item(index).class as usize].clone()).collect()
}

/// The files of all images, in order.
fn files_of(part: &Part) -> Vec<Vec<u8>> {
    let files = std::sync::Mutex::new(vec![Vec::new(); part.len()]);
    part.read(0..part.len(), &|place, picture| {
        let Ok(Picture::File(bytes)) = picture else { panic!("image {place} is not read") };
        files.lock().unwrap()[place] = bytes;
    });
    files.into_inner().unwrap()
}

fn says(notes: &[String], parts: &[&str]) {
    let note = notes.iter().find(|note| parts.iter().all(|part| note.contains(part)));
    assert!(note.is_some(), "no note with {parts:?}: {notes:?}");
}

fn refused_with(folder: &Path, options: SourceOptions, parts: &[&str]) {
    let Err(error) = sources::open(folder, &options) else { panic!("{parts:?} passed") };
    assert!(matches!(error, Error::Data { .. }), "{error}");
    parts.iter().for_each(|part| assert!(error.to_string().contains(part), "no {part:?} in: {error}"));
}

#[test]
fn a_class_is_its_name_in_every_shard() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    shard(&path("train-00000-of-00002.parquet"), 0, &[0, 1, 2], &ABC);
    shard(&path("train-00001-of-00002.parquet"), 3, &[0, 1, 2], &["cat", "ant", "bee"]);
    shard(&path("validation-00000-of-00001.parquet"), 6, &[0, 1], &["bee", "cat"]);
    let found = opened(folder.path());
    assert_eq!(found.classes, ABC);
    assert_eq!(classes_of(&found, &found.train), ["ant", "bee", "cat", "cat", "ant", "bee"]);
    assert_eq!(classes_of(&found, &found.val), ["bee", "cat"]);
    let pictures: Vec<Vec<u8>> = (0..8).map(|number| jpeg(&picture(number))).collect();
    assert!(files_of(&found.train) == pictures[..6] && files_of(&found.val) == pictures[6..]);
    assert!(found.notes.is_empty(), "{:?}", found.notes);

    // Names that the first file does not have.
    shard(&path("validation-00000-of-00001.parquet"), 6, &[0, 1], &["bee", "cow"]);
    refused(
        folder.path(),
        &["validation-00000-of-00001.parquet", "\"cow\"", "3 classes", "train-00000-of-00002.parquet"],
    );
    shard(&path("validation-00000-of-00001.parquet"), 6, &[0, 3], &ABC);
    refused(folder.path(), &["label 3", "names 3 classes"]);
    // A file that names none is believed, and told.
    shard(&path("validation-00000-of-00001.parquet"), 6, &[0, 2], &[]);
    says(&opened(folder.path()).notes, &["1 file that does not name its classes", "validation-00000"]);
}

#[test]
fn labels_may_be_names() {
    let folder = TempDir::new().unwrap();
    let part = |name: &str, first, labels: &[&'static str]| {
        let columns = [("image", images(first, labels.len() as u32)), ("label", texts(labels))];
        table(&folder.path().join(name), &columns, &[], SNAPPY);
    };
    part("train-0.parquet", 0, &["dog", "cat", "dog"]);
    part("train-1.parquet", 3, &["bird", "10"]);
    part("val-0.parquet", 5, &["cat", "dog"]);
    let found = opened(folder.path());
    assert_eq!(found.classes, ["10", "bird", "cat", "dog"]);
    assert_eq!(classes_of(&found, &found.train), ["dog", "cat", "dog", "bird", "10"]);
    assert_eq!(classes_of(&found, &found.val), ["cat", "dog"]);
    part("val-0.parquet", 5, &["cat", "cow"]);
    refused(folder.path(), &["val-0.parquet", "\"cow\""]);
    // Numbers in one file, names in another.
    shard(&folder.path().join("val-0.parquet"), 5, &[0, 1], &[]);
    refused(folder.path(), &["val-0.parquet", "numbers", "train-0.parquet"]);
}

#[test]
fn columns_are_clear_or_named() {
    let folder = TempDir::new().unwrap();
    let write = |columns: &[(&str, Values)]| table(&folder.path().join("train.parquet"), columns, &[], SNAPPY);
    let named = |image: Option<&str>, label: Option<&str>| SourceOptions {
        image_column: image.map(str::to_owned),
        label_column: label.map(str::to_owned),
        ..SourceOptions::holding_out(0.25)
    };
    let numbers = || integers(&[0, 1, 0, 1]);
    write(&[("mask", images(0, 4)), ("photo", images(4, 4)), ("label", numbers())]);
    refused(folder.path(), &["train.parquet", "mask, photo", "--image-column"]);
    let found = sources::open(folder.path(), &named(Some("photo"), None)).unwrap();
    let read = [files_of(&found.train), files_of(&found.val)].concat();
    assert_eq!(read.len(), 4);
    assert!((4..8).all(|number| read.contains(&jpeg(&picture(number)))));
    says(&found.notes, &["photo.bytes and label are read, not mask"]);
    refused_with(folder.path(), named(Some("image"), None), &["--image-column image", "mask, photo"]);
    refused_with(folder.path(), named(Some("photo"), Some("class")), &["--label-column class", "label"]);

    write(&[("labels", integers(&[0, 0, 1, 1])), ("image", images(0, 4)), ("label", numbers())]);
    refused(folder.path(), &["labels, label", "--label-column"]);
    let found = sources::open(folder.path(), &named(None, Some("labels"))).unwrap();
    let classes = |part: &Part| (0..part.len()).map(|index| part.item(index).class).collect::<Vec<_>>();
    assert_eq!((classes(&found.train), classes(&found.val)), (vec![0, 1], vec![0, 1]));

    // As WebDataset's tars are converted; and only paths, with masks beside them.
    let bytes = Values::Bytes((0..4).map(|number| Some(jpeg(&picture(number)))).collect());
    write(&[("__key__", texts(&["a", "b", "c", "d"])), ("jpg", bytes), ("cls", numbers())]);
    assert_eq!(opened(folder.path()).train.len() + opened(folder.path()).val.len(), 4);
    write(&[("image", texts(&["a", "b", "c", "d"])), ("mask", images(0, 4)), ("label", numbers())]);
    refused(folder.path(), &["mask", "--image-column"]);

    // The columns of the first file are those of all.
    write(&[("image", images(0, 4)), ("label", numbers())]);
    let other = folder.path().join("val.parquet");
    table(&other, &[("image", images(0, 4)), ("cls", numbers())], &[], SNAPPY);
    refused(folder.path(), &["val.parquet", "no column label", "train.parquet"]);
}

#[test]
fn labels_that_pandas_made_fractions_are_numbers() {
    let folder = TempDir::new().unwrap();
    let write = |labels: Values| {
        table(&folder.path().join("train.parquet"), &[("image", images(0, 6)), ("label", labels)], &ABC, SNAPPY);
    };
    write(Values::Fractions(vec![0., 1., f64::NAN, 2., -1., 1.]));
    let found = sources::open(folder.path(), &SourceOptions::holding_out(0.)).unwrap();
    assert_eq!(classes_of(&found, &found.train), ["ant", "bee", "cat", "bee"]);
    says(&found.notes, &["2 rows without a label"]);
    write(Values::Fractions(vec![0., 1., 0.5, 2., 0., 1.]));
    refused(folder.path(), &["train.parquet", "label 0.5", "whole number", "--label-column"]);
    write(Values::Truths(vec![true; 6]));
    refused(folder.path(), &["no column holds labels, expected whole numbers or names", "label (lists or others)"]);
}

#[test]
fn shards_that_are_missing_are_told() {
    let missing = |names: &[&str], parts: &[&str]| {
        let folder = set(names);
        let found = opened(folder.path());
        says(&found.notes, parts);
        assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
        assert_eq!(found.train.len() + found.val.len(), 6 * names.len());
    };
    missing(
        &["train-00000-of-00010.parquet", "train-00003-of-00010.parquet"],
        &["8 shards missing", "train-00001-of-"],
    );
    missing(&["data/train-00001-of-00002-0a1b2c3d.parquet"], &["1 shard missing", "train-00000-of-00002"]);
    missing(&["default/train/0000.parquet", "default/train/0002.parquet"], &["1 shard missing", "train/0001.parquet"]);
    missing(
        &["default/partial-train/0000.parquet", "default/validation/0000.parquet"],
        &["partial-train", "first 5 GB"],
    );
}

#[test]
fn shards_are_not_taken_twice() {
    let twice = |names: &[&str], parts: &[&str]| refused(set(names).path(), parts);
    let name = "train-00000-of-00001.parquet";
    twice(&[name, &format!("data/{name}")], &["another file", "of the same name"]);
    twice(&["a/train.parquet", "b/train.parquet"], &["several sets", "/a, ", "/b"]);
    twice(&["snapshots/01/data/train.parquet", "snapshots/02/data/train.parquet"], &["snapshots/01", "snapshots/02"]);
    twice(&[name, "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], &["two editions"]);
    for other in ["data/train-00000-of-00001.parquet", "data/train.parquet", "train-00000-of-00001-0a1b.parquet"] {
        let folder = set(&[name]);
        let bytes = fs::read(folder.path().join(name)).unwrap();
        write(folder.path().join(other), &bytes);
        let found = opened(folder.path());
        assert_eq!(found.train.len() + found.val.len(), 6, "{other}");
        says(&found.notes, &["read once", other]);
    }
    // Two parts of one set.
    let found = opened(set(&["train.parquet", "data/validation.parquet"]).path());
    assert_eq!((found.train.len(), found.val.len()), (6, 6));
}

#[test]
fn repositories_and_caches_are_read() {
    let read = |names: &[&str]| {
        let folder = set(names);
        let found = opened(folder.path());
        assert_eq!((found.train.len(), found.val.len()), (6, 6), "{names:?}");
        assert_eq!(found.form, "Hugging Face parquet shards");
        assert!(found.notes.is_empty(), "{:?}", found.notes);
    };
    read(&["default/train/0000.parquet", "default/validation/0000.parquet"]);
    read(&["train/0000.parquet", "test/0000.parquet"]);
    read(&["plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"]);
    read(&["data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"]);
    read(&["hub/snapshots/0a/cifar10/train/0000.parquet", "hub/snapshots/0a/cifar10/test/0000.parquet"]);

    // The cache has files by their checksums, and links to them.
    let folder = set(&["blobs/0123.parquet", "blobs/4567.parquet"]);
    let blobs: Vec<PathBuf> = ["0123", "4567"].map(|name| folder.path().join("blobs").join(name)).into();
    blobs.iter().for_each(|path| fs::rename(path.with_extension("parquet"), path).unwrap());
    let data = folder.path().join("snapshots/ab/data");
    fs::create_dir_all(&data).unwrap();
    for (blob, part) in ["0123", "4567"].iter().zip(["train", "validation"]) {
        let link = data.join(format!("{part}-00000-of-00001.parquet"));
        std::os::unix::fs::symlink(Path::new("../../../blobs").join(blob), link).unwrap();
    }
    let found = opened(folder.path());
    assert_eq!((found.train.len(), found.val.len()), (6, 6));

    refused(set(&["default/validation/0000.parquet"]).path(), &["0000.parquet", "no shards to train on"]);
    let found = opened(set(&["train.parquet", "extra.parquet"]).path());
    says(&found.notes, &["1 file called neither train, validation nor test trained on", "extra.parquet"]);
    // One file.
    let folder = set(&["photos.parquet"]);
    assert_eq!(opened(&folder.path().join("photos.parquet")).classes, ABC);
}

#[test]
fn rows_without_a_label_are_left_out_and_told() {
    let folder = TempDir::new().unwrap();
    let part = |name: &str, first, labels: &[Option<i64>]| {
        let columns = [("image", images(first, labels.len() as u32)), ("label", Values::Integers(labels.to_vec()))];
        table(&folder.path().join(name), &columns, &ABC, SNAPPY);
    };
    let all = [Some(0), Some(1), Some(0), Some(1)];
    part("train.parquet", 0, &all);
    part("test.parquet", 4, &[Some(-1); 3]);
    // A test set without labels: some of the training set is held out.
    let found = opened(folder.path());
    assert_eq!((found.train.len(), found.val.len()), (2, 2));
    says(&found.notes, &["3 rows without a label", "test.parquet"]);

    part("test.parquet", 4, &[None, Some(1), Some(-1), Some(0)]);
    let found = opened(folder.path());
    assert_eq!((found.train.len(), classes_of(&found, &found.val)), (4, vec!["bee".to_owned(), "ant".to_owned()]));
    assert!(files_of(&found.val) == [jpeg(&picture(5)), jpeg(&picture(7))]);
    says(&found.notes, &["2 rows without a label", "test.parquet"]);

    part("train.parquet", 0, &[None; 4]);
    refused(folder.path(), &["train.parquet", "4 rows have no label ", "-1 or null"]);
    part("train.parquet", 0, &[Some(0), Some(-2)]);
    refused(folder.path(), &["train.parquet row 1", "label -2 is no class"]);
}

#[test]
fn what_is_no_table_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("train-00000-of-00001.parquet");
    let named = |bytes: &[u8], parts: &[&str]| {
        write(path.clone(), bytes);
        refused(folder.path(), &[&["train-00000-of-00001.parquet"], parts].concat());
    };
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n";
    named(pointer, &["Git LFS pointer", "git lfs pull"]);
    named(b"<!DOCTYPE html>\n<html><head><title>401</title>", &["HTML page", "not a parquet file"]);
    named(b"\x1f\x8b\x08\0", &["gzip"]);
    named(b"PAR1 and the rest is missing", &["damaged or truncated parquet"]);
    named(b"", &["damaged or truncated parquet"]);
}

#[test]
fn usual_compressions_are_read() {
    use parquet::basic::Compression::*;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("train.parquet");
    for compression in [UNCOMPRESSED, SNAPPY, GZIP(Default::default()), ZSTD(Default::default()), LZ4, LZ4_RAW] {
        table(&path, &[("image", images(0, 4)), ("label", integers(&[0, 1, 0, 1]))], &ABC, compression);
        let found = opened(folder.path());
        let read = [files_of(&found.train), files_of(&found.val)].concat();
        assert!((0..4).all(|number| read.contains(&jpeg(&picture(number)))), "{compression}");
    }
}

#[test]
fn forms_that_are_not_read_are_named() {
    let named = |files: &[(&str, &[u8])], parts: &[&str]| {
        let folder = TempDir::new().unwrap();
        files.iter().for_each(|(name, bytes)| write(folder.path().join(name), bytes));
        refused(folder.path(), parts);
    };
    let state = b"{\"_data_files\": []}";
    let arrow = |part: &str| [format!("{part}state.json"), format!("{part}dataset_info.json")];
    let saved: Vec<String> = ["train/", "test/"].into_iter().flat_map(arrow).collect();
    let mut files: Vec<(&str, &[u8])> = saved.iter().map(|name| (name.as_str(), &state[..])).collect();
    named(&files[..2], &["/train", "Arrow's form", "load_from_disk", "train.parquet"]);
    files.push(("dataset_dict.json", b"{\"splits\": [\"train\", \"test\"]}"));
    named(&files, &["Arrow's form", "load_from_disk", "items()"]);
    let stream = b"\xff\xff\xff\xff\x78\x01\0\0\x10\0\0\0";
    named(&[("cifar10-train.arrow", stream)], &["cifar10-train.arrow", "Dataset.from_file", "train.parquet"]);
    let mat = [&b"MATLAB 5.0 MAT-file"[..], &[b' '; 200]].concat();
    named(
        &[("train_32x32.mat", &mat), ("test_32x32.mat", &mat)],
        &["test_32x32.mat", "MATLAB", "folder for each class"],
    );
    named(&[("kmnist-train-imgs.npz", b"PK\x03\x04\0\0")], &["kmnist-train-imgs.npz", "folder"]);
    named(&[("x.npy", b"\x93NUMPY\x01\0")], &["x.npy", "NumPy"]);
    named(&[("train.tfrecord-00000-of-00010", b"?")], &["train.tfrecord-00000-of-00010", "TFRecord"]);
    named(&[("5.1.0/train.tfrecord", b"?"), ("5.1.0/features.json", b"{\"a\": 1}")], &["train.tfrecord", "TFRecord"]);
    named(&[("train.beton", b"?")], &["train.beton", "FFCV"]);
    let lmdb = [&[0; 16][..], b"\xde\xc0\xef\xbe"].concat();
    named(&[("train_lmdb/data.mdb", &lmdb)], &["train_lmdb/data.mdb", "LMDB"]);
    named(&[("train_data_batch_1", b"\x80\x03}q\x00(X")], &["train_data_batch_1", "pickle"]);
    named(&[("all.h5", b"\x89HDF\r\n\x1a\n")], &["all.h5", "HDF5"]);
}

#[test]
fn files_that_hold_the_same_are_read_once() {
    let folder = TempDir::new().unwrap();
    for (name, first, labels) in [
        ("train-a.parquet", 0, [0, 1, 2]),
        ("train-b.parquet", 0, [0, 1, 2]),
        // The same pictures with other labels, and other pictures with the same labels.
        ("train-c.parquet", 0, [0, 2, 1]),
        ("train-d.parquet", 1, [0, 1, 2]),
        ("val.parquet", 4, [0, 1, 2]),
    ] {
        shard(&folder.path().join(name), first, &labels, &ABC);
    }
    let found = opened(folder.path());
    assert_eq!((found.train.len(), found.val.len()), (9, 3));
    says(&found.notes, &["1 file that holds the same as another, read once", "train-b.parquet and", "train-a.parquet"]);
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
}
