//! Any bytes as one file of a data set; the first byte says which.
#![no_main]

use alexnet_split::data::sources;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 7] = [
    "train-0.tar",
    "train-0.parquet",
    "train-images-idx3-ubyte",
    "data_batch_1.bin",
    "ILSVRC2012_img_train.tar",
    "ILSVRC2012_devkit_t12.tar.gz",
    "dataset.json",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let folder = tempfile::TempDir::new().expect("a folder");
    let name = NAMES[usize::from(which) % NAMES.len()];
    for other in ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"].iter().filter(|_| name.starts_with("ILSVRC")) {
        std::fs::write(folder.path().join(other), b"").expect("a file");
    }
    std::fs::write(folder.path().join(name), bytes).expect("a file");
    if let Ok(found) = sources::open(folder.path(), 0.5) {
        for part in [&found.train, &found.val] {
            part.read(0..part.len(), &|_, picture| drop(picture));
        }
    }
});
