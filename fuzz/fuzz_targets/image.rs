//! Any bytes as an image file: an image or an error.
#![no_main]

use alexnet_split::data::decode::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = decode(bytes) {
        let _ = image.square(16);
    }
});
