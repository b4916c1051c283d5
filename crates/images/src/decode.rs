//! From the bytes of an image file to a square of pixels, the same for training and for `predict`.
//!
//! Policy: the format is told by the bytes, not by the name. Colours are RGB of 8 bits: grey is repeated, 16 bits lose
//! the lower 8, CMYK is converted, transparency is dropped (as Pillow's `convert("RGB")`). The first picture of an
//! animation counts. Photographs are turned upright as their EXIF says. What is truncated or damaged is an error, not a
//! picture that is half grey.

use super::caught::caught;
use super::formats::{self, orientation};
use super::scale;

/// Pixels of the largest image that is decoded: a tenth of a gigapixel, 300 MB.
pub const MAX_PIXELS: u64 = 100_000_000;

/// An image: rows of red, green, blue.
pub struct Rgb {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Height x width x 3.
    pub pixels: Vec<u8>,
    /// How it must be turned to stand upright, as EXIF numbers it; 1 is not at all.
    orientation: u8,
}

/// Decodes a file of any format that is known (JPEG, PNG, WebP, BMP, GIF, TIFF).
///
/// Fails with the reason, also where the decoder panics: that takes down this image alone.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    caught(|| formats::decode(bytes))
        .unwrap_or_else(|| Err("the decoder failed on it (a defect of the decoder); the image is damaged".into()))
}

impl Rgb {
    /// Rows of so many columns and rows, and what the camera wrote.
    pub fn new([width, height]: [u32; 2], pixels: Vec<u8>, exif: Option<&[u8]>) -> Rgb {
        Rgb { width: width as usize, height: height as usize, pixels, orientation: orientation(exif) }
    }

    /// An image of bytes: C H W, grey or colours.
    pub fn from_planes(channels: usize, height: usize, width: usize, planes: &[u8]) -> Rgb {
        let area = height * width;
        let pixels = (0..area).flat_map(|at| [0, 1, 2].map(|c| planes[c.min(channels - 1) * area + at])).collect();
        Rgb { width, height, pixels, orientation: 1 }
    }

    /// Scaled so that the shorter side is `size`, and the centre of the longer one (paper, section 2): size x size x 3,
    /// upright.
    pub fn square(self, size: usize) -> Result<Vec<u8>, String> {
        let Rgb { width, height, pixels, orientation } = self;
        let is_scaled = (width, height) == (size, size);
        let pixels = if is_scaled { pixels } else { scale::rgb(&pixels, [width, height], size)? };
        Ok(upright(pixels, size, orientation))
    }
}

/// Turns a square.
fn upright(pixels: Vec<u8>, size: usize, orientation: u8) -> Vec<u8> {
    if orientation == 1 {
        return pixels;
    }
    let last = size - 1;
    // Where the pixel at (row, column) of the upright image lies.
    let from = |row: usize, column: usize| match orientation {
        2 => (row, last - column),
        3 => (last - row, last - column),
        4 => (last - row, column),
        5 => (column, row),
        6 => (last - column, row),
        7 => (last - column, last - row),
        8 => (column, last - row),
        _ => (row, column),
    };
    let places = (0..size).flat_map(|row| (0..size).map(move |column| (row, column)));
    let pixel = |(row, column)| {
        let (row, column) = from(row, column);
        let at = (row * size + column) * 3;
        [pixels[at], pixels[at + 1], pixels[at + 2]]
    };
    places.flat_map(pixel).collect()
}

/// How bright a pixel is (ITU-R 601), as Pillow's `convert("L")` has it.
pub fn luminance(r: u8, g: u8, b: u8) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// Rows of red, green, blue to planes: C H W, for the window of `side` x `side` at (row, column) of a square of `size`.
pub fn planes(square: &[u8], size: usize, [row, column]: [usize; 2], side: usize, out: &mut [u8]) {
    let (red, rest) = out.split_at_mut(side * side);
    let (green, blue) = rest.split_at_mut(side * side);
    let rows = red.chunks_exact_mut(side).zip(green.chunks_exact_mut(side)).zip(blue.chunks_exact_mut(side));
    for (line, ((red, green), blue)) in rows.enumerate() {
        let from = &square[((row + line) * size + column) * 3..][..side * 3];
        for (((pixel, r), g), b) in from.as_chunks::<3>().0.iter().zip(red).zip(green).zip(blue) {
            [*r, *g, *b] = *pixel;
        }
    }
}
