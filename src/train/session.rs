//! The training loop: batches in order, gradients, check, update; evaluation and a checkpoint after every epoch.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::checkpoint::{self, State};
use super::run_dir::RunDir;
use super::schedule::Schedule;
use crate::backend::Backend;
use crate::data::DataSet;
use crate::data::input::Preprocessor;
use crate::data::loader::{Loader, Order};
use crate::error::{Error, Result};
use crate::exchange::link::Link;
use crate::net::pair::{BatchResult, Pair, Seat};
use crate::net::spec::Net;
use crate::recipe::{Order as ImageOrder, Recipe};
use crate::rng::{Philox, Purpose};

/// One step, for whoever shows it.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Epoch that it belongs to, from 0.
    pub epoch: u64,
    /// Learning rate.
    pub lr: f32,
    /// What came of the batch.
    pub result: BatchResult,
    /// Time for batch, gradients and update.
    pub time: Duration,
    /// Of it, waiting for the loader.
    pub waited: Duration,
}

/// One evaluation of the held-out images.
#[derive(Clone, Debug)]
pub struct EvalReport {
    /// Steps done.
    pub step: u64,
    /// Epochs done or begun.
    pub epoch: u64,
    /// What came of all batches.
    pub result: BatchResult,
}

/// Who watches a run.
pub trait Observer {
    /// Training begins or goes on at `step` of `total`.
    fn started(&mut self, _step: u64, _total: u64, _epochs: u64) {}
    /// A step is done.
    fn stepped(&mut self, _report: &StepReport) {}
    /// `done` of `total` held-out images are evaluated.
    fn evaluating(&mut self, _done: usize, _total: usize) {}
    /// An evaluation is done.
    fn evaluated(&mut self, _report: &EvalReport) {}
    /// The schedule dropped the rate.
    fn dropped_rate(&mut self, _lr: f32) {}
    /// A checkpoint is on disk.
    fn saved(&mut self, _path: &Path) {}
}

/// Nobody watches.
impl Observer for () {}

/// A network with its recipe and data, somewhere in training.
pub struct Session<B: Backend> {
    recipe: Recipe,
    data: Arc<DataSet>,
    input: Arc<Preprocessor>,
    pair: Pair<B>,
    step: u64,
    schedule: Schedule,
    /// Time waited for the loader, and steps, after the first, whose batch cannot have been made ahead.
    waited: Option<(Duration, u32)>,
}

/// Fills in what the recipe leaves to the data (channels, classes).
///
/// Fails where they do not fit each other.
pub fn resolve(mut recipe: Recipe, data: &DataSet) -> Result<Recipe> {
    recipe.net.image_channels.get_or_insert(data.train.channels);
    let classes = *recipe.net.classes.get_or_insert(data.classes.len());
    if classes < data.classes.len() {
        return Err(Error::recipe(
            "net.classes",
            format!("{classes} is too few for the data's {}", data.classes.len()),
        ));
    }
    if recipe.train.batch_size > data.train.len() {
        let problem =
            format!("{} is larger than the training set of {} images", recipe.train.batch_size, data.train.len());
        return Err(Error::recipe("train.batch_size", problem));
    }
    Ok(recipe)
}

impl<B: Backend> Session<B> {
    /// A new network on the seats that `pair` makes for it; `recipe` must be resolved.
    pub fn new(recipe: Recipe, data: DataSet, seats: Vec<Seat<B>>, link: Option<Link>) -> Result<Self> {
        let net = Net::from_options(&recipe.net)?;
        let input = Arc::new(Preprocessor::new(&recipe.input, net.image, &data)?);
        let states = recipe.state_names().len();
        let mut pair = Pair::new(&net, seats, link, recipe.train.batch_size, states, recipe.train.dropout)?;
        pair.set_input(input.shape(), input.mean())?;
        pair.init(recipe.train.seed, recipe.init.weights, recipe.init.biases)?;
        let schedule = Schedule::new(recipe.optimizer.lr);
        Ok(Session { recipe, data: Arc::new(data), input, pair, step: 0, schedule, waited: None })
    }

    /// Goes back to a checkpoint: weights, optimizer, schedule, place in the data, random numbers, mean image.
    pub fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        let state = self.pair.told(|| checkpoint::load_state(checkpoint))?;
        let mean = checkpoint::load(checkpoint, &state, &mut self.pair, self.recipe.state_names())?;
        if mean.len() != self.input.mean().len() {
            let problem =
                format!("its mean image has {} values, the recipe's input {}", mean.len(), self.input.mean().len());
            return Err(Error::run(checkpoint, problem));
        }
        let image = Net::from_options(&self.recipe.net)?.image;
        self.input = Arc::new(Preprocessor::with_mean(&self.recipe.input, image, &self.data, mean)?);
        self.pair.set_input(self.input.shape(), self.input.mean())?;
        self.step = state.step;
        self.schedule = state.schedule;
        Ok(())
    }

    /// The network.
    pub fn pair(&mut self) -> &mut Pair<B> {
        &mut self.pair
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The data.
    pub fn data(&self) -> &DataSet {
        &self.data
    }

    /// From images to input.
    pub fn input(&self) -> &Preprocessor {
        &self.input
    }

    /// Time that a training step has waited for its batch, on average.
    pub fn loader_wait(&self) -> Duration {
        self.waited.map_or(Duration::ZERO, |(time, steps)| time / steps.max(1))
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Steps that make an epoch; the last one may be smaller.
    pub fn steps_per_epoch(&self) -> u64 {
        self.data.train.len().div_ceil(self.recipe.train.batch_size) as u64
    }

    /// Trains to the recipe's epochs, or to `max_steps` in all if that comes first.
    ///
    /// Fails with [`Error::Diverged`] before the update where the loss is not finite.
    pub fn train(&mut self, run: &mut RunDir, max_steps: Option<u64>, observer: &mut dyn Observer) -> Result<()> {
        let _span = tracing::info_span!("run", recipe = self.recipe.name).entered();
        let per_epoch = self.steps_per_epoch();
        let planned = self.recipe.train.epochs * per_epoch;
        let total = max_steps.map_or(planned, |steps| steps.min(planned));
        observer.started(self.step, total, total.div_ceil(per_epoch));
        let mut loader = self.start_loader(total)?;
        while self.step < total {
            let epoch = self.step / per_epoch;
            let report = self.train_step(epoch, &mut loader).map_err(|error| explain_divergence(error, run.path()))?;
            run.log(&json!({
                "kind": "step", "step": report.step, "epoch": epoch, "loss": report.result.loss(), "lr": report.lr,
                "images_per_s": report.result.images as f64 / report.time.as_secs_f64(),
                "loader_wait_ms": report.waited.as_secs_f64() * 1e3,
            }))?;
            observer.stepped(&report);
            let epoch_ends = self.step.is_multiple_of(per_epoch);
            if epoch_ends || self.step == total {
                self.evaluate_and_save(run, epoch_ends, observer)?;
            } else if self.recipe.train.checkpoint_steps > 0
                && self.step.is_multiple_of(self.recipe.train.checkpoint_steps)
            {
                self.save(run, observer)?;
            }
        }
        Ok(())
    }

    /// Makes the batches of all steps from here to `total`.
    fn start_loader(&self, total: u64) -> Result<Loader> {
        let (seed, size, order) = (self.recipe.train.seed, self.recipe.train.batch_size, self.recipe.train.order);
        let (per_epoch, images) = (self.steps_per_epoch(), self.data.train.len());
        let mut newest = (u64::MAX, Vec::new());
        let orders = (self.step..total).map(move |step| {
            let epoch = step / per_epoch;
            if newest.0 != epoch {
                // By seed and epoch alone.
                let drawn = if order == ImageOrder::Fixed { 0 } else { epoch as u32 };
                newest = (epoch, Philox::new(seed, Purpose::Shuffle, 0).permutation(images, drawn));
            }
            let first = (step % per_epoch) as usize * size;
            let indices = newest.1[first..(first + size).min(images)].to_vec();
            Order { indices, augment: Some((seed, epoch)), ..Order::default() }
        });
        Loader::start(self.data.clone(), self.input.clone(), orders)
    }

    fn train_step(&mut self, epoch: u64, loader: &mut Loader) -> Result<StepReport> {
        let _span = tracing::info_span!("step", step = self.step).entered();
        let start = Instant::now();
        let batch = tracing::debug_span!("batch").in_scope(|| loader.wait())?;
        let (waited, seed) = (start.elapsed(), self.recipe.train.seed);
        self.waited = Some(self.waited.map_or_else(Default::default, |(time, steps)| (time + waited, steps + 1)));
        let result = self.pair.forward_backward(&batch, seed, self.step)?;
        if !result.loss().is_finite() {
            return Err(Error::Diverged { step: self.step + 1, loss: result.loss(), checkpoint: String::new() });
        }
        let (recipe, lr, update) = (&self.recipe, self.schedule.lr, self.step + 1);
        self.pair.update(|kind| recipe.update(kind, lr, update))?;
        self.step += 1;
        Ok(StepReport { step: self.step, epoch, lr, result, time: start.elapsed(), waited })
    }

    fn evaluate_and_save(&mut self, run: &mut RunDir, epoch_ends: bool, observer: &mut dyn Observer) -> Result<()> {
        let result = self.evaluate(observer)?;
        let epoch = self.step.div_ceil(self.steps_per_epoch());
        run.log(&json!({
            "kind": "eval", "step": self.step, "epoch": epoch, "loss": result.loss(),
            "top1_error": result.top1_error(), "top5_error": result.top5_error(),
        }))?;
        observer.evaluated(&EvalReport { step: self.step, epoch, result: result.clone() });
        if epoch_ends && self.schedule.after_epoch(&self.recipe.schedule, result.top1_error()) {
            observer.dropped_rate(self.schedule.lr);
        }
        self.save(run, observer)
    }

    /// Runs all held-out images.
    pub fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<BatchResult> {
        let _span = tracing::info_span!("eval", step = self.step).entered();
        let (mut whole, count) = (BatchResult::default(), self.data.test.len());
        let orders: Vec<Order> = self.held_out_batches().collect();
        let mut loader = Loader::start(self.data.clone(), self.input.clone(), orders.clone().into_iter())?;
        for _ in orders {
            whole.add(&self.pair.evaluate(&loader.wait()?)?);
            observer.evaluating(whole.images, count);
        }
        Ok(whole)
    }

    fn held_out_batches(&self) -> impl Iterator<Item = Order> {
        let (size, count) = (self.recipe.train.batch_size as u32, self.data.test.len() as u32);
        let batch = move |first: u32| (first..(first + size).min(count)).collect();
        (0..count).step_by(size as usize).map(move |first| Order {
            held_out: true,
            indices: batch(first),
            ..Order::default()
        })
    }

    /// Runs all held-out images in ten views each and averages the probabilities (paper 4.1); all streams must be in
    /// this process.
    pub fn evaluate_ten_views(&mut self, observer: &mut dyn Observer) -> Result<BatchResult> {
        let views = self.input.ten_views();
        let orders = self.held_out_batches().flat_map({
            let views = views.clone();
            move |order| views.clone().into_iter().map(move |view| Order { view: Some(view), ..order.clone() })
        });
        let orders: Vec<Order> = orders.collect();
        let mut loader = Loader::start(self.data.clone(), self.input.clone(), orders.into_iter())?;
        let (mut whole, count) = (BatchResult::default(), self.data.test.len());
        while whole.images < count {
            let (mut sums, mut labels): (Vec<Vec<f64>>, Vec<u32>) = Default::default();
            for _ in &views {
                let batch = loader.wait()?;
                self.pair.evaluate(&batch)?;
                let rows = self.pair.logits(batch.len())?;
                sums.resize(batch.len(), Vec::new());
                for (sum, logits) in sums.iter_mut().zip(rows) {
                    sum.resize(logits.len(), 0.);
                    sum.iter_mut().zip(softmax(&logits)).for_each(|(sum, p)| *sum += p / views.len() as f64);
                }
                labels = batch.labels;
            }
            for (probabilities, label) in sums.iter().zip(labels) {
                let of_label = probabilities[label as usize];
                // As the devices count: on a tie the lower class ranks higher.
                let above = |(class, p): (usize, &f64)| *p > of_label || (*p == of_label && class < label as usize);
                let above = probabilities.iter().enumerate().filter(|&row| above(row)).count();
                whole.add(&BatchResult {
                    images: 1,
                    loss_sum: -of_label.ln(),
                    top1_errors: usize::from(above >= 1),
                    top5_errors: usize::from(above >= 5),
                });
            }
            observer.evaluating(whole.images, count);
        }
        Ok(whole)
    }

    fn save(&mut self, run: &RunDir, observer: &mut dyn Observer) -> Result<()> {
        let state = State::new(self.step, self.pair.plans().len(), self.schedule.clone());
        let path = checkpoint::save(run.path(), &state, &mut self.pair, self.recipe.state_names(), self.input.mean())?;
        observer.saved(&path);
        Ok(())
    }
}

/// Probabilities of classes.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> = logits.iter().map(|&v| f64::from(v - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|v| v / sum).collect()
}

fn explain_divergence(error: Error, run: &Path) -> Error {
    match error {
        Error::Diverged { step, loss, .. } => {
            let checkpoint = match checkpoint::find(run) {
                Ok(path) => format!("the last good checkpoint is {}", path.display()),
                Err(_) => "no checkpoint had been written yet".into(),
            };
            Error::Diverged { step, loss, checkpoint }
        }
        other => other,
    }
}
