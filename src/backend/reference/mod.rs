//! The reference: every operation as simply as it can be written, in f64 on one core. The code to read first, and the
//! standard that the fast operations are compared with; `--backend reference` trains with it, for tiny networks.
//!
//! `crates/cpu/src/definitions.rs` has the formulas; here they are given the buffers of [`Backend`], whose methods say
//! what each one computes.

pub use alexnet_split_cpu::definitions;
use definitions::{as_conv, wide};

use super::*;

type Floats = Vec<f32>;

/// Writes the start of a buffer; what lies beyond it stays.
fn put(values: &[f64], to: &mut Floats) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to = *value as f32);
}

pub(super) fn augment(shape: &AugmentShape, pixels: &[u8], windows: &[Window], mean: &Floats, y: &mut Floats) {
    put(&definitions::augment(shape, pixels, windows, mean), y);
}

pub(super) fn conv_forward(s: &ConvShape, n: usize, x: &Floats, w: &Floats, bias: Option<&Floats>, y: &mut Floats) {
    let (pixels, elems) = (s.p * s.q, n * s.k * s.p * s.q);
    let start = |i: usize| f64::from(bias.map_or(y[i], |bias| bias[i / pixels % s.k]));
    let start: Vec<f64> = (0..elems).map(start).collect();
    put(&definitions::conv_forward(s, n, &wide(x), &wide(w), &start), y);
}

pub(super) fn conv_backward_input(s: &ConvShape, n: usize, dy: &Floats, w: &Floats, dx: &mut Floats) {
    put(&definitions::conv_backward_input(s, n, &wide(dy), &wide(w)), dx);
}

pub(super) fn conv_backward_weight(s: &ConvShape, n: usize, x: &Floats, dy: &Floats, dw: &mut Floats) {
    put(&definitions::conv_backward_weight(s, n, &wide(x), &wide(dy)), dw);
}

pub(super) fn conv_backward_bias(s: &ConvShape, n: usize, dy: &Floats, dbias: &mut Floats) {
    let elems = n * s.k * s.p * s.q;
    put(&definitions::backward_bias(s.k, s.p * s.q, &wide(&dy[..elems])), dbias);
}

pub(super) fn dense_forward(s: &DenseShape, n: usize, x: &Floats, w: &Floats, bias: Option<&Floats>, y: &mut Floats) {
    conv_forward(&as_conv(s), n, x, w, bias, y);
}

pub(super) fn dense_backward_input(s: &DenseShape, n: usize, dy: &Floats, w: &Floats, dx: &mut Floats) {
    conv_backward_input(&as_conv(s), n, dy, w, dx);
}

pub(super) fn dense_backward_weight(s: &DenseShape, n: usize, x: &Floats, dy: &Floats, dw: &mut Floats) {
    conv_backward_weight(&as_conv(s), n, x, dy, dw);
}

pub(super) fn dense_backward_weight_update(
    s: &DenseShape,
    n: usize,
    x: &Floats,
    dy: &Floats,
    by: &Update,
    w: &mut Floats,
    state: &mut [Floats],
) {
    let mut dw = vec![0.; s.inputs * s.outputs];
    dense_backward_weight(s, n, x, dy, &mut dw);
    update(by, dw.len(), &dw, w, state);
}

pub(super) fn dense_backward_bias(s: &DenseShape, n: usize, dy: &Floats, dbias: &mut Floats) {
    conv_backward_bias(&as_conv(s), n, dy, dbias);
}

pub(super) fn activation_forward(kind: Activation, shape: impl Into<TensorShape>, y: &mut Floats) {
    for y in &mut y[..shape.into().elems()] {
        *y = match kind {
            Activation::Relu if *y < 0. => 0.,
            Activation::Relu => *y, // NaN too: a diverged run must be seen in the loss
            Activation::Tanh => f64::from(*y).tanh() as f32,
            Activation::Sigmoid => (1. / (1. + f64::from(-*y).exp())) as f32,
        };
    }
}

pub(super) fn activation_backward(kind: Activation, shape: impl Into<TensorShape>, y: &Floats, dy: &mut Floats) {
    for (dy, y) in dy[..shape.into().elems()].iter_mut().zip(y) {
        *dy *= match kind {
            Activation::Relu => f32::from(u8::from(*y > 0.)),
            Activation::Tanh => 1. - y * y,
            Activation::Sigmoid => y * (1. - y),
        };
    }
}

pub(super) fn lrn_forward(s: &LrnShape, n: usize, x: &Floats, y: &mut Floats) {
    put(&definitions::lrn_forward(s, &wide(&x[..n * s.c * s.pixels])), y);
}

pub(super) fn lrn_backward(s: &LrnShape, n: usize, x: &Floats, dy: &Floats, dx: &mut Floats) {
    let elems = n * s.c * s.pixels;
    put(&definitions::lrn_backward(s, &wide(&x[..elems]), &wide(&dy[..elems])), dx);
}

pub(super) fn spatial_lrn_forward(s: &SpatialLrnShape, n: usize, x: &Floats, y: &mut Floats) {
    put(&definitions::spatial_lrn_forward(s, &wide(&x[..n * s.norm.c * s.norm.pixels])), y);
}

pub(super) fn spatial_lrn_backward(s: &SpatialLrnShape, n: usize, x: &Floats, dy: &Floats, dx: &mut Floats) {
    let elems = n * s.norm.c * s.norm.pixels;
    put(&definitions::spatial_lrn_backward(s, &wide(&x[..elems]), &wide(&dy[..elems])), dx);
}

pub(super) fn max_pool_forward(s: &PoolShape, n: usize, x: &Floats, y: &mut Floats) {
    let places = definitions::max_pool_places(s, n, x);
    places.iter().zip(y).for_each(|(&place, y)| *y = x[place]);
}

pub(super) fn max_pool_backward(s: &PoolShape, n: usize, x: &Floats, _y: &Floats, dy: &Floats, dx: &mut Floats) {
    put(&definitions::max_pool_backward(s, n, x, &wide(dy)), dx);
}

pub(super) fn avg_pool_forward(s: &PoolShape, n: usize, x: &Floats, y: &mut Floats) {
    put(&definitions::avg_pool_forward(s, n, &wide(x)), y);
}

pub(super) fn avg_pool_backward(s: &PoolShape, n: usize, dy: &Floats, dx: &mut Floats) {
    put(&definitions::avg_pool_backward(s, n, &wide(dy)), dx);
}

/// The activation and its normalization, between which nothing is kept.
fn relu_lrn(lrn: &LrnShape, n: usize, x: &Floats) -> [Floats; 2] {
    let mut activated = x[..n * lrn.c * lrn.pixels].to_vec();
    activation_forward(Activation::Relu, activated.len(), &mut activated);
    let mut normalized = activated.clone();
    lrn_forward(lrn, n, &activated, &mut normalized);
    [activated, normalized]
}

pub(super) fn relu_lrn_max_pool_forward(lrn: &LrnShape, pool: &PoolShape, n: usize, x: &Floats, y: &mut Floats) {
    let [_, normalized] = relu_lrn(lrn, n, x);
    max_pool_forward(pool, n, &normalized, y);
}

pub(super) fn relu_lrn_max_pool_backward(
    lrn: &LrnShape,
    pool: &PoolShape,
    n: usize,
    x: &mut Floats,
    y: &Floats,
    dy: &Floats,
) {
    let [activated, normalized] = relu_lrn(lrn, n, x);
    let mut by_normalized = vec![0.; normalized.len()];
    max_pool_backward(pool, n, &normalized, y, dy, &mut by_normalized);
    let mut dx = by_normalized.clone();
    lrn_backward(lrn, n, &activated, &by_normalized, &mut dx);
    activation_backward(Activation::Relu, dx.len(), &activated, &mut dx);
    x[..dx.len()].copy_from_slice(&dx);
}

pub(super) fn dropout_forward(s: &DropoutShape, n: usize, draw: &DropoutDraw, x: &Floats, y: &mut Floats) {
    y[..n * s.elems].copy_from_slice(&x[..n * s.elems]);
    dropout_backward(s, n, draw, y);
}

pub(super) fn dropout_backward(s: &DropoutShape, n: usize, draw: &DropoutDraw, dy: &mut Floats) {
    for (i, dy) in dy[..n * s.elems].iter_mut().enumerate() {
        let (image, unit) = (i / s.elems, s.first_unit + i % s.elems);
        let is_kept = draw.mask.is_none_or(|(rng, step)| {
            let words = rng.block([(unit / 4) as u32, image as u32, step as u32, (step >> 32) as u32]);
            u64::from(words[unit % 4]) < s.threshold()
        });
        *dy = if is_kept { *dy * draw.factor(s.keep) } else { 0. };
    }
}

pub(super) fn softmax_stats(s: &SoftmaxShape, n: usize, logits: &Floats, labels: &[u32], stats: &mut Floats) {
    for image in 0..n {
        let row = &logits[image * s.classes..][..s.classes];
        let max = row.iter().copied().fold(f32::NEG_INFINITY, |max, v| if v > max || v.is_nan() { v } else { max });
        let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
        let label = (labels[image] as usize).checked_sub(s.first).and_then(|class| row.get(class));
        let found = [max, sum as f32, label.copied().unwrap_or(f32::NEG_INFINITY)];
        stats[image * SoftmaxShape::STATS..][..SoftmaxShape::STATS].copy_from_slice(&found);
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn softmax_cross_entropy(
    s: &SoftmaxShape,
    n: usize,
    logits: &Floats,
    labels: &[u32],
    ours: &Floats,
    theirs: Option<&Floats>,
    dlogits: &mut Floats,
    scores: &mut Floats,
) {
    for image in 0..n {
        // Of all classes: those of both streams. Sums of two terms do not depend on their order.
        let parts = [Some(ours), theirs].into_iter().flatten().map(|stats| &stats[image * SoftmaxShape::STATS..]);
        let parts: Vec<[f32; 3]> = parts.map(|part| [part[0], part[1], part[2]]).collect();
        let max =
            parts.iter().map(|[max, ..]| *max).fold(f32::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b });
        let sum: f64 = parts.iter().map(|[part_max, sum, _]| f64::from(*sum) * f64::from(part_max - max).exp()).sum();
        let label_logit = parts.iter().map(|[.., label]| *label).fold(f32::NEG_INFINITY, f32::max);
        let (row, label) = (&logits[image * s.classes..][..s.classes], labels[image] as usize);
        let mut above = 0;
        for (class, &logit) in row.iter().enumerate() {
            let (at, class) = (image * s.classes + class, s.first + class);
            let one_hot = f64::from(u8::from(class == label));
            dlogits[at] = ((f64::from(logit - max).exp() / sum - one_hot) / n as f64) as f32;
            above += usize::from(logit > label_logit || (logit == label_logit && class < label));
        }
        let loss = sum.ln() + f64::from(max) - f64::from(label_logit);
        scores[image * 2..][..2].copy_from_slice(&[loss as f32, above as f32]);
    }
}

pub(super) fn add(shape: impl Into<TensorShape>, x: &Floats, y: &mut Floats) {
    y[..shape.into().elems()].iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

pub(super) fn update(
    update: &Update,
    shape: impl Into<TensorShape>,
    dw: &Floats,
    w: &mut Floats,
    state: &mut [Floats],
) {
    let elems = shape.into().elems();
    match (*update, state) {
        (Update::Sgd { lr, momentum, weight_decay }, [v]) => {
            for i in 0..elems {
                v[i] = momentum * v[i] - weight_decay * lr * w[i] - lr * dw[i];
                w[i] += v[i];
            }
        }
        (Update::Adam { beta1, beta2, epsilon, weight_decay, .. }, [m, v]) => {
            let [rate, root] = update.adam_factors();
            for i in 0..elems {
                let gradient = dw[i] + weight_decay * w[i];
                m[i] = beta1 * m[i] + (1. - beta1) * gradient;
                v[i] = beta2 * v[i] + (1. - beta2) * gradient * gradient;
                w[i] -= rate * m[i] / (v[i].sqrt() / root + epsilon);
            }
        }
        (_, state) => unreachable!("the stream gives each optimizer its {} state tensors", state.len()),
    }
}
