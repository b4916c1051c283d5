//! The paper's ReLU, normalization and overlapping pooling in one pass over the maps, and backward in another: what
//! lies between them never leaves the caches, and is computed anew in the backward pass.
//!
//! Loop nest: for each image, for each band of rows: ReLU of all maps to memory of the thread, normalization, pooling; or
//! these, then the gradients of pooling, normalization and ReLU. A band has the rows of which three maps (inputs,
//! normalized ones and their gradients) take half of a second cache of 1 MiB. The row that it shares with the next band is
//! normalized in both.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::lrn::{self, Scratch};
use super::panels::scratch_slice;
use super::pool::overlapping::{self, Band};
use super::simd::dispatch;
use crate::shapes::{LrnShape, PoolShape};

/// Numbers of all maps of a band, each of the three kinds.
const BAND: usize = 512 * 1024 / 3 / size_of::<f32>();

/// Whether the functions of this module can do it.
pub fn applies(lrn: &LrnShape, pool: &PoolShape) -> bool {
    // A band has three rows at least.
    lrn::is_fast(&LrnShape { pixels: 3 * pool.w, ..*lrn }) && overlapping::applies(pool) && !pool.all_ties
}

/// Memory of a thread.
struct Memory {
    x: Vec<f32>,
    normalized: Vec<f32>,
    gradients: Vec<f32>,
    shared_rows: Vec<f32>,
    lrn: Scratch,
}

impl Memory {
    fn new(channels: usize) -> Self {
        let [x, normalized, gradients, shared_rows] = Default::default();
        Memory { x, normalized, gradients, shared_rows, lrn: Scratch::new(channels) }
    }
}

/// See `Backend::relu_lrn_max_pool_forward`.
pub fn relu_lrn_max_pool_forward(lrn: &LrnShape, pool: &PoolShape, n: usize, x: &[f32], y: &mut [f32]) {
    let (ins, outs) = (pool.c * pool.h * pool.w, pool.c * pool.p * pool.q);
    let images = y[..n * outs].par_chunks_exact_mut(outs).zip(x.par_chunks_exact(ins));
    images.for_each_init(
        || Memory::new(pool.c),
        |memory, (y, x)| for_bands(pool, |rows, band| dispatch(Forward { lrn, pool, rows, band, x, y, memory })),
    );
}

/// See `Backend::relu_lrn_max_pool_backward`.
pub fn relu_lrn_max_pool_backward(lrn: &LrnShape, pool: &PoolShape, n: usize, x: &mut [f32], y: &[f32], dy: &[f32]) {
    let (ins, outs) = (pool.c * pool.h * pool.w, pool.c * pool.p * pool.q);
    let outputs = y.par_chunks_exact(outs).zip(dy.par_chunks_exact(outs));
    x[..n * ins].par_chunks_exact_mut(ins).zip(outputs).for_each_init(
        || Memory::new(pool.c),
        |memory, (x, (y, dy))| {
            for_bands(pool, |rows, band| dispatch(Backward { lrn, pool, rows, band, x, y, dy, memory }));
        },
    );
}

/// Rows of the image that a band reads, and of windows that it makes: the first ones.
#[derive(Clone, Copy)]
struct Rows {
    first: usize,
    first_window: usize,
}

/// Calls `each` for every band of an image.
fn for_bands(pool: &PoolShape, mut each: impl FnMut(Rows, Band)) {
    let windows = ((BAND / (pool.c * pool.w)).saturating_sub(1) / 2).max(1);
    for first_window in (0..pool.p).step_by(windows) {
        let (p, first) = (windows.min(pool.p - first_window), 2 * first_window);
        let last = first_window + p == pool.p;
        // The last band has the rows that no window reads, too.
        let h = if last { pool.h - first } else { 2 * p + 1 };
        let shape = PoolShape { h, p, ..*pool };
        let rows = Rows { first, first_window };
        each(rows, Band { shape, outputs: pool.p * pool.q, first: first_window == 0, last });
    }
}

/// The ReLU of a band's rows of all maps, and what normalization makes of it.
#[inline(always)]
fn normalize<S: Simd>(
    simd: S,
    lrn: &LrnShape,
    pool: &PoolShape,
    rows: Rows,
    band: &Band,
    x: &[f32],
    memory: &mut Memory,
) {
    let pixels = band.shape.h * pool.w;
    let inputs = scratch_slice(&mut memory.x, pool.c * pixels);
    for (map, to) in inputs.chunks_exact_mut(pixels).enumerate() {
        let from = &x[(map * pool.h + rows.first) * pool.w..][..pixels];
        // NaN passes through: a diverged run must be seen in the loss.
        to.iter_mut().zip(from).for_each(|(to, x)| *to = if *x < 0. { 0. } else { *x });
    }
    let normalized = scratch_slice(&mut memory.normalized, pool.c * pixels);
    lrn::forward(simd, &LrnShape { pixels, ..*lrn }, inputs, normalized);
}

struct Forward<'a> {
    lrn: &'a LrnShape,
    pool: &'a PoolShape,
    rows: Rows,
    band: Band,
    x: &'a [f32],
    y: &'a mut [f32],
    memory: &'a mut Memory,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { lrn, pool, rows, band, x, y, memory } = self;
        normalize(simd, lrn, pool, rows, &band, x, memory);
        let normalized = scratch_slice(&mut memory.normalized, pool.c * band.shape.h * pool.w);
        overlapping::forward(simd, &band, normalized, &mut y[rows.first_window * pool.q..]);
    }
}

struct Backward<'a> {
    lrn: &'a LrnShape,
    pool: &'a PoolShape,
    rows: Rows,
    band: Band,
    /// Becomes the gradient.
    x: &'a mut [f32],
    y: &'a [f32],
    dy: &'a [f32],
    memory: &'a mut Memory,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Backward { lrn, pool, rows, band, x, y, dy, memory } = self;
        normalize(simd, lrn, pool, rows, &band, x, memory);
        let pixels = band.shape.h * pool.w;
        let Memory { x: inputs, normalized, gradients, shared_rows, lrn: scratch } = memory;
        let [inputs, normalized, gradients] =
            [inputs, normalized, gradients].map(|memory| scratch_slice(memory, pool.c * pixels));
        let outputs = rows.first_window * pool.q;
        let (y, dy) = (&y[outputs..], &dy[outputs..]);
        overlapping::backward(simd, &band, normalized, y, dy, gradients, shared_rows);
        // The normalized maps' memory takes the gradients. Those of the row that waits for the next band are of no use.
        let dx = normalized;
        lrn::backward(simd, &LrnShape { pixels, ..*lrn }, inputs, gradients, dx, scratch);
        let done = if band.last { pixels } else { 2 * band.shape.p * pool.w };
        for (map, (dx, inputs)) in dx.chunks_exact(pixels).zip(inputs.chunks_exact(pixels)).enumerate() {
            let to = &mut x[(map * pool.h + rows.first) * pool.w..][..done];
            for ((to, dx), x) in to.iter_mut().zip(dx).zip(inputs) {
                *to = if *x > 0. { *dx } else { 0. };
            }
        }
    }
}
