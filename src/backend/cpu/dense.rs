//! Dense layers as matrix products, cut into fixed blocks of units or inputs that threads share.

use rayon::prelude::*;

use super::gemm::{Mat, MatMut, gemm};
use crate::backend::DenseShape;

/// Units (or inputs) a block: wide enough for the product to run at full speed, small enough for many threads.
const BLOCK: usize = 384;

/// See [`crate::backend::Backend::dense_forward`].
pub fn dense_forward(shape: &DenseShape, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let DenseShape { inputs, outputs } = *shape;
    let x = Mat::new(&x[..n * inputs], n, inputs);
    MatMut::new(y, n, outputs).column_blocks(BLOCK).into_par_iter().for_each(|(first, mut y)| {
        let units = BLOCK.min(outputs - first);
        if let Some(bias) = bias {
            (0..n).for_each(|image| y.row(image).copy_from_slice(&bias[first..][..units]));
        }
        gemm(&mut y, x, Mat::new(&w[first * inputs..], units, inputs).t(), true);
    });
}

/// See [`crate::backend::Backend::dense_backward_input`].
pub fn dense_backward_input(shape: &DenseShape, n: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let DenseShape { inputs, outputs } = *shape;
    let dy = Mat::new(&dy[..n * outputs], n, outputs);
    MatMut::new(dx, n, inputs).column_blocks(BLOCK).into_par_iter().for_each(|(first, mut dx)| {
        let columns = BLOCK.min(inputs - first);
        gemm(&mut dx, dy, Mat::strided(&w[first..], outputs, columns, inputs), false);
    });
}

/// See [`crate::backend::Backend::dense_backward_weight`].
pub fn dense_backward_weight(shape: &DenseShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let DenseShape { inputs, outputs } = *shape;
    let x = Mat::new(&x[..n * inputs], n, inputs);
    dw[..outputs * inputs].par_chunks_mut(BLOCK * inputs).enumerate().for_each(|(block, dw)| {
        let rows = dw.len() / inputs;
        let dy = Mat::strided(&dy[block * BLOCK..], n, rows, outputs);
        gemm(&mut MatMut::new(dw, rows, inputs), dy.t(), x, false);
    });
}

/// See [`crate::backend::Backend::dense_backward_bias`].
pub fn dense_backward_bias(shape: &DenseShape, n: usize, dy: &[f32], dbias: &mut [f32]) {
    let outputs = shape.outputs;
    for (unit, dbias) in dbias[..outputs].iter_mut().enumerate() {
        *dbias = (0..n).map(|image| f64::from(dy[image * outputs + unit])).sum::<f64>() as f32;
    }
}
