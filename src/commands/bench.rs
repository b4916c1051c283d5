//! `bench`: speed by layer and pass, compared with the machine's peak and with PyTorch, in alternating steps.

use std::time::Instant;

use crate::backend::{AugmentShape, Backend, Window};
use crate::config::Recipe;
use crate::data::{Batch, Images};
use crate::engine::pair::Pair;
use crate::engine::times::Activity;
use crate::engine::times::StreamTimes;
use crate::error::{Error, Result};
use crate::net::plan::{Op, Param, Plan, PlannedLayer};
use crate::net::spec::Net;
use crate::net::swap::Pass;
use crate::rng::{Philox, Purpose};
use alexnet_split_cpu::peak::{measure_peak_gb_per_s, measure_peak_gflops};
use alexnet_split_cpu::simd;

use super::bench_report::{LayerReport, PeerReport, Report};
use super::device_flags::{self, Devices, on_devices};
use super::peer::Peer;
use crate::cli::BenchArgs;

pub fn bench(args: &BenchArgs) -> Result<()> {
    let before: Option<Report> = args.compare.as_deref().map(read_report).transpose()?;
    let recipe = super::recipe(&args.recipe, "paper")?;
    let net = Net::from_options(&recipe.net)?;
    let n = recipe.train.batch_size;
    let devices = device_flags::choose(&args.device, recipe.train.precision, net.streams);
    let threads = args.device.threads.map_or_else(rayon::current_num_threads, usize::from);
    let (batch, input, mean) = random_batch(&net, n);
    let options = device_flags::gpu_options(&args.device, recipe.train.precision);
    let (on_cpu, precision) = match devices {
        Devices::Cpu { precision, .. } => (true, precision),
        Devices::Gpus(_) => (false, options.precision),
    };
    let start_peer = |python| Peer::start(python, on_cpu, precision, n, threads, net.classes(), args.inference);
    let (plans, times, device, peer, ours_ms, theirs_ms) =
        on_devices!(devices, options, net.streams, |contexts, about| {
            let mut peer = args.pytorch.as_deref().map(start_peer).transpose()?;
            let mut pair = Pair::new(&net, contexts, None, n, recipe.state_names().len(), recipe.train.dropout)?;
            pair.set_input(&input, &mean)?;
            pair.init(recipe.train.seed, recipe.init.weights, recipe.init.biases)?;
            let [ours_ms, theirs_ms] = measure(args, &recipe, &mut pair, &batch, peer.as_mut())?;
            (pair.running().to_vec(), pair.times()?, about, peer, ours_ms, theirs_ms)
        });
    let speed = |ms: &[f64]| n as f64 * 1e3 / median(ms);
    let images_per_s = speed(&ours_ms);
    let report = Report {
        device,
        instructions: simd::describe(),
        recipe: recipe.name.clone(),
        batch_size: n,
        inference: args.inference,
        images_per_s,
        gflops: flops_per_image(&plans, args.inference) * images_per_s / 1e9,
        step_ms: ours_ms,
        peak_gflops: on_cpu.then(|| measure_peak_gflops(threads, precision)),
        peak_gb_per_s: on_cpu.then(|| measure_peak_gb_per_s(threads)),
        layers: if args.inference { Vec::new() } else { layer_reports(&plans, &times, n) },
        pytorch: peer.as_ref().map(|peer| PeerReport {
            about: peer.about.clone(),
            images_per_s: speed(&theirs_ms),
            ratio: images_per_s / speed(&theirs_ms),
            step_ms: theirs_ms.clone(),
        }),
    };
    if args.json {
        outln!("{}", serde_json::json!(report));
        return Ok(());
    }
    report.print();
    if let Some(before) = &before {
        report.print_compared(before);
    }
    Ok(())
}

/// Steps that are timed at once where the device queues its work: waiting for each would leave it idle in between.
pub const STEPS_AT_ONCE: u64 = 8;

/// Runs the steps, alternating with PyTorch's; returns the milliseconds of ours and of PyTorch's, without the first.
fn measure<B: Backend>(
    args: &BenchArgs,
    recipe: &Recipe,
    pair: &mut Pair<B>,
    batch: &Batch,
    mut peer: Option<&mut Peer>,
) -> Result<[Vec<f64>; 2]> {
    let [mut ours_ms, mut theirs_ms] = [Vec::new(), Vec::new()];
    let at_once = if B::QUEUES { STEPS_AT_ONCE } else { 1 };
    for turn in 0..=u64::from(args.steps) {
        let start = Instant::now();
        for step in turn * at_once..(turn + 1) * at_once {
            if args.inference {
                pair.evaluate(batch)?;
                continue;
            }
            let hyper = |param: &Param| recipe.update(param, 0, recipe.optimizer.lr * 1e-3, step + 1);
            pair.train_step::<()>(batch, recipe.train.seed, step, |_| None, hyper)?;
        }
        pair.settle()?;
        if turn == 0 {
            pair.reset_times(); // the warm-up
            continue;
        }
        ours_ms.push(start.elapsed().as_secs_f64() * 1e3 / at_once as f64);
        if let Some(peer) = &mut peer {
            theirs_ms.push(peer.steps(at_once)?);
        }
    }
    Ok([ours_ms, theirs_ms])
}

/// A report that `bench --json` has written.
fn read_report(path: &std::path::Path) -> Result<Report> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|error| {
        Error::data(path, format!("is not the output of bench --json ({error}); give a file that it has written"))
    })
}

/// By direct convolution: the forward pass; in training the weight gradient too, and the input gradient but for the
/// first layer.
fn flops_per_image(plans: &[Plan], inference: bool) -> f64 {
    let layers = || plans.iter().flat_map(|plan| &plan.layers);
    let macs: u64 = layers().map(|layer| layer.macs()).sum();
    let first: u64 = layers().filter(|layer| layer.reads_image()).map(|layer| layer.macs()).sum();
    2. * if inference { macs } else { 3 * macs - first } as f64
}

fn layer_reports(plans: &[Plan], times: &[StreamTimes], n: usize) -> Vec<LayerReport> {
    let report = |index: usize| {
        let layers = || plans.iter().map(|plan| (plan, &plan.layers[index]));
        let ms = Pass::ALL.map(|pass| {
            let ms = |times: &StreamTimes| {
                times.get(index, pass, Activity::Compute).as_secs_f64() * 1e3 / times.steps.max(1) as f64
            };
            times.iter().map(ms).fold(0., f64::max)
        });
        let macs: u64 = layers().map(|(_, layer)| layer.macs()).sum();
        let rate = |amount: u64, pass: Pass| (amount > 0).then(|| amount as f64 / (ms[pass as usize] * 1e6));
        let gflops = Pass::ALL.map(|pass| {
            let products = match pass {
                Pass::Forward => 1,
                Pass::Backward if plans[0].layers[index].reads_image() => 1,
                Pass::Backward => 2,
                Pass::Update => 0,
            };
            rate(2 * products * macs * n as u64, pass)
        });
        let gb_per_s =
            Pass::ALL.map(|pass| rate(layers().map(|(plan, layer)| bytes(plan, layer, pass, n)).sum(), pass));
        LayerReport { layer: plans[0].layers[index].name.to_string(), ms, gflops, gb_per_s }
    };
    (0..plans[0].layers.len()).map(report).collect()
}

/// The bytes that a pass without products must read and write at least.
fn bytes(plan: &Plan, layer: &PlannedLayer, pass: Pass, n: usize) -> u64 {
    let elems = |slot: usize| plan.shape(slot, n).elems();
    let (ins, outs) = (elems(layer.x), elems(layer.y));
    let elems = match (&layer.op, pass) {
        (Op::Activation(..) | Op::Dropout(_), Pass::Forward) => 2 * outs,
        (Op::Dropout(_), Pass::Backward) => 2 * outs,
        (Op::Activation(..), Pass::Backward) => 3 * outs,
        (Op::Lrn(_) | Op::SpatialLrn(_) | Op::MaxPool(_) | Op::AvgPool(_) | Op::ReluLrnMaxPool(..), Pass::Forward) => {
            ins + outs
        }
        (Op::AvgPool(_), Pass::Backward) => ins + outs,
        (Op::Lrn(_) | Op::SpatialLrn(_), Pass::Backward) => 3 * ins,
        (Op::MaxPool(_) | Op::ReluLrnMaxPool(..), Pass::Backward) => 2 * ins + 2 * outs,
        _ => 0,
    };
    (elems * size_of::<f32>()) as u64
}

/// Random bytes of the network's size, to be uploaded and turned into floats in every step as in training.
fn random_batch(net: &Net, n: usize) -> (Batch, AugmentShape, Vec<f32>) {
    let [c, h, w] = net.image;
    let rng = Philox::new(1, Purpose::Check, 2);
    let words = (0..(n * c * h * w).div_ceil(16) as u32).flat_map(|i| rng.block([i, 0, 0, 0]));
    let pixels = words.flat_map(u32::to_le_bytes).take(n * c * h * w).collect();
    let images = Images::Bytes(pixels, vec![Window::default(); n]);
    let labels = (0..n).map(|i| (i % net.classes()) as u32).collect();
    (
        Batch { images, labels },
        AugmentShape { c, side: h, resize: h, channels: c, size: h, scale: 1., centred_mean: false },
        vec![128.; c * h * w],
    )
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
