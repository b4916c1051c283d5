//! The same bits on every run and for any number of threads.

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::backend::{DropoutScaling, Update};
use alexnet_split::engine::pair::Pair;
use alexnet_split::engine::stream::Tensor;
use alexnet_split::net::init::{BiasInit, WeightInit};
use alexnet_split::net::options::NetOptions;
use alexnet_split::net::spec::Net;

use crate::support;

/// The bits of all parameters of all streams after three steps.
fn trained(options: &NetOptions, threads: usize, seed: u64) -> Vec<u32> {
    let (net, pair) = support::pair(options, 9, threads);
    trained_pair(&net, pair, seed)
}

fn trained_pair(net: &Net, mut pair: Pair<CpuBackend>, seed: u64) -> Vec<u32> {
    let batch = support::batch(net, 9, 1.);
    for step in 0..3 {
        let (_, fault) = pair.train_step(&batch, seed, step, |_| None::<()>, |_| SGD).unwrap();
        assert_eq!(fault, None);
    }
    bits(net, &mut pair)
}

const SGD: Update = Update::Sgd { lr: 0.01, momentum: 0.9, weight_decay: 0.0005 };

fn bits(net: &Net, pair: &mut Pair<CpuBackend>) -> Vec<u32> {
    let mut bits = Vec::new();
    for stream in 0..net.streams {
        for param in 0..pair.plans()[stream].params.len() {
            let values = pair.stream(stream).read_param(param, Tensor::Value).unwrap();
            bits.extend(values.iter().map(|v| v.to_bits()));
        }
    }
    bits
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for streams in [1, 2] {
        // Dense layers of more than one block, so that threads have something to share.
        let options =
            NetOptions { streams: Some(streams), dense_units: Some(vec![1000, 900]), ..support::tiny_options() };
        let one = trained(&options, 1, 3);
        for threads in [1, 2, 3, 5] {
            assert!(trained(&options, threads, 3) == one, "{streams} streams, {threads} threads");
        }
        assert!(trained(&options, 2, 4) != one, "another seed draws other dropout masks");
    }
    // Channels as the fast convolutions want them.
    let options = NetOptions { conv_channels: Some(vec![32, 64, 96, 64, 32]), ..support::tiny_options() };
    let one = trained(&options, 1, 3);
    for threads in [2, 4, 5] {
        assert!(trained(&options, threads, 3) == one, "{threads} threads");
    }
    let Some((net, pair)) = support::pair_in_bf16(&options, 9, 1) else { return };
    let rounded = trained_pair(&net, pair, 3);
    assert!(rounded != one);
    for threads in [2, 5] {
        let (net, pair) = support::pair_in_bf16(&options, 9, threads).unwrap();
        assert!(trained_pair(&net, pair, 3) == rounded, "{threads} threads, bf16");
    }
}

#[test]
fn a_step_is_its_passes_and_an_update() {
    let adam = Update::Adam { lr: 0.001, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, step: 1 };
    for (streams, update, states) in [(1, SGD, 1), (2, SGD, 1), (2, adam, 2)] {
        let options =
            NetOptions { streams: Some(streams), dense_units: Some(vec![300, 270]), ..support::tiny_options() };
        let net = Net::from_options(&options).unwrap();
        let batch = support::batch(&net, 9, 1.);
        let [mut whole, mut parts] = [(); 2].map(|()| {
            let mut pair = Pair::on_cpu(&net, 9, states, 2, DropoutScaling::Test).unwrap();
            pair.init(1, WeightInit::He, BiasInit::Zero).unwrap();
            pair
        });
        for step in 0..3 {
            let (result, _) = whole.train_step(&batch, 5, step, |_| None::<()>, |_| update).unwrap();
            assert_eq!(parts.forward_backward(&batch, 5, step).unwrap(), result);
            parts.update(|_| update).unwrap();
        }
        let before = bits(&net, &mut whole);
        assert!(before == bits(&net, &mut parts), "{streams} streams, {update:?}");
        // A loss that is refused changes nothing, and leaves gradients to look at.
        let (_, fault) = whole.train_step(&batch, 5, 3, |_| Some("refused"), |_| update).unwrap();
        assert_eq!(fault, Some("refused"));
        assert!(bits(&net, &mut whole) == before);
        parts.forward_backward(&batch, 5, 3).unwrap();
        for stream in 0..streams {
            for param in 0..whole.plans()[stream].params.len() {
                let [ours, theirs] = [&mut whole, &mut parts]
                    .map(|pair| pair.stream(stream).read_param(param, Tensor::Gradient).unwrap());
                assert!(ours == theirs && ours.iter().any(|&value| value != 0.), "stream {stream} parameter {param}");
            }
        }
    }
}
