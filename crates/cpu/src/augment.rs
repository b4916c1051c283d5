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
        let rows = y.chunks_exact_mut(s.size).zip(pixels.chunks(s.side)).zip(mean.chunks(s.resize));
        for ((y, pixels), mean) in rows {
            for ((y, v), mean) in y.iter_mut().zip(pixels).zip(mean) {
                *y = (f32::from(*v) + shift - mean) * s.scale;
            }
            if window.mirrored {
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
        let channels = y.chunks_exact_mut(area).zip(pixels.chunks_exact(plane));
        for (((y, pixels), mean), shift) in channels.zip(mean.chunks_exact(s.resize * s.resize)).zip(window.shift) {
            dispatch(Channel { s, pixels: &pixels[first..], mean: &mean[corner(s.resize)..], window, shift, y });
        }
        for channel in s.c..s.channels {
            y.copy_within(..area, channel * area);
        }
    });
}
