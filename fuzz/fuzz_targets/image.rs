//! Any bytes as an image file: an image or an error.
#![no_main]

use alexnet_split::data::decode::{decode, jpeg_square};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = decode(bytes) {
        let _ = image.square(16);
    }
    if let Some(square) = jpeg_square(bytes, 16) {
        let _ = (square.rgb(), square.encode(90));
    }
});
