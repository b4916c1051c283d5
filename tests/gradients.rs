//! Finite differences through the whole pair, the exchange included, in every layer kind.

mod support;

use alexnet_split::net::spec::{Activation, NetOptions, Placement};
use alexnet_split::train::check_grads::check_grads;

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
