//! Local response normalization: vectors run along pixels, and for each two vectors of pixels a loop goes through the
//! channels. The paper's window of five squares stays in registers; other windows go through memory, in blocks of
//! pixels with all their channels.

#![allow(clippy::needless_range_loop)] // plain loops in what must be compiled for wide instructions

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::panels::PANEL;
use super::simd::{dispatch, inverse_sqrt, prefetch, read, store};
use crate::shapes::LrnShape;

/// The paper's window, for which there is a fast way.
const WINDOW: usize = 5;
const HALF: usize = WINDOW / 2;

/// Vectors of pixels worked on together: two lines of each channel.
const VECTORS: usize = 2;

/// Pixels ahead of which memory is asked for.
const AHEAD: usize = 64;

/// Pixels worked on together: with 128 channels the scratch rows (32 KiB) stay in the first or second cache.
const BLOCK: usize = 64;

type Row = [f32; BLOCK];

/// Whether [`forward`] and [`backward`] can do it: the paper's window, and a block of pixels at least.
pub fn is_fast(shape: &LrnShape) -> bool {
    shape.n == WINDOW && shape.pixels >= VECTORS * PANEL
}

/// See `Backend::lrn_forward`.
pub fn lrn_forward(shape: &LrnShape, n: usize, x: &[f32], y: &mut [f32]) {
    let elems = shape.c * shape.pixels;
    if is_fast(shape) {
        let images = y[..n * elems].par_chunks_exact_mut(elems).zip(x.par_chunks_exact(elems));
        return images.for_each(|(y, x)| dispatch(Forward { shape, x, y }));
    }
    y[..n * elems].par_chunks_exact_mut(elems).zip(x.par_chunks_exact(elems)).for_each_init(
        || Scratch::new(shape.c),
        |scratch, (y, x)| {
            dispatch(|| {
                for first in (0..shape.pixels).step_by(BLOCK) {
                    forward_block(shape, first, x, y, scratch);
                }
            })
        },
    );
}

/// See `Backend::lrn_backward`.
pub fn lrn_backward(shape: &LrnShape, n: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let elems = shape.c * shape.pixels;
    let images = x.par_chunks_exact(elems).zip(dy.par_chunks_exact(elems));
    if is_fast(shape) {
        let images = dx[..n * elems].par_chunks_exact_mut(elems).zip(images);
        return images.for_each_init(
            || Scratch::new(shape.c),
            |scratch, (dx, (x, dy))| dispatch(Backward { shape, x, dy, dx, scratch }),
        );
    }
    dx[..n * elems].par_chunks_exact_mut(elems).zip(images).for_each_init(
        || Scratch::new(shape.c),
        |scratch, (dx, (x, dy))| {
            dispatch(|| {
                for first in (0..shape.pixels).step_by(BLOCK) {
                    backward_block(shape, first, x, dy, dx, scratch);
                }
            })
        },
    );
}

/// See [`forward`].
struct Forward<'a> {
    shape: &'a LrnShape,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        forward(simd, self.shape, self.x, self.y);
    }
}

/// One image forward, with the paper's window. The last block of pixels ends with the image: some are computed twice.
#[inline(always)]
pub fn forward<S: Simd>(simd: S, shape: &LrnShape, x: &[f32], y: &mut [f32]) {
    let LrnShape { c, pixels, .. } = *shape;
    let (constants, block) = (Constants::new(simd, shape), VECTORS * S::F32_LANES);
    let zero = [simd.splat_f32s(0.); VECTORS];
    assert!(block <= pixels && c * pixels <= x.len().min(y.len()));
    for first in (0..pixels).step_by(block) {
        let first = first.min(pixels - block);
        let (mut squares, mut centres) = ([zero; WINDOW], [zero; HALF + 1]);
        for lead in 0..c + HALF {
            // SAFETY: the block's pixels of a channel that exists.
            let entering = if lead < c { unsafe { load(simd, x.as_ptr().add(lead * pixels + first)) } } else { zero };
            push(&mut squares, times(simd, entering, entering));
            push(&mut centres, entering);
            let Some(channel) = lead.checked_sub(HALF) else { continue };
            let mut values = zero;
            for v in 0..VECTORS {
                let [_, power] = constants.powers(simd, sum(simd, &squares, v));
                values[v] = simd.mul_f32s(centres[0][v], power);
            }
            // SAFETY: as above.
            unsafe { save(simd, y.as_mut_ptr().add(channel * pixels + first), values) };
        }
    }
}

/// See [`backward`].
struct Backward<'a> {
    shape: &'a LrnShape,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        backward(simd, self.shape, self.x, self.dy, self.dx, self.scratch);
    }
}

/// One image backward, with the paper's window: s^-beta and the windows' terms of all channels go through memory, which
/// stays in the nearest caches.
#[inline(always)]
pub fn backward<S: Simd>(simd: S, shape: &LrnShape, x: &[f32], dy: &[f32], dx: &mut [f32], scratch: &mut Scratch) {
    let LrnShape { c, pixels, .. } = *shape;
    let (constants, block) = (Constants::new(simd, shape), VECTORS * S::F32_LANES);
    let (zero, factor) = ([simd.splat_f32s(0.); VECTORS], simd.splat_f32s(-2. * shape.alpha * shape.beta));
    assert!(block <= pixels && c * pixels <= x.len().min(dy.len()).min(dx.len()));
    assert!(block <= BLOCK && c <= scratch.terms.len().min(scratch.powers.len()));
    for first in (0..pixels).step_by(block) {
        let first = first.min(pixels - block);
        let (mut squares, mut centres) = ([zero; WINDOW], [zero; HALF + 1]);
        let (terms, powers) = (scratch.terms.as_mut_ptr(), scratch.powers.as_mut_ptr());
        for lead in 0..c + HALF {
            // SAFETY: the block's pixels of a channel that exists; rows of as many pixels, one a channel.
            let entering = if lead < c { unsafe { load(simd, x.as_ptr().add(lead * pixels + first)) } } else { zero };
            push(&mut squares, times(simd, entering, entering));
            push(&mut centres, entering);
            let Some(channel) = lead.checked_sub(HALF) else { continue };
            // SAFETY: as above.
            let mut scaled = unsafe { load(simd, dy.as_ptr().add(channel * pixels + first)) };
            let mut term = zero;
            for v in 0..VECTORS {
                let [inverse, power] = constants.powers(simd, sum(simd, &squares, v));
                scaled[v] = simd.mul_f32s(scaled[v], power);
                term[v] = simd.mul_f32s(simd.mul_f32s(scaled[v], centres[0][v]), inverse);
            }
            // SAFETY: as above.
            unsafe {
                save(simd, terms.add(channel).cast(), term);
                save(simd, powers.add(channel).cast(), scaled);
            }
        }
        let mut window = [zero; WINDOW];
        for lead in 0..c + HALF {
            // SAFETY: as above.
            let entering = if lead < c { unsafe { load(simd, terms.add(lead).cast()) } } else { zero };
            push(&mut window, entering);
            let Some(channel) = lead.checked_sub(HALF) else { continue };
            // SAFETY: as above.
            let (inputs, mut values) = unsafe {
                (load(simd, x.as_ptr().add(channel * pixels + first)), load(simd, powers.add(channel).cast()))
            };
            for v in 0..VECTORS {
                let both = simd.mul_f32s(inputs[v], sum(simd, &window, v));
                values[v] = simd.mul_add_e_f32s(factor, both, values[v]);
            }
            // SAFETY: as above.
            unsafe { save(simd, dx.as_mut_ptr().add(channel * pixels + first), values) };
        }
    }
}

/// Reads the pixels of a block, and asks for those that come some blocks later.
///
/// # Safety
/// There must be a block of values.
#[inline(always)]
unsafe fn load<S: Simd>(simd: S, from: *const f32) -> [S::f32s; VECTORS] {
    let mut values = [simd.splat_f32s(0.); VECTORS];
    for v in 0..VECTORS {
        prefetch(from.wrapping_add(AHEAD + v * S::F32_LANES));
        // SAFETY: by this function's contract; unaligned access is allowed.
        values[v] = unsafe { from.add(v * S::F32_LANES).cast::<S::f32s>().read_unaligned() };
    }
    values
}

/// Writes the pixels of a block.
///
/// # Safety
/// There must be room for a block of values.
#[inline(always)]
unsafe fn save<S: Simd>(_: S, to: *mut f32, values: [S::f32s; VECTORS]) {
    for v in 0..VECTORS {
        prefetch(to.wrapping_add(AHEAD + v * S::F32_LANES));
        // SAFETY: by this function's contract; unaligned access is allowed.
        unsafe { to.add(v * S::F32_LANES).cast::<S::f32s>().write_unaligned(values[v]) };
    }
}

/// Moves a window on by one channel.
#[inline(always)]
fn push<V: Copy, const N: usize>(window: &mut [[V; VECTORS]; N], entering: [V; VECTORS]) {
    for i in 0..N - 1 {
        window[i] = window[i + 1];
    }
    window[N - 1] = entering;
}

#[inline(always)]
fn times<S: Simd>(simd: S, a: [S::f32s; VECTORS], b: [S::f32s; VECTORS]) -> [S::f32s; VECTORS] {
    let mut product = a;
    for v in 0..VECTORS {
        product[v] = simd.mul_f32s(a[v], b[v]);
    }
    product
}

/// The sum over the window, taken anew for every channel: a running sum would lose bits.
#[inline(always)]
fn sum<S: Simd>(simd: S, window: &[[S::f32s; VECTORS]; WINDOW], v: usize) -> S::f32s {
    let mut sum = window[0][v];
    for i in 1..WINDOW {
        sum = simd.add_f32s(sum, window[i][v]);
    }
    sum
}

/// k, alpha and beta in vectors.
struct Constants<S: Simd> {
    k: S::f32s,
    alpha: S::f32s,
    beta: f32,
}

impl<S: Simd> Constants<S> {
    #[inline(always)]
    fn new(simd: S, shape: &LrnShape) -> Self {
        Constants { k: simd.splat_f32s(shape.k), alpha: simd.splat_f32s(shape.alpha), beta: shape.beta }
    }

    /// 1 / s and s^-beta, where s = k + alpha * sum.
    #[inline(always)]
    fn powers(&self, simd: S, sum: S::f32s) -> [S::f32s; 2] {
        let s = simd.mul_add_e_f32s(self.alpha, sum, self.k);
        if self.beta == 0.75 {
            if let Some(r) = inverse_sqrt(simd, s)
                && let Some(inverse) = inverse_sqrt(simd, r)
            {
                // s^-3/4 is r^3/2, r the inverse root; and the root of r is r by its own inverse root.
                let root = simd.mul_f32s(r, inverse);
                return [simd.mul_f32s(r, r), simd.mul_f32s(r, root)];
            }
            // One division for both: 1 / (root of s * root of that), and 1 / root of s is that times the second root.
            let root = simd.sqrt_f32s(s);
            let second = simd.sqrt_f32s(root);
            let power = simd.div_f32s(simd.splat_f32s(1.), simd.mul_f32s(root, second));
            let inverse_root = simd.mul_f32s(power, second);
            return [simd.mul_f32s(inverse_root, inverse_root), power];
        }
        let mut values = [0f32; 16];
        store(simd, &mut values, s);
        values.iter_mut().for_each(|v| *v = inverse_power(*v, self.beta));
        [simd.div_f32s(simd.splat_f32s(1.), s), read(simd, &values)]
    }
}

/// One row a channel for the term that windows sum, and for s^-beta.
pub struct Scratch {
    terms: Vec<Row>,
    powers: Vec<Row>,
}

impl Scratch {
    /// For this number of channels.
    pub fn new(channels: usize) -> Self {
        Scratch { terms: vec![[0.; BLOCK]; channels], powers: vec![[0.; BLOCK]; channels] }
    }
}

#[inline(always)]
fn forward_block(shape: &LrnShape, first: usize, x: &[f32], y: &mut [f32], scratch: &mut Scratch) {
    let len = BLOCK.min(shape.pixels - first);
    for (c, row) in scratch.terms.iter_mut().enumerate() {
        let x = &x[c * shape.pixels + first..][..len];
        row.iter_mut().zip(x).for_each(|(t, x)| *t = x * x);
    }
    for c in 0..shape.c {
        let sum = window_sum(shape, &scratch.terms, c);
        let at = c * shape.pixels + first;
        let (x, y) = (&x[at..][..len], &mut y[at..][..len]);
        for ((y, x), sum) in y.iter_mut().zip(x).zip(sum) {
            *y = x * inverse_power(shape.k + shape.alpha * sum, shape.beta);
        }
    }
}

#[inline(always)]
fn backward_block(shape: &LrnShape, first: usize, x: &[f32], dy: &[f32], dx: &mut [f32], scratch: &mut Scratch) {
    let len = BLOCK.min(shape.pixels - first);
    let at = |c: usize| c * shape.pixels + first;
    for (c, row) in scratch.terms.iter_mut().enumerate() {
        row.iter_mut().zip(&x[at(c)..][..len]).for_each(|(t, x)| *t = x * x);
    }
    // s is needed whole before the terms' memory can be used again.
    for c in 0..shape.c {
        let sum = window_sum(shape, &scratch.terms, c);
        scratch.powers[c].iter_mut().zip(sum).for_each(|(s, sum)| *s = shape.k + shape.alpha * sum);
    }
    for (c, (terms, powers)) in scratch.terms.iter_mut().zip(&mut scratch.powers).enumerate() {
        let (x, dy) = (&x[at(c)..][..len], &dy[at(c)..][..len]);
        for (((t, s), x), dy) in terms.iter_mut().zip(powers.iter_mut()).zip(x).zip(dy) {
            let power = inverse_power(*s, shape.beta);
            *t = dy * x * power / *s;
            *s = power;
        }
    }
    let factor = 2. * shape.alpha * shape.beta;
    for c in 0..shape.c {
        let sum = window_sum(shape, &scratch.terms, c);
        let (x, dy, dx) = (&x[at(c)..][..len], &dy[at(c)..][..len], &mut dx[at(c)..][..len]);
        for ((((dx, x), dy), power), sum) in dx.iter_mut().zip(x).zip(dy).zip(&scratch.powers[c]).zip(sum) {
            *dx = dy * power - factor * x * sum;
        }
    }
}

/// The sum of the rows in channel c's window, in order of the channels.
#[inline(always)]
fn window_sum(shape: &LrnShape, rows: &[Row], c: usize) -> Row {
    let half = shape.n / 2;
    let mut sum = [0.; BLOCK];
    for row in &rows[c.saturating_sub(half)..(c + half + 1).min(shape.c)] {
        sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
    }
    sum
}

/// s^-beta; the paper's beta of 3/4 by two square roots instead of a power function.
#[inline(always)]
pub(crate) fn inverse_power(s: f32, beta: f32) -> f32 {
    if beta == 0.75 {
        let root = s.sqrt();
        1. / (root * root.sqrt())
    } else {
        s.powf(-beta)
    }
}
