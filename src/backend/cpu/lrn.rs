//! Local response normalization: vectors run along pixels, and for each two vectors of pixels a loop goes through the
//! channels. The paper's window of five squares stays in registers; other windows go through memory, in blocks of
//! pixels with all their channels.

#![allow(clippy::needless_range_loop)] // plain loops in what must be compiled for wide instructions

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::simd::{dispatch, prefetch, read, store};
use crate::backend::LrnShape;

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

/// See [`crate::backend::Backend::lrn_forward`].
pub fn lrn_forward(shape: &LrnShape, n: usize, x: &[f32], y: &mut [f32]) {
    let elems = shape.c * shape.pixels;
    if shape.n == WINDOW {
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

/// See [`crate::backend::Backend::lrn_backward`].
pub fn lrn_backward(shape: &LrnShape, n: usize, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let elems = shape.c * shape.pixels;
    let images = x.par_chunks_exact(elems).zip(dy.par_chunks_exact(elems));
    if shape.n == WINDOW {
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

/// One image forward.
struct Forward<'a> {
    shape: &'a LrnShape,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { shape, x, y } = self;
        let constants = Constants::new(simd, shape);
        for_pixels::<S>(shape.pixels, |first, lanes| {
            let zero = simd.splat_f32s(0.);
            let (mut squares, mut centres) = ([[zero; VECTORS]; WINDOW], [[zero; VECTORS]; HALF + 1]);
            for lead in 0..shape.c + HALF {
                let entering = load(simd, x, shape, lead, first, lanes);
                push(&mut squares, times(simd, entering, entering));
                push(&mut centres, entering);
                let Some(channel) = lead.checked_sub(HALF) else { continue };
                let mut values = [zero; VECTORS];
                for v in 0..VECTORS {
                    let (_, power) = constants.powers(simd, sum(simd, &squares, v));
                    values[v] = simd.mul_f32s(centres[0][v], power);
                }
                save(simd, y, shape, channel, first, lanes, values);
            }
        });
    }
}

/// One image backward: s^-beta and the windows' terms of all channels go through memory, which stays in the nearest
/// caches.
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
        let Backward { shape, x, dy, dx, scratch } = self;
        let constants = Constants::new(simd, shape);
        let factor = simd.splat_f32s(-2. * shape.alpha * shape.beta);
        let zero = simd.splat_f32s(0.);
        for_pixels::<S>(shape.pixels, |first, lanes| {
            let (mut squares, mut centres) = ([[zero; VECTORS]; WINDOW], [[zero; VECTORS]; HALF + 1]);
            for lead in 0..shape.c + HALF {
                let entering = load(simd, x, shape, lead, first, lanes);
                push(&mut squares, times(simd, entering, entering));
                push(&mut centres, entering);
                let Some(channel) = lead.checked_sub(HALF) else { continue };
                let gradients = load(simd, dy, shape, channel, first, lanes);
                for v in 0..VECTORS {
                    let (s, power) = constants.powers(simd, sum(simd, &squares, v));
                    let scaled = simd.mul_f32s(gradients[v], power);
                    let term = simd.div_f32s(simd.mul_f32s(scaled, centres[0][v]), s);
                    let place = v * S::F32_LANES;
                    store(simd, &mut scratch.powers[channel][place..], scaled);
                    store(simd, &mut scratch.terms[channel][place..], term);
                }
            }
            let mut terms = [[zero; VECTORS]; WINDOW];
            for lead in 0..shape.c + HALF {
                let mut entering = [zero; VECTORS];
                if lead < shape.c {
                    for v in 0..VECTORS {
                        entering[v] = read(simd, &scratch.terms[lead][v * S::F32_LANES..]);
                    }
                }
                push(&mut terms, entering);
                let Some(channel) = lead.checked_sub(HALF) else { continue };
                let inputs = load(simd, x, shape, channel, first, lanes);
                let mut values = [zero; VECTORS];
                for v in 0..VECTORS {
                    let scaled = read(simd, &scratch.powers[channel][v * S::F32_LANES..]);
                    let both = simd.mul_f32s(inputs[v], sum(simd, &terms, v));
                    values[v] = simd.mul_add_e_f32s(factor, both, scaled);
                }
                save(simd, dx, shape, channel, first, lanes, values);
            }
        });
    }
}

/// Calls `each` with the first pixel of every block and the number of its pixels; the last block may be shorter.
#[inline(always)]
fn for_pixels<S: Simd>(pixels: usize, mut each: impl FnMut(usize, usize)) {
    let block = VECTORS * S::F32_LANES;
    for first in (0..pixels).step_by(block) {
        each(first, block.min(pixels - first));
    }
}

/// The pixels of a channel, zeros beyond them and for channels that do not exist.
#[inline(always)]
fn load<S: Simd>(
    simd: S,
    from: &[f32],
    shape: &LrnShape,
    channel: usize,
    first: usize,
    lanes: usize,
) -> [S::f32s; VECTORS] {
    let mut values = [simd.splat_f32s(0.); VECTORS];
    if channel >= shape.c {
        return values;
    }
    prefetch(from, channel * shape.pixels + first + AHEAD, lanes);
    let from = &from[channel * shape.pixels + first..][..lanes];
    if lanes == VECTORS * S::F32_LANES {
        for v in 0..VECTORS {
            values[v] = read(simd, &from[v * S::F32_LANES..]);
        }
    } else {
        let mut line = [0f32; BLOCK];
        line[..lanes].copy_from_slice(from);
        for v in 0..VECTORS {
            values[v] = read(simd, &line[v * S::F32_LANES..]);
        }
    }
    values
}

#[inline(always)]
fn save<S: Simd>(
    simd: S,
    to: &mut [f32],
    shape: &LrnShape,
    channel: usize,
    first: usize,
    lanes: usize,
    values: [S::f32s; VECTORS],
) {
    prefetch(to, channel * shape.pixels + first + AHEAD, lanes);
    let to = &mut to[channel * shape.pixels + first..][..lanes];
    if lanes == VECTORS * S::F32_LANES {
        for v in 0..VECTORS {
            store(simd, &mut to[v * S::F32_LANES..], values[v]);
        }
    } else {
        let mut line = [0f32; BLOCK];
        for v in 0..VECTORS {
            store(simd, &mut line[v * S::F32_LANES..], values[v]);
        }
        to.copy_from_slice(&line[..lanes]);
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
    one: S::f32s,
    beta: f32,
}

impl<S: Simd> Constants<S> {
    #[inline(always)]
    fn new(simd: S, shape: &LrnShape) -> Self {
        Constants {
            k: simd.splat_f32s(shape.k),
            alpha: simd.splat_f32s(shape.alpha),
            one: simd.splat_f32s(1.),
            beta: shape.beta,
        }
    }

    /// s = k + alpha * sum, and s^-beta.
    #[inline(always)]
    fn powers(&self, simd: S, sum: S::f32s) -> (S::f32s, S::f32s) {
        let s = simd.mul_add_e_f32s(self.alpha, sum, self.k);
        if self.beta == 0.75 {
            let root = simd.sqrt_f32s(s);
            return (s, simd.div_f32s(self.one, simd.mul_f32s(root, simd.sqrt_f32s(root))));
        }
        let mut values = [0f32; 16];
        store(simd, &mut values, s);
        values.iter_mut().for_each(|v| *v = inverse_power(*v, self.beta));
        (s, read(simd, &values))
    }
}

/// One row a channel for the term that windows sum, and for s^-beta.
struct Scratch {
    terms: Vec<Row>,
    powers: Vec<Row>,
}

impl Scratch {
    fn new(channels: usize) -> Self {
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
fn inverse_power(s: f32, beta: f32) -> f32 {
    if beta == 0.75 {
        let root = s.sqrt();
        1. / (root * root.sqrt())
    } else {
        s.powf(-beta)
    }
}
