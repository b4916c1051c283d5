//! JPEG files to small squares of JPEG, without the way over red, green and blue.
//!
//! Nearly all photographs are baseline JPEG of YCbCr, and what is stored is such a one again. So the components are
//! scaled as they are, which is linear like everything that it leaves out but for rounding; and what is cut off is
//! read, so that damage is found anywhere in a file, but not transformed. Everything that is not a plain and undamaged
//! baseline JPEG is None, for a decoder that knows it, or knows what is wrong with it.
//!
//! | file | holds |
//! |---|---|
//! | `headers` | what stands before the pixels |
//! | `huffman`, `bits` | codes, and reading the coefficients that they stand for |
//! | `idct` | coefficients to samples, sixteen blocks at once |
//! | `scan` | the way from a file's bits to rows of samples |
//! | `scale` | samples to a square |
//! | `fdct` | samples to coefficients, sixteen blocks at once |
//! | `emit` | writing coefficients as codes |
//! | `encode` | the way from a square to a file |
//! | `colours` | from and to red, green and blue |
//! | `tables` | of the standard |

mod bits;
mod colours;
mod emit;
mod encode;
mod fdct;
mod headers;
mod huffman;
mod idct;
mod scale;
mod scan;
mod tables;

pub use headers::Headers;

use alexnet_split_cpu::simd::dispatch;
use scale::{Lowered, Narrow, Side};

/// A square image in YCbCr (JFIF 1.02), with colour differences of half the size (4:2:0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Square {
    /// Rows and columns, 1 to 65535.
    size: usize,
    /// Luminance: size x size.
    y: Vec<u8>,
    /// Difference of blue: half of size, rounded up, in both directions.
    cb: Vec<u8>,
    /// Difference of red, likewise.
    cr: Vec<u8>,
}

impl Square {
    /// Decodes a JPEG, scaled so that the shorter side is `size`, and the centre of the longer one (paper, section 2),
    /// as it lies in the file, whatever its EXIF says. Scaling is bilinear over the area that a pixel covers, as
    /// Pillow's and torchvision's.
    ///
    /// None where the data is damaged or unusual: another decoder has to say what is wrong, or to decode it.
    pub fn decode(headers: &Headers, size: usize) -> Option<Square> {
        if !(1..=65_535).contains(&size) {
            return None;
        }
        let kept = headers.width.min(headers.height);
        let sides = [headers.height, headers.width].map(|length| Side { length, kept, size });
        let luminance = headers.components.first()?;
        let sampling = [luminance.down, luminance.across];
        // Of rows and of columns, for luminance and for colour differences.
        let taps = [1, 2].map(|to| [0, 1].map(|axis| sides[axis].taps(if to == 1 { 1 } else { sampling[axis] }, to)));
        let taps: Vec<_> = (0..headers.components.len()).map(|component| &taps[component.min(1)]).collect();
        let parts: Vec<_> = taps.iter().map(|taps| taps.each_ref().map(|taps| taps.range())).collect();
        let mut narrow: Vec<_> = taps.iter().map(|[rows, columns]| Narrow::new(columns, rows.range().len())).collect();
        scan::decode(headers, &parts, &mut narrow).ok()?;
        let mut planes = narrow.into_iter().zip(taps).map(|(rows, [taps, _])| dispatch(Lowered { rows, taps }));
        let y = planes.next()?;
        let half = size.div_ceil(2);
        let grey = || vec![128; half * half];
        let (cb, cr) = (planes.next().unwrap_or_else(grey), planes.next().unwrap_or_else(grey));
        Some(Square { size, y, cb, cr })
    }
}

/// Whether a file's data ends before its image does, though something may have put an end to it again.
pub fn is_cut_off(headers: &Headers) -> bool {
    let nothing: Vec<scan::Part> = headers.components.iter().map(|_| [0..0, 0..0]).collect();
    let mut takers: Vec<Nobody> = headers.components.iter().map(|_| Nobody).collect();
    scan::decode(headers, &nothing, &mut takers) == Err(scan::Fault::CutOff)
}

/// Wants no rows.
struct Nobody;

impl scan::Rows for Nobody {
    fn take(&mut self, _: &[u64]) {}
}

/// Rounds what is between 0 and 255.
#[inline(always)]
fn rounded(value: f32) -> u8 {
    // 2^23: the last bit of the sum is worth 1.
    (value + 8_388_608.).to_bits() as u8
}

/// Rounds to 0 to 255.
#[inline(always)]
fn clamped(value: f32) -> u8 {
    // Not clamp(), which keeps NaN and is slower for it.
    let value = if value < 0. { 0. } else { value };
    rounded(if value > 255. { 255. } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

    /// Rows of red, green, blue: waves, and edges.
    fn picture(width: usize, height: usize) -> Vec<u8> {
        let pixel = |x: usize, y: usize| {
            let wave = |a: f64, b: f64| (127.5 + 100. * (a * x as f64 + b * y as f64).sin()) as u8;
            if x / 20 % 3 == 1 && y / 15 % 2 == 1 {
                [200, 60, (x * 3 % 256) as u8]
            } else {
                [wave(0.05, 0.02), wave(0.01, 0.07), wave(0.03, 0.03)]
            }
        };
        (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect()
    }

    fn file(width: usize, height: usize, sampling: SamplingFactor, restart: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 95);
        encoder.set_sampling_factor(sampling);
        if restart > 0 {
            encoder.set_restart_interval(restart);
        }
        let picture = picture(width, height);
        encoder.encode(&picture, width as u16, height as u16, ColorType::Rgb).expect("a JPEG");
        bytes
    }

    fn decode(bytes: &[u8], size: usize) -> Option<Square> {
        Square::decode(&Headers::parse(bytes)?, size)
    }

    fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
    }

    #[test]
    fn squares_are_what_was_encoded() {
        for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_1_2, SamplingFactor::F_2_2] {
            for restart in [0, 1, 7] {
                for size in [37, 64, 256] {
                    let square = decode(&file(size, size, sampling, restart), size).expect("a square");
                    let original = Square::from_rgb(&picture(size, size), size);
                    assert!(mean_difference(&square.y, &original.y) < 1.5, "{sampling:?} {size}");
                    assert!(mean_difference(&square.cb, &original.cb) < 4., "{sampling:?} {size}");
                    assert!(mean_difference(&square.cr, &original.cr) < 4., "{sampling:?} {size}");
                    let again = decode(&square.encode(95), size).expect("a square");
                    assert!(mean_difference(&square.y, &again.y) < 1.5);
                }
            }
        }
    }

    #[test]
    fn the_centre_is_kept() {
        for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2] {
            let wide = decode(&file(200, 96, sampling, 0), 96).expect("a square");
            let pixels = picture(200, 96);
            let centre: Vec<u8> = pixels.chunks(600).flat_map(|row| row[52 * 3..][..96 * 3].to_vec()).collect();
            assert!(mean_difference(&wide.y, &Square::from_rgb(&centre, 96).y) < 1.5);
            let high = decode(&file(96, 200, sampling, 0), 96).expect("a square");
            let centre = &picture(96, 200)[52 * 96 * 3..][..96 * 96 * 3];
            assert!(mean_difference(&high.y, &Square::from_rgb(centre, 96).y) < 1.5);
        }
    }

    #[test]
    fn any_size_can_be_written() {
        for size in [1, 2, 7, 8, 15, 16, 17, 100, 129, 130, 300] {
            let original = Square::from_rgb(&picture(size, size), size);
            let square = decode(&original.encode(100), size).expect("a square");
            assert!(mean_difference(&square.y, &original.y) < 0.6, "{size}");
            assert!(mean_difference(&square.cb, &original.cb) < 4., "{size}");
        }
    }

    #[test]
    fn damage_gives_none_or_an_image() {
        let mut random = 1u32;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as usize % below
        };
        for (sampling, restart) in [(SamplingFactor::F_1_1, 0), (SamplingFactor::F_2_2, 3), (SamplingFactor::F_2_1, 0)]
        {
            let file = file(70, 50, sampling, restart);
            for length in 0..file.len() {
                assert!(decode(&file[..length], 16).is_none(), "{length}");
            }
            for _ in 0..3000 {
                let mut damaged = file.clone();
                for _ in 0..1 + next(3) {
                    let at = next(damaged.len());
                    damaged[at] ^= 1 << next(8);
                }
                let _ = decode(&damaged, 16);
            }
        }
    }
}
