//! Convolution: the method for each is chosen here by its shape alone.
//!
//! | windows | way |
//! |---|---|
//! | 3x3 and 5x5, 1 apart, channels in sixteens | `winograd`, few multiplications |
//! | 11x11, 4 apart, filters in sixteens | `winograd::strided`, the same in blocks of 4x4 pixels, in fp32 whatever is asked |
//! | all others | `im2col`, patches as columns and a matrix product, in fp32 whatever is asked |
//!
//! [`Way::of`] says which.

mod im2col;
mod winograd;

use std::ops::Range;

use rayon::prelude::*;

use self::winograd::strided;
use crate::operands::{Operands, in_precision};
use crate::shapes::{ConvShape, Precision};

/// The weight gradient sums over images: over each of at most this many fixed parts of the batch first, then over the
/// parts in order. A constant, so that the bits do not depend on the number of threads.
const PARTS: usize = 32;

/// The ways of the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Few multiplications.
    Winograd,
    /// The same in blocks of pixels.
    Strided,
    /// Patches as columns and a matrix product.
    Im2col,
}

impl Way {
    /// The way of a convolution.
    pub fn of(s: &ConvShape) -> Way {
        if winograd::applies(s) {
            Way::Winograd
        } else if strided::applies(s) {
            Way::Strided
        } else {
            Way::Im2col
        }
    }
}

/// See `Backend::conv_forward`.
pub fn conv_forward(
    precision: Precision,
    s: &ConvShape,
    n: usize,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    in_precision!(precision, forward(s, n, x, w, bias, y))
}

fn forward<F: Operands>(s: &ConvShape, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    match Way::of(s) {
        Way::Winograd => winograd::conv_forward::<F>(s, n, x, w, bias, y),
        Way::Strided => strided::conv_forward(s, n, x, w, bias, y),
        Way::Im2col => im2col::conv_forward(s, n, x, w, bias, y),
    }
}

/// See `Backend::conv_backward_input`.
pub fn conv_backward_input(precision: Precision, s: &ConvShape, n: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    in_precision!(precision, backward_input(s, n, dy, w, dx))
}

fn backward_input<F: Operands>(s: &ConvShape, n: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    match Way::of(s) {
        Way::Winograd => winograd::conv_backward_input::<F>(s, n, dy, w, dx),
        // Nobody asks for the gradient by the image, so `strided` does not have it.
        Way::Strided | Way::Im2col => im2col::conv_backward_input(s, n, dy, w, dx),
    }
}

/// See `Backend::conv_backward_weight`.
pub fn conv_backward_weight(precision: Precision, s: &ConvShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    in_precision!(precision, backward_weight(s, n, x, dy, dw))
}

fn backward_weight<F: Operands>(s: &ConvShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    match Way::of(s) {
        Way::Winograd => winograd::conv_backward_weight::<F>(s, n, x, dy, dw),
        Way::Strided => strided::conv_backward_weight(s, n, x, dy, dw),
        Way::Im2col => im2col::conv_backward_weight(s, n, x, dy, dw),
    }
}

/// See `Backend::conv_backward_bias`.
pub fn conv_backward_bias(shape: &ConvShape, n: usize, dy: &[f32], dbias: &mut [f32]) {
    let pixels = shape.p * shape.q;
    dbias[..shape.k].par_iter_mut().enumerate().for_each(|(k, dbias)| {
        let rows = (0..n).map(|image| &dy[(image * shape.k + k) * pixels..][..pixels]);
        *dbias = rows.map(|row| f64::from(sum(row))).sum::<f64>() as f32;
    });
}

/// The sum of a row in 16 lanes, which the compiler can vectorize without changing the order.
fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, v)| *lane += v);
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Images of one part of the batch.
pub fn part_of(n: usize, part: usize, parts: usize) -> Range<usize> {
    n * part / parts..n * (part + 1) / parts
}
