//! Max pooling, where the paper's overlapping windows have their own method, and average pooling.

pub mod overlapping;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use self::overlapping::Band;
use super::simd::dispatch;
use crate::shapes::PoolShape;

/// See `Backend::max_pool_forward`.
pub fn max_pool_forward(s: &PoolShape, n: usize, x: &[f32], y: &mut [f32]) {
    let (ins, outs) = (s.c * s.h * s.w, s.c * s.p * s.q);
    let images = y[..n * outs].par_chunks_exact_mut(outs).zip(x.par_chunks_exact(ins));
    if overlapping::applies(s) {
        let band = &Band::whole(s);
        return images.for_each(|(y, x)| dispatch(Forward { band, x, y }));
    }
    images.for_each_init(
        || vec![0.; s.w],
        |row_max, (y, x)| {
            for (y, x) in y.chunks_exact_mut(s.p * s.q).zip(x.chunks_exact(s.h * s.w)) {
                for (row, y) in y.chunks_exact_mut(s.q).enumerate() {
                    // First down the columns, then along the remaining row.
                    let mut lines = x[row * s.stride * s.w..].chunks_exact(s.w).take(s.window);
                    row_max.copy_from_slice(lines.next().unwrap_or_default());
                    for line in lines {
                        row_max.iter_mut().zip(line).for_each(|(max, v)| *max = larger(*max, *v));
                    }
                    for (y, patch) in y.iter_mut().zip(row_max.windows(s.window).step_by(s.stride)) {
                        *y = patch[1..].iter().fold(patch[0], |max, v| larger(max, *v));
                    }
                }
            }
        },
    );
}

/// See `Backend::max_pool_backward`.
pub fn max_pool_backward(s: &PoolShape, n: usize, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (ins, outs) = (s.c * s.h * s.w, s.c * s.p * s.q);
    let outputs = y.par_chunks_exact(outs).zip(dy.par_chunks_exact(outs));
    let images = dx[..n * ins].par_chunks_exact_mut(ins).zip(x.par_chunks_exact(ins)).zip(outputs);
    if overlapping::applies(s) && !s.all_ties {
        let band = &Band::whole(s);
        return images.for_each_init(Vec::new, |shared_rows, ((dx, x), (y, dy))| {
            dispatch(Backward { band, x, y, dy, dx, shared_rows });
        });
    }
    images.for_each(|((dx, x), (y, dy))| {
        dx.fill(0.);
        let maps = dx.chunks_exact_mut(s.h * s.w).zip(x.chunks_exact(s.h * s.w));
        for ((dx, x), (y, dy)) in maps.zip(y.chunks_exact(s.p * s.q).zip(dy.chunks_exact(s.p * s.q))) {
            for (at, (max, gradient)) in y.iter().zip(dy).enumerate() {
                let corner = (at / s.q * s.w + at % s.q) * s.stride;
                let places = (0..s.window).flat_map(|r| (0..s.window).map(move |c| corner + r * s.w + c));
                // A window of NaNs has no maximum; its gradient goes nowhere.
                let maxima = places.filter(|&place| x[place] == *max);
                maxima.take(if s.all_ties { usize::MAX } else { 1 }).for_each(|place| dx[place] += gradient);
            }
        }
    });
}

/// See `Backend::avg_pool_forward`.
pub fn avg_pool_forward(s: &PoolShape, n: usize, x: &[f32], y: &mut [f32]) {
    let (ins, outs, area) = (s.h * s.w, s.p * s.q, (s.window * s.window) as f32);
    let maps = y[..n * s.c * outs].par_chunks_exact_mut(outs).zip(x.par_chunks_exact(ins));
    maps.for_each(|(y, x)| {
        for (row, y) in y.chunks_exact_mut(s.q).enumerate() {
            y.fill(0.);
            for line in x[row * s.stride * s.w..].chunks_exact(s.w).take(s.window) {
                let patches = line.windows(s.window).step_by(s.stride);
                y.iter_mut().zip(patches).for_each(|(y, patch)| *y += patch.iter().sum::<f32>());
            }
            y.iter_mut().for_each(|y| *y /= area);
        }
    });
}

/// See `Backend::avg_pool_backward`.
pub fn avg_pool_backward(s: &PoolShape, n: usize, dy: &[f32], dx: &mut [f32]) {
    let (ins, outs, area) = (s.h * s.w, s.p * s.q, (s.window * s.window) as f32);
    let maps = dx[..n * s.c * ins].par_chunks_exact_mut(ins).zip(dy.par_chunks_exact(outs));
    maps.for_each(|(dx, dy)| {
        dx.fill(0.);
        for (row, dy) in dy.chunks_exact(s.q).enumerate() {
            for line in dx[row * s.stride * s.w..].chunks_exact_mut(s.w).take(s.window) {
                for (at, dy) in dy.iter().enumerate() {
                    line[at * s.stride..][..s.window].iter_mut().for_each(|dx| *dx += dy / area);
                }
            }
        }
    });
}

/// See [`overlapping::forward`].
struct Forward<'a> {
    band: &'a Band,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        overlapping::forward(simd, self.band, self.x, self.y);
    }
}

/// See [`overlapping::backward`].
struct Backward<'a> {
    band: &'a Band,
    x: &'a [f32],
    y: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    shared_rows: &'a mut Vec<f32>,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        overlapping::backward(simd, self.band, self.x, self.y, self.dy, self.dx, self.shared_rows);
    }
}

/// The maximum, NaN if either is: a diverged run must be seen in the loss.
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}
