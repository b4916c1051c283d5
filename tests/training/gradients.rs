//! Finite differences: through the whole pair, the exchange included, in every layer kind; and of the definitions that
//! every device's operations are compared with.

use alexnet_split::backend::ConvShape;
use alexnet_split::backend::reference::definitions::{self, wide};
use alexnet_split::net::options::NetOptions;
use alexnet_split::net::plan::Op;
use alexnet_split::net::spec::{Activation, Placement};
use alexnet_split::train::check_grads::check_grads;

use crate::support;

fn check(options: &NetOptions) {
    let (net, mut pair) = support::pair(options, 6, 2);
    let batch = support::batch(&net, 6, 1.);
    let checks = check_grads(&mut pair, &batch, 3).unwrap();
    let parameters: usize = pair.plans().iter().map(|plan| plan.params.len()).sum();
    assert!(checks.len() > 2 * parameters, "{} checks of {parameters} parameters", checks.len());
    let failed: Vec<_> = checks.iter().filter(|check| !check.passes()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn two_streams_with_split_fc8() {
    check(&support::tiny_options());
}

#[test]
fn two_streams_with_fc8_on_stream_0() {
    check(&NetOptions { fc8: Some(Placement::Stream0), ..support::tiny_options() });
}

#[test]
fn tanh_and_pooling_without_overlap() {
    check(&NetOptions { activation: Some(Activation::Tanh), pool: Some("2/2".into()), ..support::tiny_options() });
}

#[test]
fn one_stream_without_normalization() {
    check(&NetOptions { streams: Some(1), lrn: Some(false), ..support::tiny_options() });
}

#[test]
fn the_textbook_tables() {
    check(&NetOptions { layers: support::layers_of("fashion"), ..support::tiny_options() });
    check(&NetOptions { layers: support::layers_of("half"), ..support::tiny_options() });
}

#[test]
fn sigmoids_and_means() {
    let options = NetOptions {
        layers: support::layers_of("lenet"),
        image_size: Some(28),
        conv_channels: None,
        dense_units: None,
        ..support::tiny_options()
    };
    check(&options);
}

/// Whether `dx` is the gradient of `sum(dy * f(x))`: along a random direction, against central differences in f64.
fn assert_gradient(name: &str, x: &[f64], dy: &[f64], dx: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) {
    const STEP: f64 = 1e-5;
    let direction = wide(&support::normals(x.len(), 1., 99));
    let value = |step: f64| {
        let moved: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
        f(&moved).iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>()
    };
    let found = (value(STEP) - value(-STEP)) / (2. * STEP);
    let expected: f64 = dx.iter().zip(&direction).map(|(dx, d)| dx * d).sum();
    let scale = dx.iter().map(|v| v * v).sum::<f64>().sqrt();
    assert!((found - expected).abs() < 1e-6 * scale, "{name}: {found}, the gradient says {expected}");
}

#[test]
fn the_definitions_gradients_are_those_of_their_forward_passes() {
    let random = |elems: usize, seed: u64| wide(&support::normals(elems, 1., seed));
    let mut checked = 0;
    for case in support::cases::small() {
        let (n, name) = (2, format!("{:?}", case.op));
        match case.op {
            Op::Conv(s) => check_products(&name, &s, n),
            Op::Dense(s) => check_products(&name, &definitions::as_conv(&s), n),
            Op::Lrn(s) => {
                let elems = n * s.c * s.pixels;
                let (x, dy) = (random(elems, 1), random(elems, 2));
                let dx = definitions::lrn_backward(&s, &x, &dy);
                assert_gradient(&name, &x, &dy, &dx, |x| definitions::lrn_forward(&s, x));
            }
            Op::SpatialLrn(s) => {
                let elems = n * s.norm.c * s.norm.pixels;
                let (x, dy) = (random(elems, 1), random(elems, 2));
                let dx = definitions::spatial_lrn_backward(&s, &x, &dy);
                assert_gradient(&name, &x, &dy, &dx, |x| definitions::spatial_lrn_forward(&s, x));
            }
            Op::AvgPool(s) => {
                let (x, dy) = (random(n * s.c * s.h * s.w, 1), random(n * s.c * s.p * s.q, 2));
                let dx = definitions::avg_pool_backward(&s, n, &dy);
                assert_gradient(&name, &x, &dy, &dx, |x| definitions::avg_pool_forward(&s, n, x));
            }
            // Its gradient goes to the places of the maxima, which the operations' tests compare.
            _ => continue,
        }
        checked += 1;
    }
    assert!(checked > 30, "{checked} cases");
    for (classes, labels) in [(7, [0, 6, 3]), (2, [1, 0, 0])] {
        let logits = random(3 * classes, 3);
        let (_, gradient) = definitions::softmax_cross_entropy(classes, &logits, &labels);
        // The gradient is that of the mean.
        let loss = |logits: &[f64]| definitions::softmax_cross_entropy(classes, logits, &labels).0;
        assert_gradient("softmax", &logits, &[1. / 3.; 3], &gradient, loss);
    }
}

fn check_products(name: &str, s: &ConvShape, n: usize) {
    let random = |elems: usize, seed: u64| wide(&support::normals(elems, 1., seed));
    let (x, w) = (random(n * s.c * s.h * s.w, 1), random(s.k * s.c * s.r * s.s, 2));
    let dy = random(n * s.k * s.p * s.q, 3);
    let zero = vec![0.; dy.len()];
    let dx = definitions::conv_backward_input(s, n, &dy, &w);
    assert_gradient(&format!("dx, {name}"), &x, &dy, &dx, |x| definitions::conv_forward(s, n, x, &w, &zero));
    let dw = definitions::conv_backward_weight(s, n, &x, &dy);
    assert_gradient(&format!("dw, {name}"), &w, &dy, &dw, |w| definitions::conv_forward(s, n, &x, w, &zero));
    let dbias = definitions::backward_bias(s.k, s.p * s.q, &dy);
    let of_bias = |bias: &[f64]| (0..dy.len()).map(|i| bias[i / (s.p * s.q) % s.k]).collect();
    assert_gradient(&format!("dbias, {name}"), &random(s.k, 4), &dy, &dbias, of_bias);
}
