//! Data sets as they are found: with other files beside them, with names in other ways, with holes.

use std::fs;
use std::path::Path;

use crate::support::forms::*;
use crate::support::prepared::{Quiet, options, prepared, refused};
use alexnet_split::data::DataSet;
use alexnet_split::data::prepare::{Options, prepare};
use alexnet_split::data::sources::{self, SourceOptions};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::data_type::{Int32Type, Int64Type};
use tempfile::TempDir;

/// By name.
type Files = Vec<(String, Vec<u8>)>;

/// Images of one class each, 0 and 1, as files of a tar.
fn samples() -> Files {
    let of = |class: u32| {
        [(format!("{class}.jpg"), jpeg(&picture(class))), (format!("{class}.cls"), class.to_string().into_bytes())]
    };
    (0..2).flat_map(of).collect()
}

fn tars(files: &[(&str, Files)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    files.iter().for_each(|(name, files)| write(folder.path().join(name), &tar_of(files)));
    folder
}

fn with(more: &[(&str, Vec<u8>)]) -> TempDir {
    let more = more.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone()));
    tars(&[("train-0.tar", [samples(), more.collect()].concat()), ("val-0.tar", samples())])
}

#[test]
fn a_refused_image_may_be_skipped_or_mended_and_the_preparation_goes_on() {
    let folder = TempDir::new().unwrap();
    let (source, out) = (folder.path().join("set"), folder.path().join("out"));
    as_folders(&source);
    let bad = source.join("val/n01000002/bad.jpg");
    write(bad.clone(), b"no image");
    let found = sources::open(&source, &SourceOptions::holding_out(0.)).unwrap();
    let error = prepare(&source, &found, &out, &options(), &Quiet).unwrap_err().to_string();
    assert!(error.contains("bad.jpg") && error.contains("--bad-images skip leaves such images out"), "{error}");
    let skip = Options { max_bad_images: 1, ..options() };
    // By another spelling of its name it is the same set.
    let spelled = folder.path().join("set/../set");
    let found = sources::open(&spelled, &SourceOptions::holding_out(0.)).unwrap();
    let description = prepare(&spelled, &found, &out, &skip, &Quiet).unwrap();
    assert_eq!(description.bad_images.len(), 1);

    // What was removed or came anew makes it another set.
    let other = folder.path().join("other");
    let found = sources::open(&source, &SourceOptions::holding_out(0.)).unwrap();
    prepare(&source, &found, &other, &options(), &Quiet).unwrap_err();
    fs::rename(&bad, source.join("val/n01000002/good.jpg")).unwrap();
    let found = sources::open(&source, &SourceOptions::holding_out(0.)).unwrap();
    let error = prepare(&source, &found, &other, &skip, &Quiet).unwrap_err().to_string();
    assert!(error.contains("were others"), "{error}");
}

#[test]
fn what_is_held_out_is_told_by_words() {
    let with_names = |train: &str, val: &str| {
        let folder = tars(&[(train, samples()), (val, samples())]);
        let found = sources::open(folder.path(), &SourceOptions::holding_out(0.)).unwrap();
        assert_eq!((found.train.len(), found.val.len()), (2, 2), "{train} {val}");
        assert!(found.train.item(0).name.contains(train), "{}", found.train.item(0).name);
    };
    with_names("latest-train-0.tar", "carnival-val-0.tar");
    with_names("carnival_train_00.tar", "carnival_Validation_00.tar");
    with_names("shard-000.tar", "test-000.tar");
}

#[test]
fn a_test_set_beside_a_validation_set_is_left_alone() {
    // As ILSVRC/imagenet-1k, whose test set has no labels.
    let folder = TempDir::new().unwrap();
    as_parquet(folder.path());
    let rows = [(Some(jpeg(&picture(1))), -1)];
    parquet_file::<Int64Type>(&folder.path().join("data/test-00000-of-00001.parquet"), &rows);
    let found = sources::open(folder.path(), &SourceOptions::holding_out(0.)).unwrap();
    assert_eq!((found.train.len(), found.val.len()), (9, 6));
    assert!(found.notes[0].contains("1 shard of a test set not read"), "{:?}", found.notes);
}

#[test]
fn rows_without_an_image_are_bad_images() {
    let folder = TempDir::new().unwrap();
    let rows: Vec<_> = (0..8).map(|i| ((i != 5).then(|| jpeg(&picture(i))), i64::from(i % 2))).collect();
    // Labels of 32 bits are labels too.
    parquet_file::<Int32Type>(&folder.path().join("train.parquet"), &rows);
    parquet_file::<Int32Type>(&folder.path().join("val.parquet"), &rows[..4]);
    refused(folder.path(), &["train.parquet row 1 of group 1", "has no image"]);
    let (data, description) = prepared(folder.path(), &Options { max_bad_images: 1, ..options() }).unwrap();
    assert_eq!((data.train.len(), description.bad_images.len()), (7, 1));
}

#[test]
fn masks_and_other_files_in_tars_are_no_images() {
    let black = encoded(&RgbImage::new(30, 30).into(), ImageFormat::Png);
    let plain = prepared(with(&[]).path(), &options()).unwrap().0;
    let masked = prepared(with(&[("0.seg.png", black.clone()), ("1.seg.png", black.clone())]).path(), &options());
    let masked = masked.unwrap().0;
    for index in 0..2 {
        assert!(masked.train.image(index).unwrap() == plain.train.image(index).unwrap());
    }
    // What macOS adds, and a text.
    let more = with(&[("._0.jpg", b"x".to_vec()), ("README.md", b"x".to_vec()), ("LICENSE", b"x".to_vec())]);
    let found = sources::open(more.path(), &SourceOptions::holding_out(0.)).unwrap();
    assert_eq!(found.train.len(), 2);
    assert!(found.notes[0].contains("3 files that are no samples"), "{:?}", found.notes);

    refused(with(&[("0.png", black.clone())]).path(), &["train-0.tar", "two images of one sample", "0.jpg", "0.png"]);
    let white = encoded(&RgbImage::from_pixel(9, 9, Rgb([255; 3])).into(), ImageFormat::Png);
    let only = with(&[("2.rgb.png", white.clone()), ("2.cls", b"1".to_vec())]);
    assert_eq!(prepared(only.path(), &options()).unwrap().0.train.len(), 3);
    let several = with(&[("2.a.png", white.clone()), ("2.b.png", white), ("2.cls", b"1".to_vec())]);
    refused(several.path(), &["which of 2.a.png, 2.b.png is the image", "2.jpg"]);
    refused(with(&[("2.cls", b"1".to_vec())]).path(), &["/2", "a sample without an image"]);
}

#[test]
fn a_tar_that_was_cut_between_two_files_is_truncated() {
    let folder = with(&[]);
    let path = folder.path().join("train-0.tar");
    let whole = fs::read(&path).unwrap();
    // The last file is a class of one byte, and its header.
    fs::write(&path, &whole[..whole.len() - 2 * 512 - 2 * 512]).unwrap();
    refused(folder.path(), &["train-0.tar", "it has no end after 3 files"]);
}

#[test]
fn folders_of_parts_are_told_from_classes() {
    let set = |change: &dyn Fn(&Path)| {
        let folder = TempDir::new().unwrap();
        as_folders(folder.path());
        change(folder.path());
        folder
    };
    let rename = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |folder: &Path| fs::rename(folder.join(&from), folder.join(&to)).unwrap()
    };
    let capital = set(&|folder| {
        rename("train", "Train")(folder);
        rename("val", "Validation")(folder);
    });
    let found = sources::open(capital.path(), &SourceOptions::holding_out(0.)).unwrap();
    assert_eq!((found.train.len(), found.val.len(), found.classes.len()), (9, 6, 3));

    refused(set(&rename("train", "elsewhere")).path(), &["val", "no folder train beside it"]);

    let vehicles = TempDir::new().unwrap();
    for name in ["bus/1.jpg", "bus/2.jpg", "train/1.jpg", "train/2.jpg"] {
        write(vehicles.path().join(name), &jpeg(&picture(1)));
    }
    assert_eq!(sources::open(vehicles.path(), &SourceOptions::holding_out(0.1)).unwrap().classes, ["bus", "train"]);

    let beside = set(&|folder| write(folder.join("backup.tar"), b"whatever"));
    assert_eq!(sources::open(beside.path(), &SourceOptions::holding_out(0.)).unwrap().train.len(), 9);
}

#[test]
fn what_has_no_end_is_no_image() {
    let folder = TempDir::new().unwrap();
    as_folders(folder.path());
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("train/n01000001/zero.jpg")).unwrap();
    refused(folder.path(), &["zero.jpg", "not an image file"]);
}

#[test]
fn a_set_is_not_prepared_into_itself_and_a_begun_one_is_not_trained_on() {
    let folder = TempDir::new().unwrap();
    as_folders(folder.path());
    write(folder.path().join("val/n01000002/bad.jpg"), b"no image");
    let found = sources::open(folder.path(), &SourceOptions::holding_out(0.)).unwrap();
    let within = folder.path().join("prepared");
    let error = prepare(folder.path(), &found, &within, &options(), &Quiet).unwrap_err().to_string();
    assert!(error.contains("lies within the source"), "{error}");
    assert!(!within.exists());
    let beside = TempDir::new().unwrap();
    // Nor by two processes at once.
    let other = std::fs::File::open(beside.path()).unwrap();
    other.lock().unwrap();
    let error = prepare(folder.path(), &found, beside.path(), &options(), &Quiet).unwrap_err().to_string();
    assert!(error.contains("is being prepared by another process"), "{error}");
    other.unlock().unwrap();
    prepare(folder.path(), &found, beside.path(), &options(), &Quiet).unwrap_err();
    let error = DataSet::load(beside.path()).unwrap_err().to_string();
    assert!(error.contains("not finished"), "{error}");
    // Files are not looked for below their folder: there it does no harm.
    let tars = with(&[]);
    let found = sources::open(tars.path(), &SourceOptions::holding_out(0.)).unwrap();
    prepare(tars.path(), &found, &tars.path().join("prepared"), &options(), &Quiet).unwrap();
}
