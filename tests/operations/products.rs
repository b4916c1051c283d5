//! Convolutions and dense layers, with exact and with rounded factors, on any device.

use alexnet_split::backend::reference::definitions::{self as reference, wide};
use alexnet_split::backend::*;
use alexnet_split::net::plan::Op;

use crate::checks::{output, upload, written};
use crate::support::tolerance::{OPERATION, TENSOR_CORE, assert_close};
use crate::support::{cases, normals, round_to_bf16, round_to_tf32};

/// The rounding of a product's operands, and the tolerance of its sums.
#[derive(Clone, Copy)]
pub struct Rounded(pub fn(f32) -> f32, pub f64);

/// Not at all.
pub const FP32: Rounded = Rounded(|v| v, OPERATION);
/// As tensor cores round tf32.
pub const TF32: Rounded = Rounded(round_to_tf32, TENSOR_CORE);
/// As they round bf16.
pub const BF16: Rounded = Rounded(round_to_bf16, TENSOR_CORE);

pub fn products<B: Backend>(backend: &B, rounded: Rounded) {
    all_convolutions(backend, rounded);
    all_dense(backend, rounded);
}

pub fn all_convolutions<B: Backend>(backend: &B, rounded: Rounded) {
    for case in cases::small().iter().filter(|case| case.is_small || !B::QUEUES) {
        let Op::Conv(s) = case.op else { continue };
        for n in [1, 3, 17] {
            one_convolution(backend, &s, n, [rounded; 3]);
        }
    }
}

/// `passes`: forward, backward input, backward weight.
pub fn one_convolution<B: Backend>(backend: &B, s: &ConvShape, n: usize, passes: [Rounded; 3]) {
    let name = format!("{s:?} n={n}");
    let (xs, ws, ys) = (s.c * s.h * s.w, s.k * s.c * s.r * s.s, s.k * s.p * s.q);
    let values = [normals(n * xs, 1., 1), normals(ws, 1., 2), normals(s.k, 1., 3), normals(n * ys, 1., 4)];
    let [x, w, bias, dy] = values.each_ref().map(|values| upload(backend, values));
    let [x_values, w_values, _, dy_values] = &values;

    let mut y = output(backend, n * ys);
    backend.conv_forward(s, n, &x, &w, Some(&bias), &mut y).unwrap();
    let start: Vec<f64> = (0..n * ys).map(|i| f64::from(values[2][i / (s.p * s.q) % s.k])).collect();
    let Rounded(round, tolerance) = passes[0];
    let [rounded_x, rounded_w] = [x_values, w_values].map(|values| wide_rounded(values, round));
    let once = reference::conv_forward(s, n, &rounded_x, &rounded_w, &start);
    assert_close(&format!("y, {name}"), &written(backend, &name, &y, n * ys), &once, tolerance);
    backend.conv_forward(s, n, &x, &w, None, &mut y).unwrap();
    let twice = reference::conv_forward(s, n, &rounded_x, &rounded_w, &once);
    assert_close(&format!("y added, {name}"), &written(backend, &name, &y, n * ys), &twice, tolerance);

    let mut dx = output(backend, n * xs);
    backend.conv_backward_input(s, n, &dy, &w, &mut dx).unwrap();
    let Rounded(round, tolerance) = passes[1];
    let [rounded_dy, rounded_w] = [dy_values, w_values].map(|values| wide_rounded(values, round));
    let expected = reference::conv_backward_input(s, n, &rounded_dy, &rounded_w);
    assert_close(&format!("dx, {name}"), &written(backend, &name, &dx, n * xs), &expected, tolerance);

    let mut dw = output(backend, ws);
    backend.conv_backward_weight(s, n, &x, &dy, &mut dw).unwrap();
    let Rounded(round, tolerance) = passes[2];
    let [rounded_x, rounded_dy] = [x_values, dy_values].map(|values| wide_rounded(values, round));
    let expected = reference::conv_backward_weight(s, n, &rounded_x, &rounded_dy);
    assert_close(&format!("dw, {name}"), &written(backend, &name, &dw, ws), &expected, tolerance);

    let mut dbias = output(backend, s.k);
    backend.conv_backward_bias(s, n, &dy, &mut dbias).unwrap();
    let expected = reference::backward_bias(s.k, s.p * s.q, &wide(&values[3]));
    assert_close(&format!("dbias, {name}"), &written(backend, &name, &dbias, s.k), &expected, OPERATION);
}

fn wide_rounded(values: &[f32], round: fn(f32) -> f32) -> Vec<f64> {
    values.iter().map(|&v| f64::from(round(v))).collect()
}

pub fn all_dense<B: Backend>(backend: &B, rounded: Rounded) {
    for case in cases::small() {
        let Op::Dense(s) = case.op else { continue };
        for n in [1, 3, 17] {
            one_dense(backend, &s, n, rounded);
        }
    }
}

pub fn one_dense<B: Backend>(backend: &B, s: &DenseShape, n: usize, Rounded(round, tolerance): Rounded) {
    let (conv, name) = (reference::as_conv(s), format!("{s:?} n={n}"));
    let (xs, ws, ys) = (n * s.inputs, s.inputs * s.outputs, n * s.outputs);
    let values = [normals(xs, 1., 1), normals(ws, 1., 2), normals(s.outputs, 1., 3), normals(ys, 1., 4)];
    let [x, w, bias, dy] = values.each_ref().map(|values| upload(backend, values));
    let [rounded_x, rounded_w, _, rounded_dy] = values.each_ref().map(|values| wide_rounded(values, round));

    let mut y = output(backend, ys);
    backend.dense_forward(s, n, &x, &w, Some(&bias), &mut y).unwrap();
    let start: Vec<f64> = (0..ys).map(|i| f64::from(values[2][i % s.outputs])).collect();
    let once = reference::conv_forward(&conv, n, &rounded_x, &rounded_w, &start);
    assert_close(&format!("y, {name}"), &written(backend, &name, &y, ys), &once, tolerance);
    backend.dense_forward(s, n, &x, &w, None, &mut y).unwrap();
    let twice = reference::conv_forward(&conv, n, &rounded_x, &rounded_w, &once);
    assert_close(&format!("y added, {name}"), &written(backend, &name, &y, ys), &twice, tolerance);

    let mut dx = output(backend, xs);
    backend.dense_backward_input(s, n, &dy, &w, &mut dx).unwrap();
    let expected = reference::conv_backward_input(&conv, n, &rounded_dy, &rounded_w);
    assert_close(&format!("dx, {name}"), &written(backend, &name, &dx, xs), &expected, tolerance);

    let mut dw = output(backend, ws);
    backend.dense_backward_weight(s, n, &x, &dy, &mut dw).unwrap();
    let expected = reference::conv_backward_weight(&conv, n, &rounded_x, &rounded_dy);
    assert_close(&format!("dw, {name}"), &written(backend, &name, &dw, ws), &expected, tolerance);

    let mut dbias = output(backend, s.outputs);
    backend.dense_backward_bias(s, n, &dy, &mut dbias).unwrap();
    let expected = reference::backward_bias(s.outputs, 1, &wide(&values[3]));
    assert_close(&format!("dbias, {name}"), &written(backend, &name, &dbias, s.outputs), &expected, OPERATION);
}
