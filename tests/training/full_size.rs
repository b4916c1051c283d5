//! Recipes at their own size against PyTorch in f64 (scripts/golden_full.py): from the bytes of images through the
//! loader, a session and both streams to losses. No image and no weight is stored; the script has the rules by which
//! they are drawn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::backend::{PoolShape, Precision};
use alexnet_split::config::Recipe;
use alexnet_split::data::loader::{Loader, Order};
use alexnet_split::data::{Batch, DataSet, ImageSet, Images};
use alexnet_split::engine::merge::merge;
use alexnet_split::engine::pair::{Pair, StreamContext};
use alexnet_split::engine::stream::Tensor;
use alexnet_split::net::plan::{Op, Plan, PlannedLayer};
use alexnet_split::net::spec::Net;
use alexnet_split::rng::{Philox, Purpose};
use alexnet_split::train::session::{Session, resolve};
use alexnet_split_cpu::conv::Way;
use serde::Deserialize;

use crate::golden::merged_records;
use crate::support::tolerance::{FULL_SIZE, FULL_SIZE_LOSS, FULL_SIZE_STEPS, FULL_SIZE_TIES, assert_close};

/// Of the recipes, and of what the script draws.
const SEED: u64 = 2012;
/// Images to train on and to hold out; those to train on are two batches.
const IMAGES: u32 = 4;
const HELD_OUT: u32 = 2;
const BATCH: usize = 2;
/// The held-out images are drawn as numbers 100 and 101.
const FIRST_HELD_OUT: u32 = 100;

/// What a case gives in PyTorch; the script says what each value is.
#[derive(Deserialize)]
struct Golden {
    labels: Vec<u32>,
    draw: u32,
    batches: Vec<Vec<u32>>,
    inputs: Vec<[f64; 2]>,
    logits: Vec<Vec<f64>>,
    decisions: BTreeMap<String, u64>,
    gradients: BTreeMap<String, [f64; 2]>,
    losses: Vec<f64>,
    test_logits: Vec<Vec<f64>>,
    test_loss: f64,
    #[serde(default)]
    view_losses: Vec<f64>,
    #[serde(default)]
    ten_views_loss: f64,
}

impl Golden {
    fn load(case: &str) -> Golden {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/full_size.json");
        let mut cases: BTreeMap<String, Golden> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        cases.remove(case).unwrap()
    }

    /// The images are squares of `side`.
    fn data(&self, channels: usize, side: usize, classes: usize) -> DataSet {
        let set = |numbers: std::ops::Range<u32>, labels: &[u32]| {
            let pixels = numbers.flat_map(|number| image(channels, side, number, self.draw)).collect();
            ImageSet::in_memory([channels, side, side], pixels, labels.to_vec())
        };
        let (train, held_out) = self.labels.split_at(IMAGES as usize);
        DataSet {
            train: set(0..IMAGES, train),
            held_out: set(FIRST_HELD_OUT..FIRST_HELD_OUT + HELD_OUT, held_out),
            classes: (0..classes).map(|class| class.to_string()).collect(),
            prepared: None,
        }
    }
}

/// The words of the blocks at counters (0, who), (1, who), ...
fn words(who: [u32; 3]) -> impl Iterator<Item = u32> {
    let rng = Philox::new(SEED, Purpose::Check, 0);
    (0..).flat_map(move |block| rng.block([block, who[0], who[1], who[2]]))
}

/// C H W of an image: a grey and a coloured patch of 32 x 32 pixels under noise.
fn image(channels: usize, side: usize, number: u32, draw: u32) -> Vec<u8> {
    let random = |kind: u32, elems: usize| -> Vec<u32> {
        words([number, kind, draw]).flat_map(u32::to_le_bytes).map(u32::from).take(elems).collect()
    };
    let area = side * side;
    let (grey, colour, noise) = (random(1, 64), random(2, 64 * channels), random(3, channels * area));
    let value = |(at, noise): (usize, &u32)| {
        let patch = at % area / side / 32 * 8 + at % side / 32;
        ((4 * grey[patch] + 3 * colour[at / area * 64 + patch] + noise) / 8) as u8
    };
    noise.iter().enumerate().map(value).collect()
}

/// The length of a tensor, and its product with a vector of random signs.
fn summary(values: &[f32]) -> [f64; 2] {
    let (mut squares, mut product) = (0., 0.);
    for (values, word) in values.chunks(32).zip(words([0; 3])) {
        for (bit, value) in values.iter().enumerate() {
            let value = f64::from(*value);
            squares += value * value;
            product += if word >> bit & 1 == 0 { value } else { -value };
        }
    }
    [squares.sqrt(), product]
}

/// Differences in parts of the tensor's length: what differs in so large a part of it shows up in the product.
fn assert_summary(name: &str, found: [f64; 2], expected: [f64; 2], tolerance: f64) {
    for (found, expected_value) in found.into_iter().zip(expected) {
        let error = (found - expected_value).abs() / expected[0];
        assert!(error <= tolerance, "{name}: {found} is not {expected_value}: {error:e} of the tensor's length");
    }
}

/// The way of each convolution, and the layers that are one.
fn ways(plan: &Plan) -> Vec<String> {
    let way = |layer: &PlannedLayer| match layer.op {
        Op::Conv(shape) => Some(format!("{} {:?}", layer.name, Way::of(&shape))),
        Op::ReluLrnMaxPool(..) => Some(layer.name.to_string()),
        _ => None,
    };
    plan.layers.iter().filter_map(way).collect()
}

/// The batches of three steps, made by the loader as in a training run.
fn batches(golden: &Golden, session: &Session<CpuBackend>, data: DataSet) -> Vec<Batch> {
    let per_epoch = session.steps_per_epoch();
    let order = |step: u64| {
        let shuffled = Philox::new(SEED, Purpose::Shuffle, 0).permutation(IMAGES as usize, (step / per_epoch) as u32);
        let indices = shuffled[(step % per_epoch) as usize * BATCH..][..BATCH].to_vec();
        assert_eq!(indices, golden.batches[step as usize], "images of step {step}");
        Order { indices, augment: Some((SEED, step / per_epoch)), ..Order::default() }
    };
    let orders: Vec<Order> = (0..golden.batches.len() as u64).map(order).collect();
    let count = orders.len();
    let mut loader = Loader::start(Arc::new(data), Arc::new(session.input().clone()), orders.into_iter()).unwrap();
    (0..count).map(|_| loader.wait().unwrap()).collect()
}

/// What decides which way a gradient goes: pools, and ReLUs that no pool decides for.
const DECIDERS: [&str; 7] = ["pool1", "pool2", "relu3", "relu4", "pool5", "relu6", "relu7"];

/// Of each of these a number that changes with any decision; the script has the rule.
fn decisions(plan: &Plan, records: &BTreeMap<String, Vec<f32>>) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for layers in plan.layers.windows(2).filter(|layers| DECIDERS.contains(&&*layers[1].name)) {
        let [x, y] = [&records[&*layers[0].name], &records[&*layers[1].name]];
        let chosen = match layers[1].op {
            Op::MaxPool(shape) => places(&shape, x),
            _ => y.iter().map(|y| u64::from(*y > 0.)).collect(),
        };
        let number = (0..).zip(chosen).map(|(at, chosen): (u64, u64)| chosen * (1 + at % 9973)).sum();
        found.insert(layers[1].name.to_string(), number);
    }
    found
}

/// 1 + the place of each window's first maximum in its map, or 0 where that is not above 0.
fn places(s: &PoolShape, x: &[f32]) -> Vec<u64> {
    let mut places = Vec::new();
    for map in x.chunks_exact(s.h * s.w) {
        for (p, q) in (0..s.p * s.q).map(|at| (at / s.q, at % s.q)) {
            let (mut best, mut place) = (0., 0);
            for at in (0..s.window.pow(2)).map(|i| (p * s.stride + i / s.window) * s.w + q * s.stride + i % s.window) {
                if map[at] > best {
                    (best, place) = (map[at], 1 + at as u64);
                }
            }
            places.push(place);
        }
    }
    places
}

/// What step 0 gives.
#[derive(Debug, PartialEq)]
struct Step {
    loss: f64,
    logits: Vec<f32>,
    gradients: BTreeMap<String, [f64; 2]>,
}

impl Step {
    fn run(pair: &mut Pair<CpuBackend>, batch: &Batch) -> Step {
        let loss = pair.forward_backward(batch, SEED, 0).unwrap().loss();
        let gradients = merge(pair, Tensor::Gradient).unwrap();
        let gradients = gradients.into_iter().map(|(name, tensor)| (name, summary(&tensor.values))).collect();
        Step { loss, logits: pair.logits(BATCH).unwrap().concat(), gradients }
    }

    fn check(&self, golden: &Golden, decisions: &BTreeMap<String, u64>) {
        assert_close("logits", &self.logits, &golden.logits.concat(), FULL_SIZE);
        assert_close("loss", &[self.loss as f32], &golden.losses[..1], FULL_SIZE_LOSS);
        assert!(self.gradients.keys().eq(golden.gradients.keys()), "{:?}", self.gradients.keys());
        assert!(decisions.keys().eq(golden.decisions.keys()), "{decisions:?}");
        let tolerance = if *decisions == golden.decisions { FULL_SIZE } else { FULL_SIZE_TIES };
        if tolerance == FULL_SIZE_TIES {
            eprintln!("ties are decided otherwise than in f64: {decisions:?}, not {:?}", golden.decisions);
        }
        for (name, expected) in &golden.gradients {
            assert_summary(&format!("gradient of {name}"), self.gradients[name], *expected, tolerance);
        }
    }
}

/// Three steps with their updates.
fn check_steps(golden: &Golden, session: &mut Session<CpuBackend>, batches: &[Batch]) {
    let (recipe, per_epoch) = (session.recipe().clone(), session.steps_per_epoch());
    let mut losses = Vec::new();
    for ((step, batch), input) in (0..).zip(batches).zip(&golden.inputs) {
        let update = |param: &_| recipe.update(param, step / per_epoch, recipe.optimizer.lr, step + 1);
        let (result, _) = session.pair().train_step(batch, SEED, step, |_| None::<()>, update).unwrap();
        let found = summary(&session.pair().read_input(BATCH).unwrap());
        assert_summary(&format!("input of step {step}"), found, *input, FULL_SIZE);
        losses.push(result.loss() as f32);
    }
    assert_close("losses", &losses, &golden.losses, FULL_SIZE_STEPS);
}

/// The centres of the held-out images, and their ten views.
fn check_test_time(golden: &Golden, session: &mut Session<CpuBackend>) {
    let loss = |loss: f64| [loss as f32];
    let centre = session.evaluate(&mut ()).unwrap().unwrap();
    assert_close("test loss", &loss(centre.loss()), &[golden.test_loss], FULL_SIZE_LOSS);
    let logits = session.pair().logits(HELD_OUT as usize).unwrap().concat();
    assert_close("test logits", &logits, &golden.test_logits.concat(), FULL_SIZE);
    if golden.view_losses.is_empty() {
        return;
    }
    let all = session.evaluate_ten_views(&mut ()).unwrap();
    assert_close("loss of ten views", &loss(all.loss()), &[golden.ten_views_loss], FULL_SIZE_LOSS);
    // Each view by itself: the mean would hide that two are mistaken for each other, or one is a little off.
    let (centred, whole) = (session.input().clone(), session.input().of_whole_images());
    let held_out: Vec<u32> = (0..HELD_OUT).collect();
    let mut batch = whole.batch(&session.data().held_out, &held_out, None).unwrap();
    session.pair().set_input(whole.shape(), whole.mean()).unwrap();
    let view_loss = |view| {
        let Images::Bytes(_, windows) = &mut batch.images else { unreachable!() };
        windows.fill(view);
        session.pair().evaluate(&batch).unwrap().loss() as f32
    };
    let losses: Vec<f32> = whole.ten_views().into_iter().map(view_loss).collect();
    assert_close("losses of views", &losses, &golden.view_losses, FULL_SIZE_LOSS);
    session.pair().set_input(centred.shape(), centred.mean()).unwrap();
}

/// Compares a case with the script's, and the ways that it takes with `expected`.
fn check(case: &str, recipe: Recipe, [channels, classes]: [usize; 2], expected: &[&str]) {
    // One at a time: the weights, gradients and moments of `fashion` take a gigabyte.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let golden = Golden::load(case);
    let data = || golden.data(channels, recipe.input.resize, classes);
    let recipe = resolve(recipe.clone().with(&format!("train.batch_size={BATCH}")).unwrap(), &data()).unwrap();
    assert_eq!(recipe.train.seed, SEED);
    let streams = Net::from_options(&recipe.net).unwrap().streams;
    let contexts = StreamContext::on_cpu(streams, 2, Precision::Fp32, false).unwrap();
    let mut session = Session::new(recipe.clone(), data(), contexts, None).unwrap();
    for plan in session.pair().running() {
        assert_eq!(ways(plan), expected, "stream {}", plan.stream);
    }

    check_test_time(&golden, &mut session);
    let batches = batches(&golden, &session, data());
    let step = Step::run(session.pair(), &batches[0]);
    check_steps(&golden, &mut session, &batches);

    // Again with every layer by itself, which shows what lies between them.
    let pair = session.pair();
    pair.start_recording().unwrap();
    pair.init(SEED, recipe.init.weights, recipe.init.biases).unwrap();
    assert!(ways(&pair.running()[0]).iter().all(|way| way.starts_with("conv")));
    assert_eq!(Step::run(pair, &batches[0]), step, "layers in one give the bits of each by itself");
    let records = merged_records(pair, BATCH);
    step.check(&golden, &decisions(&pair.plans()[0], &records));
}

/// In two streams; layers that are one; all of the paper's changes of images.
#[test]
fn paper() {
    let ways = [
        "conv1 Strided",
        "relu1-pool1",
        "conv2 Winograd",
        "relu2-pool2",
        "conv3 Winograd",
        "conv4 Winograd",
        "conv5 Winograd",
    ];
    check("paper", Recipe::find("paper").unwrap(), [3, 1000], &ways);
}

/// The ways of the convolutions where nothing is fused.
const FAST: [&str; 5] = ["conv1 Strided", "conv2 Winograd", "conv3 Winograd", "conv4 Winograd", "conv5 Winograd"];

const DIRECT: [&str; 5] = ["conv1 Im2col", "conv2 Im2col", "conv3 Im2col", "conv4 Im2col", "conv5 Im2col"];

#[test]
fn half() {
    check("half", Recipe::find("half").unwrap(), [3, 5], &FAST);
}

#[test]
fn fashion() {
    check("fashion", Recipe::find("fashion").unwrap(), [1, 10], &FAST);
}

/// Channels that are no sixteens: the direct way, which no layer of the recipes takes at this size.
#[test]
fn half_with_odd_numbers_of_channels() {
    let channels = ["net.conv_channels=[36, 100, 150, 150, 100]", "net.dense_units=[500, 300]"];
    let recipe = channels.into_iter().fold(Recipe::find("half").unwrap(), |recipe, set| recipe.with(set).unwrap());
    check("odd", recipe, [3, 5], &DIRECT);
}
