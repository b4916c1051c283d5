//! Element-wise operations, in fixed blocks that threads share.

use rayon::prelude::*;

use super::exponential;
use super::simd::dispatch;
use crate::rng::Philox;
use crate::shapes::Activation;
use crate::shapes::{DropoutDraw, DropoutShape};

/// Elements a block: enough to be worth a thread's while.
const BLOCK: usize = 1 << 15;

/// See `Backend::activation_forward`.
pub fn activation_forward(kind: Activation, y: &mut [f32]) {
    y.par_chunks_mut(BLOCK).for_each(|y| {
        dispatch(|| match kind {
            // NaN passes through: a diverged run must be seen in the loss.
            Activation::Relu => y.iter_mut().for_each(|y| *y = if *y < 0. { 0. } else { *y }),
            Activation::Tanh => y.iter_mut().for_each(|y| *y = exponential::tanh(*y)),
            Activation::Sigmoid => y.iter_mut().for_each(|y| *y = exponential::logistic(*y)),
        })
    });
}

/// See `Backend::activation_backward`.
pub fn activation_backward(kind: Activation, y: &[f32], dy: &mut [f32]) {
    dy.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK)).for_each(|(dy, y)| {
        let pairs = dy.iter_mut().zip(y);
        dispatch(|| match kind {
            Activation::Relu => pairs.for_each(|(dy, y)| *dy = if *y > 0. { *dy } else { 0. }),
            Activation::Tanh => pairs.for_each(|(dy, y)| *dy *= 1. - y * y),
            Activation::Sigmoid => pairs.for_each(|(dy, y)| *dy *= y * (1. - y)),
        })
    });
}

/// See `Backend::add`.
pub fn add(x: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(BLOCK)
        .zip(x.par_chunks(BLOCK))
        .for_each(|(y, x)| dispatch(|| y.iter_mut().zip(x).for_each(|(y, x)| *y += x)));
}

/// See `Backend::dropout_forward`.
pub fn dropout_forward(shape: &DropoutShape, n: usize, draw: &DropoutDraw, x: &[f32], y: &mut [f32]) {
    y[..n * shape.elems].copy_from_slice(&x[..n * shape.elems]);
    dropout_backward(shape, n, draw, y);
}

/// See `Backend::dropout_backward`: the operation is linear, so it serves both passes.
pub fn dropout_backward(shape: &DropoutShape, n: usize, draw: &DropoutDraw, dy: &mut [f32]) {
    if shape.elems == 0 {
        return;
    }
    let factor = draw.factor(shape.keep);
    dy[..n * shape.elems].par_chunks_exact_mut(shape.elems).enumerate().for_each(|(sample, dy)| match draw.mask {
        Some((rng, step)) => dispatch(|| drop_units(shape, &rng, step, sample, factor, dy)),
        None => dy.iter_mut().for_each(|dy| *dy *= factor),
    });
}

#[inline(always)]
fn drop_units(shape: &DropoutShape, rng: &Philox, step: u64, sample: usize, factor: f32, units: &mut [f32]) {
    let threshold = shape.threshold();
    let mut unit = shape.first_unit;
    let mut rest = units;
    while !rest.is_empty() {
        let words = rng.block([(unit / 4) as u32, sample as u32, step as u32, (step >> 32) as u32]);
        let skip = unit % 4; // not 0 only where a stream's first unit is not a multiple of 4
        let (now, later) = rest.split_at_mut((4 - skip).min(rest.len()));
        for (y, word) in now.iter_mut().zip(&words[skip..]) {
            *y = if u64::from(*word) < threshold { *y * factor } else { 0. };
        }
        unit += now.len();
        rest = later;
    }
}
