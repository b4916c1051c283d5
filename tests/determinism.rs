//! The same bits on every run and for any number of threads.

mod support;

use alexnet_split::backend::Update;
use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::net::pair::Pair;
use alexnet_split::net::spec::{Net, NetOptions};
use alexnet_split::net::stream::Tensor;

/// The bits of all parameters of all streams after three steps.
fn trained(options: &NetOptions, threads: usize, seed: u64) -> Vec<u32> {
    let (net, pair) = support::pair(options, 9, threads);
    trained_pair(&net, pair, seed)
}

fn trained_pair(net: &Net, mut pair: Pair<CpuBackend>, seed: u64) -> Vec<u32> {
    let batch = support::batch(net, 9, 1.);
    for step in 0..3 {
        pair.forward_backward(&batch, seed, step).unwrap();
        pair.update(|_| Update::Sgd { lr: 0.01, momentum: 0.9, weight_decay: 0.0005 }).unwrap();
    }
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
