//! From the bytes of an image file to a square of pixels, the same for training and for `predict`.
//!
//! Policy: the format is told by the bytes, not by the name. Colours are RGB of 8 bits: grey is repeated, 16 bits lose
//! the lower 8, CMYK is converted, transparency is dropped (as Pillow's `convert("RGB")`). The first picture of an
//! animation counts. Photographs are turned upright as their EXIF says. What is truncated or damaged is an error, not a
//! picture that is half grey.

use std::cell::RefCell;
use std::io::Cursor;

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::caught::caught;
use super::jpeg::{self, Headers, Square};

/// Pixels of the largest image that is decoded: a tenth of a gigapixel, 300 MB.
pub const MAX_PIXELS: u64 = 100_000_000;

/// Longest side; formats claim up to four billion.
const MAX_SIDE: u32 = 65_535;

/// An image: rows of red, green, blue.
pub struct Rgb {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Height x width x 3.
    pub pixels: Vec<u8>,
    /// How it must be turned to stand upright.
    orientation: Orientation,
}

/// Decodes a file of any format that is known (JPEG, PNG, WebP, BMP, GIF).
///
/// Fails with the reason, also where the decoder panics: that takes down this image alone.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let rgb = decode_whole(bytes)?;
    // Decoders fill up what is missing where there is an end.
    if caught(|| Headers::parse(bytes).is_some_and(|headers| jpeg::is_cut_off(&headers))).unwrap_or_default() {
        return Err("truncated JPEG: its data ends before the image does".into());
    }
    Ok(rgb)
}

/// As [`decode`], of a file that is known to be whole.
pub fn decode_whole(bytes: &[u8]) -> Result<Rgb, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let decoded =
        caught(|| if bytes.starts_with(&[0xff, 0xd8, 0xff]) { decode_jpeg(bytes) } else { decode_other(bytes) });
    decoded.unwrap_or_else(|| Err("the decoder failed on it (a defect of the decoder); the image is damaged".into()))
}

/// A photograph as most are, a baseline JPEG that lies upright, as the square that [`Rgb::square`] gives of it.
///
/// None for everything else, and where it is damaged: [`decode`] knows what to do, or what is wrong.
pub fn jpeg_square(bytes: &[u8], size: usize) -> Option<Square> {
    let headers = Headers::parse(bytes)?;
    let plain = orientation(headers.exif) == Orientation::NoTransforms;
    check_size(headers.width as u64, headers.height as u64).ok().filter(|()| plain)?;
    Square::decode(&headers, size)
}

fn check_size(width: u64, height: u64) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("{width}x{height} pixels: there is nothing to see"));
    }
    match width * height {
        pixels if pixels > MAX_PIXELS => {
            Err(format!("{width}x{height} pixels; at most {} million are decoded", MAX_PIXELS / 1_000_000))
        }
        _ => Ok(()),
    }
}

fn decode_jpeg(bytes: &[u8]) -> Result<Rgb, String> {
    // Strict, so that missing data is an error. Junk between headers is met in good photographs and does no harm, so they
    // are tried again, if they have an end.
    let decoded = decode_jpeg_as(bytes, true);
    let has_end = bytes[bytes.len().saturating_sub(64)..].windows(2).any(|two| two == [0xff, 0xd9]);
    match decoded {
        Err(problem) if problem.contains("Extra bytes between headers") && has_end => decode_jpeg_as(bytes, false),
        decoded => decoded,
    }
}

fn decode_jpeg_as(bytes: &[u8], strict: bool) -> Result<Rgb, String> {
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(MAX_SIDE as usize)
        .set_max_height(MAX_SIDE as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let problem = |error: zune_jpeg::errors::DecodeErrors| format!("damaged JPEG: {error:?}");
    decoder.decode_headers().map_err(problem)?;
    let info = decoder.info().ok_or("damaged JPEG: it has no size")?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    check_size(width as u64, height as u64)?;
    let orientation = orientation(decoder.exif().map(Vec::as_slice));
    let pixels = decoder.decode().map_err(problem)?;
    if pixels.len() != width * height * 3 {
        return Err(format!("damaged JPEG: {} bytes for {width}x{height} pixels", pixels.len()));
    }
    Ok(Rgb { width, height, pixels, orientation })
}

/// How an image must be turned, by its EXIF.
fn orientation(exif: Option<&[u8]>) -> Orientation {
    // WebP files have what only JPEG should have before it.
    let exif = exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

fn decode_other(bytes: &[u8]) -> Result<Rgb, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| format!("cannot be read: {error}"))?;
    let Some(format) = reader.format() else {
        return Err("not an image of a known format (JPEG, PNG, WebP, BMP, GIF)".into());
    };
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    limits.max_alloc = Some(8 * MAX_PIXELS); // 16-bit RGBA
    reader.limits(limits);
    let problem = |error: image::ImageError| format!("damaged {format:?}: {error}");
    let mut decoder = reader.into_decoder().map_err(problem)?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let orientation = orientation(decoder.exif_metadata().ok().flatten().as_deref());
    let image = DynamicImage::from_decoder(decoder).map_err(problem)?;
    let pixels = match image {
        // The upper 8 bits, where the library would round.
        DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_) => image.into_rgb16().iter().map(|v| (v >> 8) as u8).collect(),
        image => image.into_rgb8().into_raw(),
    };
    Ok(Rgb { width: width as usize, height: height as usize, pixels, orientation })
}

impl Rgb {
    /// An image of bytes: C H W, grey or colours.
    pub fn from_planes(channels: usize, height: usize, width: usize, planes: &[u8]) -> Rgb {
        let area = height * width;
        let pixels = (0..area).flat_map(|at| [0, 1, 2].map(|c| planes[c.min(channels - 1) * area + at])).collect();
        Rgb { width, height, pixels, orientation: Orientation::NoTransforms }
    }

    /// Scaled so that the shorter side is `size`, and the centre of the longer one (paper, section 2): size x size x 3,
    /// upright. Scaling is bilinear over the area that a pixel covers, as Pillow's and torchvision's.
    pub fn square(self, size: usize) -> Result<Vec<u8>, String> {
        thread_local! {
            static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
        }
        let Rgb { width, height, pixels, orientation } = self;
        let pixels = if (width, height) == (size, size) {
            pixels
        } else {
            let shorter = width.min(height);
            let [left, top] = [width, height].map(|side| (side - shorter) as f64 / 2.);
            let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).crop(
                left,
                top,
                shorter as f64,
                shorter as f64,
            );
            let whole = Image::from_vec_u8(width as u32, height as u32, pixels, PixelType::U8x3);
            let whole = whole.map_err(|error| format!("cannot be scaled: {error}"))?;
            let mut square = Image::new(size as u32, size as u32, PixelType::U8x3);
            RESIZER
                .with_borrow_mut(|resizer| resizer.resize(&whole, &mut square, &options))
                .map_err(|error| format!("cannot be scaled: {error}"))?;
            square.into_vec()
        };
        Ok(upright(pixels, size, orientation))
    }
}

/// Turns a square.
fn upright(pixels: Vec<u8>, size: usize, orientation: Orientation) -> Vec<u8> {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let last = size - 1;
    // Where the pixel at (row, column) of the upright image lies.
    let from = |row: usize, column: usize| match orientation {
        Orientation::NoTransforms => (row, column),
        Orientation::FlipHorizontal => (row, last - column),
        Orientation::Rotate180 => (last - row, last - column),
        Orientation::FlipVertical => (last - row, column),
        Orientation::Rotate90FlipH => (column, row),
        Orientation::Rotate90 => (last - column, row),
        Orientation::Rotate270FlipH => (last - column, last - row),
        Orientation::Rotate270 => (column, last - row),
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
