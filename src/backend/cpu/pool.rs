//! Max pooling, one channel's map at a time.

use pulp::Arch;
use rayon::prelude::*;

use crate::backend::PoolShape;

/// See [`crate::backend::Backend::max_pool_forward`].
pub fn max_pool_forward(shape: &PoolShape, n: usize, x: &[f32], y: &mut [f32]) {
    let PoolShape { c, h, w, window, stride, p, q } = *shape;
    y[..n * c * p * q].par_chunks_exact_mut(c * p * q).zip(x.par_chunks_exact(c * h * w)).for_each_init(
        || vec![0.; w],
        |row_max, (y, x)| {
            Arch::new().dispatch(|| {
                for (y, x) in y.chunks_exact_mut(p * q).zip(x.chunks_exact(h * w)) {
                    for (row, y) in y.chunks_exact_mut(q).enumerate() {
                        // First down the columns, where vectors fit, then along the one row that is left.
                        row_max.copy_from_slice(&x[row * stride * w..][..w]);
                        for line in x[row * stride * w..].chunks_exact(w).take(window).skip(1) {
                            row_max.iter_mut().zip(line).for_each(|(max, v)| *max = larger(*max, *v));
                        }
                        for (y, patch) in y.iter_mut().zip(row_max.windows(window).step_by(stride)) {
                            *y = patch[1..].iter().fold(patch[0], |max, v| larger(max, *v));
                        }
                    }
                }
            })
        },
    );
}

/// See [`crate::backend::Backend::max_pool_backward`].
pub fn max_pool_backward(shape: &PoolShape, n: usize, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    let PoolShape { c, h, w, window, stride, p, q } = *shape;
    let outputs = y.par_chunks_exact(c * p * q).zip(dy.par_chunks_exact(c * p * q));
    let images = dx[..n * c * h * w].par_chunks_exact_mut(c * h * w).zip(x.par_chunks_exact(c * h * w));
    images.zip(outputs).for_each(|((dx, x), (y, dy))| {
        dx.fill(0.);
        let maps = dx.chunks_exact_mut(h * w).zip(x.chunks_exact(h * w));
        for ((dx, x), (y, dy)) in maps.zip(y.chunks_exact(p * q).zip(dy.chunks_exact(p * q))) {
            for (at, (max, gradient)) in y.iter().zip(dy).enumerate() {
                let corner = (at / q * w + at % q) * stride;
                let mut places = (0..window).flat_map(|r| (0..window).map(move |s| corner + r * w + s));
                // A window of NaNs has no maximum; its gradient goes nowhere.
                if let Some(place) = places.find(|&place| x[place] == *max) {
                    dx[place] += gradient;
                }
            }
        }
    });
}

/// The maximum, NaN if either is: a diverged run must be seen in the loss.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}
