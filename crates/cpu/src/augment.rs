//! From bytes to the network's input, one image at a time.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::dispatch;
use crate::shapes::{AugmentShape, Window};

/// Two neighbours along an axis and the weight of the second.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: f32,
}

/// Position `at` of `resize` along an axis of `size` pixels whose image's shorter side is `shorter`: pixel centres are
/// aligned, and a longer side is cut equally at both ends.
fn tap(at: usize, size: usize, shorter: usize, resize: usize) -> Tap {
    let cut = (size - shorter) as f32 / 2.;
    let place = (at as f32 + 0.5) * shorter as f32 / resize as f32 - 0.5 + cut;
    let inside = place.clamp(0., size as f32 - 1.);
    let first = inside as usize;
    Tap { first, second: (first + 1).min(size - 1), weight: inside - first as f32 }
}

/// Bilinear scaling of an `h` x `w` plane so that its shorter side is `resize`; `out` gets the `size` x `size` window at
/// `corner`, row by row.
pub fn scale_window<T>(
    plane: &[T],
    [h, w]: [usize; 2],
    resize: usize,
    corner: [usize; 2],
    size: usize,
    value: impl Fn(&T) -> f32,
    out: &mut [f32],
) {
    let taps = |from: usize, along: usize| (from..from + size).map(move |at| tap(at, along, h.min(w), resize));
    let cols: Vec<Tap> = taps(corner[1], w).collect();
    let mut line = vec![0.; w];
    for (row, out) in taps(corner[0], h).zip(out.chunks_exact_mut(size)) {
        let (above, below) = (&plane[row.first * w..][..w], &plane[row.second * w..][..w]);
        for ((v, a), b) in line.iter_mut().zip(above).zip(below) {
            *v = value(a) + row.weight * (value(b) - value(a));
        }
        for (v, col) in out.iter_mut().zip(&cols) {
            *v = line[col.first] + col.weight * (line[col.second] - line[col.first]);
        }
    }
}

/// One channel of a window that needs no scaling.
struct Cropped<'a> {
    s: &'a AugmentShape,
    pixels: &'a [u8],
    /// From the window's corner on.
    mean: &'a [f32],
    window: &'a Window,
    shift: f32,
    y: &'a mut [f32],
}

impl WithSimd for Cropped<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Cropped { s, pixels, mean, window, shift, y } = self;
        let rows = y.chunks_exact_mut(s.size).zip(pixels.chunks_exact(s.size)).zip(mean.chunks(s.resize));
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
    let (area, plane) = (s.size * s.size, s.h * s.w);
    let images = y.par_chunks_exact_mut(s.channels * area).zip(pixels.par_chunks_exact(s.c * plane));
    images.zip(windows).for_each(|((y, pixels), window)| {
        let (row, col) = (window.row as usize, window.col as usize);
        let channels = y.chunks_exact_mut(area).zip(pixels.chunks_exact(plane));
        for (((y, pixels), mean), shift) in channels.zip(mean.chunks_exact(s.resize * s.resize)).zip(window.shift) {
            if s.cropped {
                dispatch(Cropped { s, pixels, mean: &mean[row * s.resize + col..], window, shift, y });
                continue;
            }
            scale_window(pixels, [s.h, s.w], s.resize, [row, col], s.size, |v| f32::from(*v), y);
            for (index, y) in y.chunks_exact_mut(s.size).enumerate() {
                let mean = &mean[(row + index) * s.resize + col..][..s.size];
                y.iter_mut().zip(mean).for_each(|(v, mean)| *v = (*v + shift - mean) * s.scale);
                if window.mirrored {
                    y.reverse();
                }
            }
        }
        for channel in s.c..s.channels {
            y.copy_within(..area, channel * area);
        }
    });
}
