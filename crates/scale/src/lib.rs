//! Scaling for alexnet-split, one for preparing, training and looking: bilinear over the area that a pixel covers, so
//! images that are made smaller are smoothed. Within 1 of Pillow's and torchvision's.
//!
//! A crate of its own, with its tests outside: the code of fast_image_resize is compiled where it is called, for half a
//! minute, and here that happens once.

use std::cell::RefCell;
use std::fmt::Display;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{F32, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

/// Rows of red, green, blue, scaled so that the shorter of the sides (columns, rows) is `size`, and the centre of the
/// longer one: size x size x 3.
pub fn rgb(pixels: &[u8], sides: [usize; 2], size: usize) -> Result<Vec<u8>, String> {
    colours(pixels, sides, [size; 2], &centre(sides)?)
}

/// One channel, scaled as [`rgb`]: size x size.
pub fn plane(pixels: &[u8], sides: [usize; 2], size: usize) -> Result<Vec<u8>, String> {
    grey(pixels, sides, [size; 2], &centre(sides)?)
}

/// One channel of a mean image, scaled as [`rgb`]: size x size.
pub fn floats(values: &[f32], sides: [usize; 2], size: usize) -> Result<Vec<f32>, String> {
    let pixels: Vec<F32> = values.iter().map(|&value| F32::new(value)).collect();
    let whole = TypedImageRef::new(sides[0] as u32, sides[1] as u32, &pixels).map_err(failed)?;
    let mut square = TypedImage::new(size as u32, size as u32);
    scale(&whole, &mut square, &centre(sides)?)?;
    Ok(square.pixels().iter().map(|pixel| pixel.0).collect())
}

/// A whole image of 1 or 3 channels, made smaller (columns, rows): a pixel is the mean of those that it covers.
pub fn means(pixels: &[u8], channels: usize, from: [usize; 2], to: [usize; 2]) -> Result<Vec<u8>, String> {
    let how = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Box));
    if channels == 1 { grey(pixels, from, to, &how) } else { colours(pixels, from, to, &how) }
}

fn colours(pixels: &[u8], from: [usize; 2], to: [usize; 2], how: &ResizeOptions) -> Result<Vec<u8>, String> {
    let mut scaled = vec![0; 3 * to[0] * to[1]];
    let whole = TypedImageRef::<U8x3>::from_buffer(from[0] as u32, from[1] as u32, pixels).map_err(failed)?;
    let mut small = TypedImage::from_buffer(to[0] as u32, to[1] as u32, &mut scaled).map_err(failed)?;
    scale(&whole, &mut small, how)?;
    Ok(scaled)
}

/// As three equal channels: the code for each kind of pixels is half a MB.
fn grey(pixels: &[u8], from: [usize; 2], to: [usize; 2], how: &ResizeOptions) -> Result<Vec<u8>, String> {
    let three: Vec<u8> = pixels.iter().flat_map(|&value| [value; 3]).collect();
    Ok(colours(&three, from, to, how)?.into_iter().step_by(3).collect())
}

/// The largest square in the middle, bilinear.
fn centre(sides: [usize; 2]) -> Result<ResizeOptions, String> {
    let sides = sides.map(|side| side as f64);
    let shorter = sides[0].min(sides[1]);
    if shorter == 0. {
        return Err(failed("it has no pixels"));
    }
    let [left, top] = sides.map(|side| (side - shorter) / 2.);
    let bilinear = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Ok(bilinear.crop(left, top, shorter, shorter))
}

/// Of one kind of pixels, named by who calls: otherwise the crate's code for all kinds is compiled, 3 MB of it.
fn scale<P: PixelTrait>(whole: &TypedImageRef<P>, to: &mut TypedImage<P>, how: &ResizeOptions) -> Result<(), String> {
    thread_local! {
        static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
    }
    RESIZER.with_borrow_mut(|resizer| resizer.resize_typed(whole, to, how)).map_err(failed)
}

fn failed(error: impl Display) -> String {
    format!("cannot be scaled: {error}")
}
