//! Scaling, one for preparing, training and looking: bilinear over the area that a pixel covers, so images that are made
//! smaller are smoothed. Within 1 of Pillow's and torchvision's.

use std::cell::RefCell;
use std::fmt::Display;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{F32, U8, U8x3};
use fast_image_resize::{FilterType, ImageView, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

/// Rows of red, green, blue, scaled so that the shorter of the sides (columns, rows) is `size`, and the centre of the
/// longer one: size x size x 3.
pub fn rgb(pixels: &[u8], sides: [usize; 2], size: usize) -> Result<Vec<u8>, String> {
    bytes::<U8x3>(pixels, sides, size, 3)
}

/// One channel, scaled as [`rgb`]: size x size.
pub fn plane(pixels: &[u8], sides: [usize; 2], size: usize) -> Result<Vec<u8>, String> {
    bytes::<U8>(pixels, sides, size, 1)
}

/// One channel of a mean image, scaled as [`rgb`]: size x size.
pub fn floats(values: &[f32], sides: [usize; 2], size: usize) -> Result<Vec<f32>, String> {
    let pixels: Vec<F32> = values.iter().map(|&value| F32::new(value)).collect();
    let whole = TypedImageRef::new(sides[0] as u32, sides[1] as u32, &pixels).map_err(failed)?;
    let mut square = TypedImage::new(size as u32, size as u32);
    scale(&whole, &mut square)?;
    Ok(square.pixels().iter().map(|pixel| pixel.0).collect())
}

/// Of one kind of pixels, named by who calls: otherwise the crate's code for all kinds is compiled, 3 MB of it.
fn bytes<P: PixelTrait>(pixels: &[u8], sides: [usize; 2], size: usize, channels: usize) -> Result<Vec<u8>, String> {
    let mut square = vec![0; channels * size * size];
    let whole = TypedImageRef::<P>::from_buffer(sides[0] as u32, sides[1] as u32, pixels).map_err(failed)?;
    let mut to = TypedImage::from_buffer(size as u32, size as u32, &mut square).map_err(failed)?;
    scale(&whole, &mut to)?;
    Ok(square)
}

fn scale<P: PixelTrait>(whole: &TypedImageRef<P>, to: &mut TypedImage<P>) -> Result<(), String> {
    thread_local! {
        static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
    }
    let sides = [whole.width(), whole.height()].map(f64::from);
    let shorter = sides[0].min(sides[1]);
    if shorter == 0. {
        return Err(failed("it has no pixels"));
    }
    let [left, top] = sides.map(|side| (side - shorter) / 2.);
    let options =
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).crop(left, top, shorter, shorter);
    RESIZER.with_borrow_mut(|resizer| resizer.resize_typed(whole, to, &options)).map_err(failed)
}

fn failed(error: impl Display) -> String {
    format!("cannot be scaled: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture([width, height]: [usize; 2], channel: usize) -> Vec<u8> {
        let value = |x: usize, y: usize| (x * x * 7 + y * 31 * channel + x * y * 11) as u8;
        (0..height).flat_map(|y| (0..width).map(move |x| value(x, y))).collect()
    }

    fn close(found: &[u8], expected: &[u8]) {
        assert_eq!(found.len(), expected.len());
        let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(*expected) <= 1);
        assert!(near, "{found:?}, expected {expected:?}");
    }

    // Pillow 13, of `picture` as an image, with w, h its sides and s the shorter one:
    //   l, t = (w - s) / 2, (h - s) / 2
    //   np.asarray(image.resize((size, size), Image.BILINEAR, box=(l, t, l + s, t + s)))
    const SMALLER: [u8; 9] = [66, 112, 135, 151, 122, 101, 124, 133, 127];
    const TO_A_THIRD: [u8; 25] = [
        140, 135, 119, 113, 125, 133, 137, 104, 115, 105, 132, 133, 121, 141, 127, 138, 137, 137, 149, 130, 138, 129,
        109, 139, 134,
    ];
    const TO_AN_EIGHTH: [u8; 16] = [121, 123, 131, 126, 132, 127, 126, 122, 127, 134, 139, 135, 133, 134, 122, 134];
    const LARGER: [u8; 36] = [
        0, 4, 11, 24, 46, 63, 16, 22, 33, 50, 75, 95, 36, 46, 61, 85, 114, 138, 57, 71, 91, 118, 153, 180, 78, 95, 120,
        153, 192, 223, 93, 113, 142, 178, 221, 255,
    ];
    const CUT: [u8; 25] = [
        4, 18, 46, 88, 144, 40, 65, 104, 157, 96, 77, 113, 163, 99, 49, 113, 160, 221, 168, 129, 150, 208, 152, 110, 82,
    ];
    const COLOURS: [u8; 27] = [
        66, 93, 89, 112, 138, 146, 135, 162, 127, 151, 134, 118, 122, 120, 120, 101, 156, 148, 124, 114, 124, 133, 141,
        114, 127, 147, 130,
    ];

    #[test]
    fn squares_are_pillows() {
        let cases: [([usize; 2], usize, &[u8]); 5] = [
            ([9, 7], 3, &SMALLER),
            ([13, 21], 5, &TO_A_THIRD),
            ([30, 31], 4, &TO_AN_EIGHTH),
            ([4, 4], 6, &LARGER),
            ([6, 5], 5, &CUT),
        ];
        for (sides, size, expected) in cases {
            let picture = picture(sides, 1);
            close(&plane(&picture, sides, size).unwrap(), expected);
            let wide: Vec<f32> = picture.iter().map(|&value| f32::from(value)).collect();
            let floats: Vec<u8> = floats(&wide, sides, size).unwrap().iter().map(|value| value.round() as u8).collect();
            close(&floats, expected);
        }
        let planes = [1, 2, 3].map(|channel| picture([9, 7], channel));
        let colours: Vec<u8> = (0..63).flat_map(|at| planes.each_ref().map(|plane| plane[at])).collect();
        close(&rgb(&colours, [9, 7], 3).unwrap(), &COLOURS);
    }

    #[test]
    fn nothing_cannot_be_scaled() {
        assert!(plane(&[1, 2], [2, 2], 1).is_err_and(|problem| problem.contains("cannot be scaled")));
        assert!(rgb(&[], [0, 0], 4).is_err());
    }
}
