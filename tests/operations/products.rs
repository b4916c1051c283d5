//! Convolutions and dense layers, with exact and with rounded factors, on any device.

use alexnet_split::backend::reference::definitions as reference;
use alexnet_split::backend::*;
use alexnet_split::net::plan::Op;

use crate::checks::{output, upload, upload_param, written};
use crate::support::tolerance::{BF16_MAPS, OPERATION, TENSOR_CORE, assert_close};
use crate::support::{cases, normals, round_to_bf16, round_to_tf32};

/// The rounding of a product's operands, and the tolerance of its sums.
#[derive(Clone, Copy)]
pub struct Rounded(pub fn(f32) -> f32, pub f64);

/// What is computed exactly.
pub const EXACT: Rounded = Rounded(|v| v, OPERATION);

/// How a device computes forward, backward input, backward weight and backward bias.
pub type Passes = [Rounded; 4];

/// Exactly.
pub const FP32: Passes = [EXACT; 4];
/// As tensor cores round tf32.
pub const TF32: Passes = {
    let tf32 = Rounded(round_to_tf32, TENSOR_CORE);
    [tf32, tf32, tf32, EXACT]
};
/// As GPUs do in bf16: activations and their gradients are stored so, gradients of parameters in fp32.
pub const BF16: Passes = {
    let (maps, sums) = (Rounded(round_to_bf16, BF16_MAPS), Rounded(round_to_bf16, TENSOR_CORE));
    [maps, maps, sums, sums]
};

/// Of batches of these numbers of images.
pub fn products<B: Backend>(backend: &B, passes: Passes, batches: &[usize]) {
    all_convolutions(backend, passes, batches);
    all_dense(backend, passes, batches);
}

pub fn all_convolutions<B: Backend>(backend: &B, passes: Passes, batches: &[usize]) {
    for case in cases::small().iter().filter(|case| case.is_small || !B::QUEUES) {
        let Op::Conv(s) = case.op else { continue };
        for &n in batches {
            one_convolution(backend, &s, n, passes);
        }
    }
}

/// `passes`: forward, backward input, backward weight, backward bias.
pub fn one_convolution<B: Backend>(backend: &B, s: &ConvShape, n: usize, passes: Passes) {
    let name = format!("{s:?} n={n}");
    // Only the first layer may have a stride; it has no gradient by its input.
    let is_first = s.stride > 1;
    let shapes = [
        if is_first { TensorShape::Input(n, *s) } else { TensorShape::Maps(n, [s.c, s.h, s.w]) },
        TensorShape::Filters(*s),
        TensorShape::Values(s.k),
        TensorShape::Maps(n, [s.k, s.p, s.q]),
    ];
    let [maps, filters, biases, out_maps] = shapes;
    let [x_values, w_values, bias_values, dy_values] =
        [0, 1, 2, 3].map(|i: usize| normals(shapes[i].elems(), 1., i as u64 + 1));
    let (x, dy) = (upload(backend, &x_values, maps), upload(backend, &dy_values, out_maps));
    let (w, bias) = (upload_param(backend, &w_values, filters), upload_param(backend, &bias_values, biases));

    let mut y = output(backend, out_maps);
    let one_block = ConvShape { blocks: 1, ..*s };
    backend.conv_forward(&one_block, n, &x, &w, Some(&bias), &mut y).unwrap();
    let start: Vec<f64> = (0..out_maps.elems()).map(|i| f64::from(bias_values[i / (s.p * s.q) % s.k])).collect();
    let Rounded(round, tolerance) = passes[0];
    let [rounded_x, rounded_w] = [&x_values, &w_values].map(|values| wide_rounded(values, round));
    let once = reference::conv_forward(s, n, &rounded_x, &rounded_w, &start);
    assert_close(&format!("y, {name}"), &written(backend, &name, &y, out_maps), &once, tolerance);
    backend.conv_forward(s, n, &x, &w, Some(&bias), &mut y).unwrap();
    backend.conv_forward(s, n, &x, &w, None, &mut y).unwrap();
    let twice = reference::conv_forward(s, n, &rounded_x, &rounded_w, &once);
    assert_close(&format!("y of both blocks, {name}"), &written(backend, &name, &y, out_maps), &twice, tolerance);

    let keeps_bf16 = passes[0].1 == BF16_MAPS;
    if !is_first || !keeps_bf16 {
        let mut dx = output(backend, maps);
        backend.conv_backward_input(s, n, &dy, &w, &mut dx).unwrap();
        let Rounded(round, tolerance) = passes[1];
        let [rounded_dy, rounded_w] = [&dy_values, &w_values].map(|values| wide_rounded(values, round));
        let expected = reference::conv_backward_input(s, n, &rounded_dy, &rounded_w);
        assert_close(&format!("dx, {name}"), &written(backend, &name, &dx, maps), &expected, tolerance);
    }

    let mut dw = output(backend, filters);
    backend.conv_backward_weight(s, n, &x, &dy, &mut dw).unwrap();
    let Rounded(round, tolerance) = passes[2];
    let [rounded_x, rounded_dy] = [&x_values, &dy_values].map(|values| wide_rounded(values, round));
    let expected = reference::conv_backward_weight(s, n, &rounded_x, &rounded_dy);
    assert_close(&format!("dw, {name}"), &written(backend, &name, &dw, filters), &expected, tolerance);

    let mut dbias = output(backend, biases);
    backend.conv_backward_bias(s, n, &dy, &mut dbias).unwrap();
    let Rounded(round, tolerance) = passes[3];
    let expected = reference::backward_bias(s.k, s.p * s.q, &wide_rounded(&dy_values, round));
    assert_close(&format!("dbias, {name}"), &written(backend, &name, &dbias, biases), &expected, tolerance);
}

pub fn wide_rounded(values: &[f32], round: fn(f32) -> f32) -> Vec<f64> {
    values.iter().map(|&v| f64::from(round(v))).collect()
}

pub fn all_dense<B: Backend>(backend: &B, passes: Passes, batches: &[usize]) {
    for case in cases::small() {
        let Op::Dense(s) = case.op else { continue };
        for &n in batches {
            one_dense(backend, &s, n, passes);
        }
    }
}

/// `passes` as for [`one_convolution`].
pub fn one_dense<B: Backend>(backend: &B, s: &DenseShape, n: usize, passes: Passes) {
    let (conv, name) = (reference::as_conv(s), format!("{s:?} n={n}"));
    let shapes = [
        TensorShape::Maps(n, [s.inputs / s.pixels, s.pixels, 1]),
        TensorShape::Weights(*s),
        TensorShape::Values(s.outputs),
        TensorShape::Maps(n, [s.outputs, 1, 1]),
    ];
    let [maps, weights, biases, units] = shapes;
    let values = [0, 1, 2, 3].map(|i: usize| normals(shapes[i].elems(), 1., i as u64 + 1));
    let (x, dy) = (upload(backend, &values[0], maps), upload(backend, &values[3], units));
    let (w, bias) = (upload_param(backend, &values[1], weights), upload_param(backend, &values[2], biases));
    let rounded = |pass: usize| values.each_ref().map(|values| wide_rounded(values, passes[pass].0));

    let [rounded_x, rounded_w, ..] = rounded(0);
    let start: Vec<f64> = (0..units.elems()).map(|i| f64::from(values[2][i % s.outputs])).collect();
    let once = reference::conv_forward(&conv, n, &rounded_x, &rounded_w, &start);
    let twice = reference::conv_forward(&conv, n, &rounded_x, &rounded_w, &once);
    // What the softmax reads is kept in fp32.
    let (logits, sums) = (TensorShape::Logits(n, s.outputs), passes[2].1);
    for (is_logits, out, tolerance) in [(false, units, passes[0].1), (true, logits, sums)] {
        let mut y = output(backend, out);
        let both = DenseShape { logits: is_logits, ..*s };
        let one_block = DenseShape { blocks: 1, ..both };
        backend.dense_forward(&one_block, n, &x, &w, Some(&bias), &mut y).unwrap();
        assert_close(&format!("y, {name}"), &written(backend, &name, &y, out), &once, tolerance);
        backend.dense_forward(&both, n, &x, &w, Some(&bias), &mut y).unwrap();
        backend.dense_forward(&both, n, &x, &w, None, &mut y).unwrap();
        assert_close(&format!("y of both blocks, {name}"), &written(backend, &name, &y, out), &twice, tolerance);
    }

    let mut dx = output(backend, maps);
    backend.dense_backward_input(s, n, &dy, &w, &mut dx).unwrap();
    let [_, rounded_w, _, rounded_dy] = rounded(1);
    let expected = reference::conv_backward_input(&conv, n, &rounded_dy, &rounded_w);
    assert_close(&format!("dx, {name}"), &written(backend, &name, &dx, maps), &expected, passes[1].1);

    let mut dw = output(backend, weights);
    backend.dense_backward_weight(s, n, &x, &dy, &mut dw).unwrap();
    let [rounded_x, _, _, rounded_dy] = rounded(2);
    let expected = reference::conv_backward_weight(&conv, n, &rounded_x, &rounded_dy);
    assert_close(&format!("dw, {name}"), &written(backend, &name, &dw, weights), &expected, passes[2].1);

    let mut dbias = output(backend, biases);
    backend.dense_backward_bias(s, n, &dy, &mut dbias).unwrap();
    let expected = reference::backward_bias(s.outputs, 1, &rounded(3)[3]);
    assert_close(&format!("dbias, {name}"), &written(backend, &name, &dbias, biases), &expected, passes[3].1);
}
