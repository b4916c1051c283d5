//! Convolutions and dense layers, and what of them is computed with rounded factors.

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::backend::reference::definitions::{self as reference, wide};
use alexnet_split::backend::*;

use crate::support::tolerance::{OPERATION, TENSOR_CORE, WINOGRAD_BF16, assert_close};
use crate::support::{self, normals};
use crate::{output, upload, written};

/// Tensor cores: exactly the products of rounded factors, summed in fp32.
mod tensor_cores {
    use super::*;
    use crate::support::{round_to_bf16, round_to_tf32};

    #[test]
    fn tf32() {
        if let Some(backend) = support::softgpu::backend(Precision::Tf32) {
            products(&backend, Rounded(round_to_tf32, TENSOR_CORE));
        }
    }

    #[test]
    fn bf16() {
        if let Some(backend) = support::softgpu::backend(Precision::Bf16) {
            products(&backend, Rounded(round_to_bf16, TENSOR_CORE));
        }
    }
}

/// What happens to a product's factors, and how near the sums must come.
#[derive(Clone, Copy)]
struct Rounded(fn(f32) -> f32, f64);

/// The CPU's products of bf16, for which it must have instructions.
#[test]
fn bf16_on_the_cpu() {
    let Ok(backends) = CpuBackend::for_streams(1, 2, Precision::Bf16) else {
        eprintln!("skipped: this CPU has no AVX512_BF16");
        return;
    };
    let (backend, rounded) = (&backends[0], Rounded(support::round_to_bf16, OPERATION));
    all_dense(backend, rounded);
    let exact = Rounded(|v| v, OPERATION);
    let few = Rounded(|v| v, WINOGRAD_BF16);
    for s in fast_on_cpu() {
        // The gradient by the image, which the network does not need, is computed in fp32.
        let passes = if s.r == 11 { [rounded, exact, rounded] } else { [few; 3] };
        for n in [1, 3, 17] {
            one_convolution(backend, &s, n, passes);
        }
    }
    let odd = conv_shape(5, [9, 7], 6, 5, 1, 2, false); // unrolled: fp32 too
    one_convolution(backend, &odd, 3, [exact; 3]);
}

fn conv_shape(
    c: usize,
    size: [usize; 2],
    k: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    round_up: bool,
) -> ConvShape {
    let out = |size: usize| {
        let room = size + 2 * pad - kernel;
        1 + if round_up { room.div_ceil(stride) } else { room / stride }
    };
    let [h, w] = size;
    ConvShape { c, h, w, k, r: kernel, s: kernel, p: out(h), q: out(w), stride, pad }
}

pub fn convolution<B: Backend>(backend: &B) {
    all_convolutions(backend, Rounded(|v| v, OPERATION));
}

pub fn dense<B: Backend>(backend: &B) {
    all_dense(backend, Rounded(|v| v, OPERATION));
}

fn products<B: Backend>(backend: &B, rounded: Rounded) {
    all_convolutions(backend, rounded);
    all_dense(backend, rounded);
}

/// Those for which the CPU has ways of its own.
fn fast_on_cpu() -> [ConvShape; 6] {
    [
        conv_shape(3, [67, 71], 48, 11, 4, 0, true), // patches are read where they lie
        conv_shape(1, [50, 61], 16, 11, 4, 2, false),
        conv_shape(32, [13, 13], 48, 3, 1, 1, false), // few multiplications
        conv_shape(16, [9, 14], 32, 3, 1, 0, false),
        conv_shape(16, [27, 27], 16, 5, 1, 2, false),
        conv_shape(48, [10, 7], 16, 5, 1, 3, false),
    ]
}

fn all_convolutions<B: Backend>(backend: &B, rounded: Rounded) {
    let shapes = [
        conv_shape(1, [5, 5], 1, 1, 1, 0, false),
        conv_shape(3, [23, 26], 5, 11, 4, 0, true), // the last window reads beyond the image
        conv_shape(3, [27, 27], 8, 11, 4, 2, false),
        conv_shape(2, [30, 31], 4, 11, 4, 1, false), // the last pixels are read by no window
        conv_shape(5, [9, 7], 6, 5, 1, 2, false),
        conv_shape(16, [13, 13], 24, 3, 1, 1, false),
        conv_shape(128, [6, 6], 16, 3, 1, 1, false), // rows of the weight gradient alias in the cache
        conv_shape(4, [8, 8], 3, 3, 2, 1, false),
        conv_shape(2, [6, 7], 70, 3, 1, 1, false), // more filters than a tile has rows
        conv_shape(1, [1, 1], 2, 3, 1, 1, false),  // most taps lie outside
    ];
    // Software GPUs have no other ways for these, and would take minutes.
    let fast = fast_on_cpu();
    let shapes = shapes.iter().chain(if B::QUEUES { &[][..] } else { &fast });
    for s in shapes {
        for n in [1, 3, 17] {
            one_convolution(backend, s, n, [rounded; 3]);
        }
    }
}

/// `passes`: forward, backward input, backward weight.
fn one_convolution<B: Backend>(backend: &B, s: &ConvShape, n: usize, passes: [Rounded; 3]) {
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

fn all_dense<B: Backend>(backend: &B, rounded: Rounded) {
    for (inputs, outputs) in [(1, 1), (7, 5), (128, 384), (384, 385), (769, 512), (1152, 300)] {
        for n in [1, 3, 17] {
            one_dense(backend, &DenseShape { inputs, outputs }, n, rounded);
        }
    }
}

fn one_dense<B: Backend>(backend: &B, s: &DenseShape, n: usize, Rounded(round, tolerance): Rounded) {
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
