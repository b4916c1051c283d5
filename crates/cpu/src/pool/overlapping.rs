//! The paper's pooling: windows of 3x3, 2 apart, so that neighbours share a row or a column. Vectors run along the
//! windows of a row. A window's first and third tap are at even columns, its second at an odd one: columns of both kinds
//! are taken apart as they are read, and joined as they are written.

#![allow(clippy::needless_range_loop)] // plain loops in what must be compiled for wide instructions

use pulp::Simd;

use crate::panels::scratch_slice;
use crate::shapes::PoolShape;
use crate::simd::{join_pairs, read, read_part, split_pairs, store, store_part};

/// Side of a window.
const WINDOW: usize = 3;

/// Whether the functions of this module can do it.
pub fn applies(s: &PoolShape) -> bool {
    (s.window, s.stride) == (WINDOW, 2)
}

/// The taps of one row of as many windows as a vector has lanes, from the window that begins at column `at`.
#[inline(always)]
fn taps<S: Simd>(simd: S, row: &[f32], at: usize) -> [S::f32s; WINDOW] {
    let two = |at: usize| {
        let row = &row[at.min(row.len())..];
        [read_part(simd, row), read_part(simd, &row[S::F32_LANES.min(row.len())..])]
    };
    let [left, middle] = split_pairs(simd, two(at));
    let [right, _] = split_pairs(simd, two(at + 2));
    [left, middle, right]
}

/// Rows of an image's maps. `shape` is the band's: its P rows of windows, and the H rows that hold what they read.
#[derive(Clone, Copy)]
pub struct Band {
    /// The band's own.
    pub shape: PoolShape,
    /// Numbers from a map of maxima, and of their gradients, to the next one.
    pub outputs: usize,
    /// Whether no rows of windows come before it.
    pub first: bool,
    /// Whether none come after it.
    pub last: bool,
}

impl Band {
    /// A whole image.
    pub fn whole(shape: &PoolShape) -> Self {
        Band { shape: *shape, outputs: shape.p * shape.q, first: true, last: true }
    }
}

/// All maps of a band of one image.
#[inline(always)]
pub fn forward<S: Simd>(simd: S, band: &Band, x: &[f32], y: &mut [f32]) {
    let PoolShape { h, w, p, q, .. } = band.shape;
    for map in 0..band.shape.c {
        for row in 0..p {
            let x = &x[map * h * w + 2 * row * w..][..2 * w + 2 * q + 1];
            let y = &mut y[map * band.outputs + row * q..][..q];
            for at in (0..q).step_by(S::F32_LANES) {
                let mut max = taps(simd, &x[..2 * q + 1], 2 * at);
                for r in 1..WINDOW {
                    let below = taps(simd, &x[r * w..][..2 * q + 1], 2 * at);
                    for tap in 0..WINDOW {
                        max[tap] = larger(simd, max[tap], below[tap]);
                    }
                }
                let max = larger(simd, larger(simd, max[0], max[1]), max[2]);
                store_part(simd, &mut y[at..], max);
            }
        }
    }
}

/// The maximum, NaN if either is: a diverged run must be seen in the loss.
#[inline(always)]
fn larger<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
    let b_is_larger = simd.or_m32s(simd.less_than_f32s(a, b), simd.not_m32s(simd.equal_f32s(b, b)));
    simd.select_f32s(b_is_larger, b, a)
}

/// All maps of a band of one image. For each row of windows, tap by tap: the first tap that equals the maximum takes the
/// window's gradient and leaves nothing for the others. Which one that is cannot be foreseen, so branches would cost more
/// than looking at all nine. A row that two rows of windows share is written by the second of them; the last row of a
/// band that another one follows waits for that one in `shared_rows`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn backward<S: Simd>(
    simd: S,
    band: &Band,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    shared_rows: &mut Vec<f32>,
) {
    let PoolShape { c, h, w, p, q, .. } = band.shape;
    let zero = simd.splat_f32s(0.);
    // The last window's right column is one more.
    let vectors = (q + 1).div_ceil(S::F32_LANES);
    let shared_row = 2 * vectors * S::F32_LANES;
    let shared_rows = scratch_slice(shared_rows, c * shared_row);
    if band.first {
        shared_rows.fill(0.);
    }
    for (map, shared_row) in shared_rows.chunks_exact_mut(shared_row).enumerate() {
        let dx = &mut dx[map * h * w..][..h * w];
        for row in 0..p {
            let x = &x[map * h * w + 2 * row * w..][..2 * w + 2 * q + 1];
            let outputs = map * band.outputs + row * q;
            let (y, dy) = (&y[outputs..][..q], &dy[outputs..][..q]);
            let dx = &mut dx[2 * row * w..][..2 * w + 2 * q + 1];
            // What the windows before have given to their right column.
            let mut right_before = [zero; WINDOW];
            for vector in 0..vectors {
                let at = vector * S::F32_LANES;
                let (max, mut left) = (read_part(simd, &y[at.min(q)..]), read_part(simd, &dy[at.min(q)..]));
                for r in 0..WINDOW {
                    let taps = taps(simd, &x[r * w..][..2 * q + 1], 2 * at);
                    let mut taken = [zero; WINDOW];
                    for tap in 0..WINDOW {
                        taken[tap] = take(simd, taps[tap], max, &mut left);
                    }
                    let shifted = shift(simd, right_before[r], taken[2]);
                    right_before[r] = taken[2];
                    let (mut even, mut odd) = (simd.add_f32s(taken[0], shifted), taken[1]);
                    let shared = &mut shared_row[2 * at..][..2 * S::F32_LANES];
                    if r == 0 {
                        even = simd.add_f32s(even, read(simd, shared));
                        odd = simd.add_f32s(odd, read(simd, &shared[S::F32_LANES..]));
                    }
                    if r == 2 && !(band.last && row + 1 == p) {
                        store(simd, shared, even);
                        store(simd, &mut shared[S::F32_LANES..], odd);
                        continue;
                    }
                    let dx = &mut dx[r * w..][..2 * q + 1];
                    for (half, value) in join_pairs(simd, [even, odd]).into_iter().enumerate() {
                        let at = (2 * at + half * S::F32_LANES).min(dx.len());
                        store_part(simd, &mut dx[at..], value);
                    }
                }
            }
        }
        clear_unread(&band.shape, dx);
    }
}

/// A tap's share of its window's gradient: all of it for the first maximum, after which none is left.
#[inline(always)]
fn take<S: Simd>(simd: S, tap: S::f32s, max: S::f32s, left: &mut S::f32s) -> S::f32s {
    let (found, zero) = (simd.equal_f32s(tap, max), simd.splat_f32s(0.));
    let taken = simd.select_f32s(found, *left, zero);
    *left = simd.select_f32s(found, zero, *left);
    taken
}

/// Nothing flows back to inputs of a map that no window reads.
fn clear_unread(&PoolShape { w, p, q, .. }: &PoolShape, dx: &mut [f32]) {
    for row in dx.chunks_exact_mut(w).take(2 * p + 1) {
        row[2 * q + 1..].fill(0.);
    }
    dx[(2 * p + 1) * w..].fill(0.);
}

/// The lanes of `value` one place to the right, after the last lane of `before`.
#[inline(always)]
fn shift<S: Simd>(simd: S, before: S::f32s, value: S::f32s) -> S::f32s {
    let [before, value] = [simd.rotate_right_f32s(before, 1), simd.rotate_right_f32s(value, 1)];
    simd.select_f32s(simd.mask_between_m32s(0, 1).mask(), before, value)
}
