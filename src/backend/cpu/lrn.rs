//! Local response normalization: blocks of pixels with all their channels, so that a window's squares are read from
//! the nearest cache; vectors run along pixels.

use pulp::Arch;
use rayon::prelude::*;

use crate::backend::LrnShape;

/// Pixels worked on together: with 128 channels the scratch rows (32 KiB) stay in the first or second cache.
const BLOCK: usize = 64;

type Row = [f32; BLOCK];

/// See [`crate::backend::Backend::lrn_forward`].
pub fn lrn_forward(shape: &LrnShape, n: usize, x: &[f32], y: &mut [f32]) {
    let elems = shape.c * shape.pixels;
    y[..n * elems].par_chunks_exact_mut(elems).zip(x.par_chunks_exact(elems)).for_each_init(
        || Scratch::new(shape.c),
        |scratch, (y, x)| {
            Arch::new().dispatch(|| {
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
    dx[..n * elems].par_chunks_exact_mut(elems).zip(images).for_each_init(
        || Scratch::new(shape.c),
        |scratch, (dx, (x, dy))| {
            Arch::new().dispatch(|| {
                for first in (0..shape.pixels).step_by(BLOCK) {
                    backward_block(shape, first, x, dy, dx, scratch);
                }
            })
        },
    );
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
