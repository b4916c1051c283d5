//! From bytes to the network's input, one image at a time.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::dispatch;
use crate::shapes::{AugmentShape, Window};

/// One channel of a window.
struct Channel<'a> {
    s: &'a AugmentShape,
    /// From the window's corner on.
    pixels: &'a [u8],
    /// From the window's corner on.
    mean: &'a [f32],
    window: &'a Window,
    shift: f32,
    y: &'a mut [f32],
}

impl WithSimd for Channel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Channel { s, pixels, mean, window, shift, y } = self;
        let scale = s.scale * window.scale;
        let rows = y.chunks_exact_mut(s.size).zip(pixels.chunks(s.side)).zip(mean.chunks(s.resize));
        for ((y, pixels), mean) in rows {
            let value = |v: u8, mean: f32| (f32::from(v) + shift - mean) * scale;
            match s.centred_mean && window.mirrored {
                // The image alone is mirrored.
                true => {
                    let mirrored = y.iter_mut().zip(pixels[..s.size].iter().rev()).zip(mean);
                    mirrored.for_each(|((y, v), mean)| *y = value(*v, *mean));
                }
                false => y.iter_mut().zip(pixels).zip(mean).for_each(|((y, v), mean)| *y = value(*v, *mean)),
            }
            if window.mirrored && !s.centred_mean {
                y.reverse();
            }
        }
    }
}

/// See `Backend::augment`.
pub fn augment(s: &AugmentShape, pixels: &[u8], windows: &[Window], mean: &[f32], y: &mut [f32]) {
    let (area, plane) = (s.size * s.size, s.side * s.side);
    let images = y.par_chunks_exact_mut(s.channels * area).zip(pixels.par_chunks_exact(s.c * plane));
    images.zip(windows).for_each(|((y, pixels), window)| {
        let corner = |side: usize| window.row as usize * side + window.col as usize;
        let first = if s.is_cropped() { 0 } else { corner(s.side) };
        let of_mean = if s.centred_mean { (s.resize - s.size) / 2 * (s.resize + 1) } else { corner(s.resize) };
        let channels = y.chunks_exact_mut(area).zip(pixels.chunks_exact(plane));
        for (((y, pixels), mean), shift) in channels.zip(mean.chunks_exact(s.resize * s.resize)).zip(window.shift) {
            dispatch(Channel { s, pixels: &pixels[first..], mean: &mean[of_mean..], window, shift, y });
        }
        for channel in s.c..s.channels {
            y.copy_within(..area, channel * area);
        }
    });
}
