//! Any convolution as a matrix product after im2col, one image at a time: the patches of one image (`columns`,
//! C*R*S rows of P*Q values) stay in the cache between being written and being read.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use rayon::prelude::*;

use super::{PARTS, part_of};
use crate::gemm::{Mat, gemm};
use crate::shapes::ConvShape;

thread_local! {
    /// Each thread's patches, kept between calls.
    static COLUMNS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// The weight gradient's parts, kept between calls by the thread that makes them.
    static SUMS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// See `Backend::conv_forward`.
pub fn conv_forward(shape: &ConvShape, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let (taps, pixels) = (shape.c * shape.r * shape.s, shape.p * shape.q);
    let x_images = x[..n * shape.c * shape.h * shape.w].par_chunks_exact(shape.c * shape.h * shape.w);
    y[..n * shape.k * pixels].par_chunks_exact_mut(shape.k * pixels).zip(x_images).for_each(|(y, x)| {
        if let Some(bias) = bias {
            y.chunks_exact_mut(pixels).zip(bias).for_each(|(row, &b)| row.fill(b));
        }
        with_columns(taps * pixels, |columns| {
            im2col(shape, x, columns);
            gemm(y, Mat::new(w, shape.k, taps), Mat::new(columns, taps, pixels), true);
        });
    });
}

/// See `Backend::conv_backward_input`.
pub fn conv_backward_input(shape: &ConvShape, n: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (taps, pixels) = (shape.c * shape.r * shape.s, shape.p * shape.q);
    let dy_images = dy[..n * shape.k * pixels].par_chunks_exact(shape.k * pixels);
    dx[..n * shape.c * shape.h * shape.w].par_chunks_exact_mut(shape.c * shape.h * shape.w).zip(dy_images).for_each(
        |(dx, dy)| {
            with_columns(taps * pixels, |columns| {
                gemm(columns, Mat::new(w, shape.k, taps).t(), Mat::new(dy, shape.k, pixels), false);
                col2im(shape, columns, dx);
            });
        },
    );
}

/// See `Backend::conv_backward_weight`.
pub fn conv_backward_weight(shape: &ConvShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (taps, pixels) = (shape.c * shape.r * shape.s, shape.p * shape.q);
    let (x_elems, y_elems, w_elems) = (shape.c * shape.h * shape.w, shape.k * pixels, shape.k * taps);
    let parts = PARTS.min(n);
    let mut sums = SUMS.take();
    sums.clear();
    sums.resize(parts * w_elems, 0.);
    sums.par_chunks_exact_mut(w_elems).enumerate().for_each(|(part, sum)| {
        for image in part_of(n, part, parts) {
            let (x, dy) = (&x[image * x_elems..][..x_elems], &dy[image * y_elems..][..y_elems]);
            with_columns(taps * pixels, |columns| {
                im2col(shape, x, columns);
                gemm(sum, Mat::new(dy, shape.k, pixels), Mat::new(columns, taps, pixels).t(), true);
            });
        }
    });
    const BLOCK: usize = 4096;
    dw[..w_elems].par_chunks_mut(BLOCK).enumerate().for_each(|(block, dw)| {
        dw.copy_from_slice(&sums[block * BLOCK..][..dw.len()]);
        for part in 1..parts {
            let sum = &sums[part * w_elems + block * BLOCK..][..dw.len()];
            dw.iter_mut().zip(sum).for_each(|(dw, s)| *dw += s);
        }
    });
    SUMS.set(sums);
}

fn with_columns(elems: usize, work: impl FnOnce(&mut [f32])) {
    COLUMNS.with_borrow_mut(|columns| {
        if columns.len() < elems {
            columns.resize(elems, 0.);
        }
        work(&mut columns[..elems]);
    });
}

/// Output positions whose tap `tap` lies within `size` input positions.
fn inside(tap: usize, size: usize, out: usize, stride: usize, pad: usize) -> Range<usize> {
    let first = pad.saturating_sub(tap).div_ceil(stride).min(out);
    let end = if size + pad > tap { ((size + pad - tap - 1) / stride + 1).min(out) } else { 0 };
    first..end.max(first)
}

/// columns\[c r s\]\[p q\] = x\[c\]\[p stride + r - pad\]\[q stride + s - pad\], 0 outside the image.
fn im2col(shape: &ConvShape, x: &[f32], columns: &mut [f32]) {
    let ConvShape { h, w, r, s, p, q, stride, pad, .. } = *shape;
    for (row, column) in columns.chunks_exact_mut(p * q).enumerate() {
        let (c, tap_r, tap_s) = (row / (r * s), row / s % r, row % s);
        let (rows, cols) = (inside(tap_r, h, p, stride, pad), inside(tap_s, w, q, stride, pad));
        column[..rows.start * q].fill(0.);
        column[rows.end * q..].fill(0.);
        for out_row in rows {
            let line = &mut column[out_row * q..][..q];
            line[..cols.start].fill(0.);
            line[cols.end..].fill(0.);
            if cols.is_empty() {
                continue;
            }
            let from = (c * h + out_row * stride + tap_r - pad) * w + cols.start * stride + tap_s - pad;
            let line = &mut line[cols.clone()];
            if stride == 1 {
                line.copy_from_slice(&x[from..][..line.len()]);
            } else {
                line.iter_mut().zip(x[from..].iter().step_by(stride)).for_each(|(to, v)| *to = *v);
            }
        }
    }
}

/// The transpose of [`im2col`]: dx = the sum of all the patches' values at their places.
fn col2im(shape: &ConvShape, columns: &[f32], dx: &mut [f32]) {
    let ConvShape { h, w, r, s, p, q, stride, pad, .. } = *shape;
    dx.fill(0.);
    for (row, column) in columns.chunks_exact(p * q).enumerate() {
        let (c, tap_r, tap_s) = (row / (r * s), row / s % r, row % s);
        let (rows, cols) = (inside(tap_r, h, p, stride, pad), inside(tap_s, w, q, stride, pad));
        if cols.is_empty() {
            continue;
        }
        for out_row in rows {
            let to = (c * h + out_row * stride + tap_r - pad) * w + cols.start * stride + tap_s - pad;
            let line = &column[out_row * q..][cols.clone()];
            if stride == 1 {
                dx[to..][..line.len()].iter_mut().zip(line).for_each(|(to, v)| *to += v);
            } else {
                dx[to..].iter_mut().step_by(stride).zip(line).for_each(|(to, v)| *to += v);
            }
        }
    }
}
