//! Convolutions and dense layers, and what of them is computed with rounded factors.

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::backend::reference::definitions as reference;
use alexnet_split::backend::*;
use alexnet_split::net::plan::Op;

use crate::support::tolerance::{BF16_MAPS, OPERATION, TENSOR_CORE, WINOGRAD_BF16, assert_close};
use crate::support::{self, cases, normals};
use crate::{Stored, output, upload, upload_param, written};

/// Tensor cores: exactly the products of rounded factors, summed in fp32.
mod tensor_cores {
    use super::*;
    use crate::support::round_to_tf32;

    #[test]
    fn tf32() {
        if let Some(backend) = support::softgpu::backend(Precision::Tf32) {
            let tf32 = Rounded(round_to_tf32, TENSOR_CORE);
            products(&backend, [tf32, tf32, tf32, EXACT]);
        }
    }
}

/// The rounding of a product's operands, and the tolerance of its sums.
#[derive(Clone, Copy)]
struct Rounded(fn(f32) -> f32, f64);

/// What is computed exactly.
const EXACT: Rounded = Rounded(|v| v, OPERATION);

/// The CPU's products of bf16, for which it must have instructions.
#[test]
fn bf16_on_the_cpu() {
    let Ok(backends) = CpuBackend::for_streams(1, 2, Precision::Bf16) else {
        eprintln!("skipped: this CPU has no AVX512_BF16");
        return;
    };
    let (backend, rounded) = (&backends[0], Rounded(support::round_to_bf16, OPERATION));
    all_dense(backend, [rounded, rounded, rounded, EXACT]);
    let few = Rounded(|v| v, WINOGRAD_BF16);
    for case in cases::small() {
        let Op::Conv(s) = case.op else { continue };
        let passes = match case.is_small {
            true if s.c == 5 => [EXACT; 4], // unrolled: in fp32
            true => continue,
            false if s.r == 11 => [EXACT; 4], // in fp32, too
            false => [few, few, few, EXACT],
        };
        for n in [1, 3, 17] {
            one_convolution(backend, &s, n, passes);
        }
    }
}

fn passes(Stored(round, tolerance): Stored) -> [Rounded; 4] {
    let sums = if tolerance == OPERATION { tolerance } else { TENSOR_CORE };
    [Rounded(round, tolerance), Rounded(round, tolerance), Rounded(round, sums), Rounded(round, sums)]
}

pub fn convolution<B: Backend>(backend: &B, stored: Stored) {
    all_convolutions(backend, passes(stored));
}

pub fn dense<B: Backend>(backend: &B, stored: Stored) {
    all_dense(backend, passes(stored));
}

fn products<B: Backend>(backend: &B, passes: [Rounded; 4]) {
    all_convolutions(backend, passes);
    all_dense(backend, passes);
}

/// The paper's own shapes, one image.
#[test]
fn the_papers_layers() {
    let backend = CpuBackend::default();
    for case in cases::of_the_paper() {
        match case.op {
            Op::Conv(s) => one_convolution(&backend, &s, 1, [EXACT; 4]),
            Op::Dense(s) => one_dense(&backend, &s, 1, [EXACT; 4]),
            _ => {}
        }
    }
}

fn all_convolutions<B: Backend>(backend: &B, passes: [Rounded; 4]) {
    for case in cases::small().iter().filter(|case| case.is_small || !B::QUEUES) {
        let Op::Conv(s) = case.op else { continue };
        for n in [1, 3, 17] {
            one_convolution(backend, &s, n, passes);
        }
    }
}

/// `passes`: forward, backward input, backward weight, backward bias.
fn one_convolution<B: Backend>(backend: &B, s: &ConvShape, n: usize, passes: [Rounded; 4]) {
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

fn wide_rounded(values: &[f32], round: fn(f32) -> f32) -> Vec<f64> {
    values.iter().map(|&v| f64::from(round(v))).collect()
}

fn all_dense<B: Backend>(backend: &B, passes: [Rounded; 4]) {
    for case in cases::small() {
        let Op::Dense(s) = case.op else { continue };
        for n in [1, 3, 17] {
            one_dense(backend, &s, n, passes);
        }
    }
}

/// `passes` as for [`one_convolution`].
fn one_dense<B: Backend>(backend: &B, s: &DenseShape, n: usize, passes: [Rounded; 4]) {
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
