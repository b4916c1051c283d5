//! What the fuzzers do with their bytes, and `tests/data/hostile.rs` with those that they have stored.

use alexnet_split::data::decode::decode;
use alexnet_split::data::signature;
use alexnet_split::data::sources::{self, SourceOptions};
use alexnet_split::disk::tensors::{TensorFile, max_bytes};
use alexnet_split::run::checkpoint;
use tempfile::TempDir;

/// Any bytes as an image file: an image or an error.
pub fn image(bytes: &[u8]) {
    let _ = signature::recognize(bytes);
    match decode(bytes).and_then(|image| image.square(16)) {
        Ok(square) => assert_eq!(square.len(), 16 * 16 * 3),
        Err(problem) => assert!(!problem.contains("a defect of the decoder"), "{problem}"),
    }
}

/// The files of a set, all with the same bytes.
const SET_FILES: [&[&str]; 22] = [
    &["train-0.tar"],
    &["train-0.parquet"],
    &["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
    &["data_batch_1.bin"],
    &["ILSVRC2012_img_train.tar"],
    &["ILSVRC2012_devkit_t12.tar.gz"],
    &["dataset.json"],
    &["n01440764.tar"],
    &["ILSVRC2012_devkit_t12.tar"],
    &["train", "test", "meta"],
    &["emnist-train-images-idx3-ubyte", "emnist-train-labels-idx2-int", "emnist-mapping.txt"],
    // Beside images in one folder.
    &["images/metadata.csv", "images/labels.txt"],
    &["images/metadata.jsonl"],
    // Beside images in folders of classes.
    &["meta/train.txt", "meta/test.txt"],
    &["images.txt", "train_test_split.txt", "words.txt"],
    &["images/labels.csv", "images/val.txt"],
    &["images/classes.txt", "images/class_indices.json", "images/words.txt"],
    &["train.bin", "test.bin", "fine_label_names.txt"],
    &["train/labels.csv", "val/labels.csv", "labels.csv"],
    &["val/val_annotations.txt", "words.txt"],
    &["train-0.tar.gz", "classes.txt"],
    &["train-0.tar", "classnames.txt"],
];

/// Images, of which nothing but the names is read, for the files of that number that tell about images.
fn images_beside(which: usize) -> &'static [&'static str] {
    match which {
        11 | 12 => &["images/0.jpg", "images/1.jpg", "images/2.jpg"],
        13..=16 => &["images/a/0.jpg", "images/a/1.jpg", "images/b/0.jpg", "images/b/1.jpg"],
        18 => &["train/0.jpg", "train/1.jpg", "val/0.jpg", "val/1.jpg"],
        19 => &["train/n01440764/images/0.jpg", "train/n01443537/images/1.jpg", "val/images/0.jpg"],
        _ => &[],
    }
}

/// Any bytes as a file of a data set; the first byte says which.
pub fn set(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let folder = TempDir::new().unwrap();
    // Some of the stored inputs were found when there were seven.
    let names = SET_FILES.get(usize::from(which)).unwrap_or(&SET_FILES[usize::from(which) % 7]);
    let is_official = names[0].starts_with("ILSVRC");
    for other in ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"].iter().filter(|_| is_official) {
        std::fs::write(folder.path().join(other), b"").unwrap();
    }
    let images = images_beside(which.into()).iter().map(|name| (name, &b""[..]));
    for (name, bytes) in names.iter().map(|name| (name, bytes)).chain(images) {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    if let Ok(found) = sources::open(folder.path(), &SourceOptions::holding_out(0.5)) {
        for part in [&found.train, &found.val] {
            part.read(0..part.len(), &|_, picture| drop(picture));
        }
    }
}

/// Any bytes as a stream's file of a checkpoint, or (by the first byte) as its `checkpoint.json`.
pub fn checkpoint(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let folder = TempDir::new().unwrap();
    if which % 2 == 0 {
        std::fs::write(folder.path().join("checkpoint.json"), bytes).unwrap();
        assert!(checkpoint::verify(folder.path()).is_err(), "its streams are missing");
        return;
    }
    let path = folder.path().join("stream0.safetensors");
    std::fs::write(&path, bytes).unwrap();
    if let Ok(file) = TensorFile::open(&path, max_bytes(1 << 20)) {
        let _ = (file.values("conv1.weight.own", None), file.values("conv1.weight.own", Some(&[8, 3, 11, 11])));
    }
}
