//! Max pooling, one channel's map at a time.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::{dispatch, read, store};
use crate::backend::PoolShape;

/// See [`crate::backend::Backend::max_pool_forward`].
pub fn max_pool_forward(shape: &PoolShape, n: usize, x: &[f32], y: &mut [f32]) {
    let PoolShape { c, h, w, window, stride, p, q } = *shape;
    y[..n * c * p * q].par_chunks_exact_mut(c * p * q).zip(x.par_chunks_exact(c * h * w)).for_each_init(
        || vec![0.; w],
        |row_max, (y, x)| {
            dispatch(|| {
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
    images.zip(outputs).for_each_init(Lines::default, |lines, ((dx, x), (y, dy))| {
        dx.fill(0.);
        let maps = dx.chunks_exact_mut(h * w).zip(x.chunks_exact(h * w));
        for ((dx, x), (y, dy)) in maps.zip(y.chunks_exact(p * q).zip(dy.chunks_exact(p * q))) {
            if (window, stride) == (3, 2) {
                dispatch(Scatter { shape, x, y, dy, dx, lines });
                continue;
            }
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

/// One row of a map and of its gradient, even and odd columns apart.
#[derive(Default)]
struct Line {
    even: Vec<f32>,
    odd: Vec<f32>,
    even_gradient: Vec<f32>,
    odd_gradient: Vec<f32>,
}

/// The rows that one row of windows covers, the windows' maxima, and what is left of their gradients. All are filled up
/// to whole vectors, with windows that no tap equals and that have nothing to give.
#[derive(Default)]
struct Lines {
    rows: [Line; 3],
    max: Vec<f32>,
    left: Vec<f32>,
}

/// What is filled up to: the widest vector.
const WHOLE: usize = 16;

/// The same for the paper's 3x3 windows that overlap. All windows of a row at once, tap by tap: the first tap that
/// equals the maximum takes the window's gradient and leaves nothing for the others. Which one that is cannot be
/// foreseen, so branches would cost more than looking at all nine.
struct Scatter<'a> {
    shape: &'a PoolShape,
    x: &'a [f32],
    y: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    lines: &'a mut Lines,
}

impl WithSimd for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Scatter { shape, x, y, dy, dx, lines } = self;
        let PoolShape { w, p, q, .. } = *shape;
        let (Lines { rows, max, left }, whole) = (lines, q.next_multiple_of(WHOLE));
        max.clear();
        max.resize(whole, f32::NAN);
        left.clear();
        left.resize(whole, 0.);
        let fetch = |line: &mut Line, row: usize| {
            let x = &x[row * w..][..2 * q + 1];
            for memory in [&mut line.even, &mut line.odd, &mut line.even_gradient, &mut line.odd_gradient] {
                memory.resize(whole + 1, 0.);
            }
            for ((even, odd), x) in line.even.iter_mut().zip(&mut line.odd).zip(x.as_chunks::<2>().0) {
                (*even, *odd) = (x[0], x[1]);
            }
            line.even[q] = x[2 * q];
            line.even_gradient.fill(0.);
            line.odd_gradient.fill(0.);
        };
        let mut give = |line: &Line, row: usize| {
            let dx = &mut dx[row * w..][..2 * q + 1];
            for ((even, odd), dx) in line.even_gradient.iter().zip(&line.odd_gradient).zip(dx.as_chunks_mut::<2>().0) {
                *dx = [*even, *odd];
            }
            dx[2 * q] = line.even_gradient[q];
        };
        fetch(&mut rows[0], 0);
        for row in 0..p {
            fetch(&mut rows[1], 2 * row + 1);
            fetch(&mut rows[2], 2 * row + 2);
            max[..q].copy_from_slice(&y[row * q..][..q]);
            left[..q].copy_from_slice(&dy[row * q..][..q]);
            for line in rows.iter_mut() {
                take(simd, &line.even, max, left, &mut line.even_gradient);
                take(simd, &line.odd, max, left, &mut line.odd_gradient);
                take(simd, &line.even[1..], max, left, &mut line.even_gradient[1..]);
            }
            give(&rows[0], 2 * row);
            give(&rows[1], 2 * row + 1);
            rows.swap(0, 2);
        }
        give(&rows[0], 2 * p);
    }
}

/// Moves what is left of each window's gradient to the tap where the tap has the maximum.
#[inline(always)]
fn take<S: Simd>(simd: S, taps: &[f32], max: &[f32], left: &mut [f32], gradients: &mut [f32]) {
    let zero = simd.splat_f32s(0.);
    for at in (0..max.len()).step_by(S::F32_LANES) {
        let found = simd.equal_f32s(read(simd, &taps[at..]), read(simd, &max[at..]));
        let there = read(simd, &left[at..]);
        let gradient = simd.add_f32s(read(simd, &gradients[at..]), simd.select_f32s(found, there, zero));
        store(simd, &mut gradients[at..], gradient);
        store(simd, &mut left[at..], simd.select_f32s(found, zero, there));
    }
}

/// The maximum, NaN if either is: a diverged run must be seen in the loss.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}
