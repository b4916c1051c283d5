//! Local response normalization within maps. Of the networks here only `source` has it, in one layer: plain loops will do.

use rayon::prelude::*;

use super::lrn::inverse_power;
use crate::shapes::{LrnShape, SpatialLrnShape};

/// See `Backend::spatial_lrn_forward`.
pub fn spatial_lrn_forward(s: &SpatialLrnShape, n: usize, x: &[f32], y: &mut [f32]) {
    let area = s.h * s.w;
    let maps = y[..n * s.norm.c * area].par_chunks_exact_mut(area).zip(x.par_chunks_exact(area));
    maps.for_each(|(y, x)| {
        for ((y, x), scale) in y.iter_mut().zip(x).zip(scales(s, x)) {
            *y = x * inverse_power(scale, s.norm.beta);
        }
    });
}

/// See `Backend::spatial_lrn_backward`.
pub fn spatial_lrn_backward(s: &SpatialLrnShape, n: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (area, factor) = (s.h * s.w, 2. * s.norm.alpha * s.norm.beta);
    let maps = dx[..n * s.norm.c * area].par_chunks_exact_mut(area).zip(x.par_chunks_exact(area));
    maps.zip(dy.par_chunks_exact(area)).for_each(|((dx, x), dy)| {
        // First dy_i / s_i^beta.
        let mut terms = scales(s, x);
        for (((dx, x), dy), term) in dx.iter_mut().zip(x).zip(dy).zip(&mut terms) {
            *dx = dy * inverse_power(*term, s.norm.beta);
            *term = *dx * x / *term;
        }
        for ((dx, x), terms) in dx.iter_mut().zip(x).zip(window_sums(s, &terms)) {
            *dx -= factor * x * terms;
        }
    });
}

/// s_i of every pixel of a map.
fn scales(s: &SpatialLrnShape, x: &[f32]) -> Vec<f32> {
    let LrnShape { k, alpha, .. } = s.norm;
    let squares: Vec<f32> = x.iter().map(|x| x * x).collect();
    let mut sums = window_sums(s, &squares);
    sums.iter_mut().for_each(|sum| *sum = k + alpha * *sum);
    sums
}

/// The sums over the window around each pixel, along the rows and then along the columns.
fn window_sums(s: &SpatialLrnShape, values: &[f32]) -> Vec<f32> {
    let near = |at: usize, size: usize| at.saturating_sub(s.norm.n / 2)..(at + s.norm.n / 2 + 1).min(size);
    let (mut rows, mut sums) = (vec![0.; values.len()], vec![0.; values.len()]);
    for (row, values) in rows.chunks_exact_mut(s.w).zip(values.chunks_exact(s.w)) {
        row.iter_mut().enumerate().for_each(|(at, sum)| *sum = values[near(at, s.w)].iter().sum());
    }
    for (at, sums) in sums.chunks_exact_mut(s.w).enumerate() {
        for row in near(at, s.h) {
            sums.iter_mut().zip(&rows[row * s.w..]).for_each(|(sum, v)| *sum += v);
        }
    }
    sums
}
