//! Any bytes as a stream's file of a checkpoint, or (by the first byte) as its `checkpoint.json`.
#![no_main]

use alexnet_split::disk::tensors::{TensorFile, max_bytes};
use alexnet_split::train::checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let folder = tempfile::TempDir::new().expect("a folder");
    if which % 2 == 0 {
        std::fs::write(folder.path().join("checkpoint.json"), bytes).expect("a file");
        let _ = checkpoint::verify(folder.path());
        return;
    }
    let path = folder.path().join("stream0.safetensors");
    std::fs::write(&path, bytes).expect("a file");
    if let Ok(file) = TensorFile::open(&path, max_bytes(1 << 20)) {
        let _ = (file.values("conv1.weight.own", None), file.values("conv1.weight.own", Some(&[8, 3, 11, 11])));
    }
});
