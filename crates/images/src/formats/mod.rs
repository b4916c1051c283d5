//! Image files to rows of red, green and blue.
//!
//! Each format has a file, and gives what Pillow's `convert("RGB")` does: grey is repeated, palettes are looked up,
//! transparency is dropped. Of 16 bits the upper eight count. What is cut off or damaged is an error.

mod bmp;
mod exif;
mod gif;
pub mod jpeg;
pub mod png;
mod ppm;
mod tags;
mod tiff;
mod webp;

pub use exif::orientation;

use super::decode::{MAX_PIXELS, Rgb};
use super::signature::{Signature, recognize};

/// The formats that are read, as messages name them.
const READ: &str = "JPEG, PNG, WebP, BMP, GIF or TIFF";

/// Longest side; formats claim up to four billion.
const MAX_SIDE: u64 = 65_535;

/// Memory that a decoder may take: 16-bit RGBA.
const MAX_BYTES: usize = 8 * MAX_PIXELS as usize;

/// Decodes a file, whose format is told by its first bytes.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(bytes),
        [0x89, b'P', b'N', b'G', ..] => png::decode(bytes),
        [b'G', b'I', b'F', b'8', ..] => gif::decode(bytes),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp::decode(bytes),
        [b'B', b'M', ..] => bmp::decode(bytes),
        [b'P', b'5' | b'6', ..] => ppm::decode(bytes),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => tiff::decode(bytes),
        _ => Err(not_an_image(bytes)),
    }
}

/// Says what a file is that is not read.
fn not_an_image(bytes: &[u8]) -> String {
    if bytes.iter().all(|&byte| byte == 0) {
        return format!("all of its {} bytes are zero; copy or download it again", bytes.len());
    }
    match recognize(bytes) {
        Some(Signature { name, advice }) => format!("is {name}, expected an image ({READ}); {advice}"),
        None => format!("not an image of a known format ({READ})"),
    }
}

/// Fails where an image has no pixels, or too many to be decoded.
pub fn check_size(width: u64, height: u64) -> Result<(), String> {
    match (width, height) {
        (0, _) | (_, 0) => Err(format!("{width}x{height} pixels: there is nothing to see")),
        (..=MAX_SIDE, ..=MAX_SIDE) if width * height <= MAX_PIXELS => Ok(()),
        (..=MAX_SIDE, ..=MAX_SIDE) => {
            Err(format!("{width}x{height} pixels; at most {} million are decoded", MAX_PIXELS / 1_000_000))
        }
        _ => Err(format!("{width}x{height} pixels; a side has at most {MAX_SIDE}")),
    }
}

/// Samples of 1 to 4 channels (grey, grey and transparency, RGB, RGB and transparency) to red, green and blue.
fn to_rgb(samples: Vec<u8>, channels: usize) -> Vec<u8> {
    match channels {
        3 => samples,
        4 => samples.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect(),
        _ => samples.chunks_exact(channels).flat_map(|pixel| [pixel[0]; 3]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_named() {
        let problem = |bytes: &[u8]| decode(bytes).err().expect("not an image");
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n";
        assert_eq!(
            problem(pointer),
            "is a Git LFS pointer, expected an image (JPEG, PNG, WebP, BMP, GIF or TIFF); fetch the file itself: `git lfs pull`"
        );
        assert!(problem(b"<!DOCTYPE html><html>").contains("is an HTML page"));
        assert!(problem(&[0; 130]).contains("all of its 130 bytes are zero"));
        assert!(problem(b"a few words").contains("not an image of a known format"));
    }
}
