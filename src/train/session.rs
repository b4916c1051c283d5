//! A network in training, with its recipe and data; the loop is in `training.rs`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::signals::Stop;
use crate::backend::Backend;
use crate::config::{Recipe, ScheduleKind};
use crate::data::DataSet;
use crate::data::input::Preprocessor;
use crate::engine::link::Link;
use crate::engine::pair::{BatchResult, Pair, StreamContext};
use crate::engine::timeline::Timeline;
use crate::engine::times::StreamTimes;
use crate::error::{Error, Result};
use crate::net::spec::Net;
use crate::run::checkpoint::{self, TrainState};
use crate::run::rows::{self, Row};
use crate::run::schedule::Schedule;

/// One step, for those that show it.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Epoch that it belongs to, from 0.
    pub epoch: u64,
    /// Learning rate.
    pub lr: f32,
    /// The result of the batch.
    pub result: BatchResult,
    /// Time for batch, gradients and update.
    pub time: Duration,
    /// Of it, waiting for the loader.
    pub waited: Duration,
}

impl StepReport {
    /// Its line of the metrics.
    pub fn row(&self) -> Row {
        Row::Step(rows::Step {
            step: self.step,
            epoch: self.epoch,
            loss: self.result.loss(),
            top1_error: self.result.top1_error(),
            // The number that prints as the f32 does.
            lr: self.lr.to_string().parse().unwrap_or(f64::from(self.lr)),
            images_per_s: self.result.images as f64 / self.time.as_secs_f64(),
            loader_wait_ms: self.waited.as_secs_f64() * 1e3,
        })
    }
}

/// One evaluation of the held-out images.
#[derive(Clone, Debug)]
pub struct EvalReport {
    /// Steps done.
    pub step: u64,
    /// Epochs done or begun.
    pub epoch: u64,
    /// The sum over all batches.
    pub result: BatchResult,
}

impl EvalReport {
    /// Its line of the metrics.
    pub fn row(&self) -> Row {
        Row::Eval(rows::Eval {
            step: self.step,
            epoch: self.epoch,
            loss: self.result.loss(),
            top1_error: self.result.top1_error(),
            top5_error: self.result.top5_error(),
        })
    }
}

/// A watcher of training, such as the display of its progress.
pub trait TrainObserver {
    /// Training begins or continues at `step` of `total`.
    fn started(&mut self, _step: u64, _total: u64, _epochs: u64) {}
    /// A step is done.
    fn stepped(&mut self, _report: &StepReport) {}
    /// `done` of `total` held-out images are evaluated.
    fn evaluating(&mut self, _done: usize, _total: usize) {}
    /// An evaluation is done.
    fn evaluated(&mut self, _report: &EvalReport) {}
    /// The schedule dropped the rate.
    fn dropped_rate(&mut self, _lr: f32) {}
    /// The run ends early: the held-out error has not improved for so many epochs.
    fn stopped_early(&mut self, _epochs: u32) {}
    /// An update was left out, and why.
    fn left_out(&mut self, _step: u64, _why: &str) {}
    /// A checkpoint is on disk.
    fn saved(&mut self, _path: &Path) {}
    /// The timeline of the newest step, which began at `_began`.
    fn observed(&mut self, _began: Instant, _timeline: &Timeline) {}
    /// Warnings that were shown since the last call, for the run's journal.
    fn take_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Nobody watches.
impl TrainObserver for () {}

/// See the module.
pub struct Session<B: Backend> {
    pub(super) recipe: Recipe,
    pub(super) data: Arc<DataSet>,
    pub(super) input: Arc<Preprocessor>,
    pub(super) pair: Pair<B>,
    /// The state of training; its `files` are not used here.
    pub(super) state: TrainState,
    pub(super) stop: Stop,
    /// The time waited for the loader, and the number of steps, without the first, whose batch cannot have been made
    /// ahead.
    pub(super) waited: Option<(Duration, u32)>,
    /// The streams' times when they were last recorded.
    pub(super) observed: Vec<StreamTimes>,
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
            format!("{classes} is too few; the data has {} classes", data.classes.len()),
        ));
    }
    // Not before all values are set, one by one.
    if recipe.schedule.kind == ScheduleKind::Epochs && recipe.schedule.drop_epochs.is_empty() {
        return Err(Error::recipe("schedule.drop_epochs", "[] is not a list of epochs, such as [30, 60]"));
    }
    if recipe.train.batch_size > data.train.len() {
        let problem =
            format!("{} is larger than the training set of {} images", recipe.train.batch_size, data.train.len());
        return Err(Error::recipe("train.batch_size", problem));
    }
    Ok(recipe)
}

impl<B: Backend> Session<B> {
    /// A new network on the streams' `contexts`; `recipe` must be resolved.
    pub fn new(recipe: Recipe, data: DataSet, contexts: Vec<StreamContext<B>>, link: Option<Link>) -> Result<Self> {
        let net = Net::from_options(&recipe.net)?;
        let input = Arc::new(Preprocessor::new(&recipe.input, net.image, &data)?);
        let states = recipe.state_names().len();
        let mut pair = Pair::new(&net, contexts, link, recipe.train.batch_size, states, recipe.train.dropout)?;
        pair.set_input(input.shape(), input.mean())?;
        pair.init(recipe.train.seed, recipe.init.weights, recipe.init.biases)?;
        let state = TrainState::new(net.streams, Schedule::new(recipe.optimizer.lr));
        Ok(Session {
            recipe,
            data: Arc::new(data),
            input,
            pair,
            state,
            stop: Stop::default(),
            waited: None,
            observed: Vec::new(),
        })
    }

    /// Goes back to a checkpoint: weights, optimizer, schedule, place in the data, random numbers, mean image.
    pub fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        let state = self.pair.broadcast(|| checkpoint::load_state(checkpoint))?;
        let mean = checkpoint::load(checkpoint, &state, &mut self.pair, self.recipe.state_names())?;
        if mean.len() != self.input.mean().len() {
            let problem =
                format!("its mean image has {} values, the recipe's input {}", mean.len(), self.input.mean().len());
            return Err(Error::run(checkpoint, problem));
        }
        let image = Net::from_options(&self.recipe.net)?.image;
        self.input = Arc::new(Preprocessor::with_mean(&self.recipe.input, image, &self.data, mean)?);
        self.pair.set_input(self.input.shape(), self.input.mean())?;
        let saved = if state.on_signal { state.saved } else { Some(state.step) };
        self.state = TrainState { on_signal: false, saved, ..state };
        Ok(())
    }

    /// The same with the checkpoint found at `path`, or the newest one of the run there if that has been removed since:
    /// the run may be in training.
    pub fn restore_or_newest(&mut self, checkpoint: &Path, path: &Path) -> Result<()> {
        /// Retries while checkpoints come and go.
        const PATIENCE: u32 = 20;
        let mut restored = self.restore(checkpoint);
        let mut tried = checkpoint.to_owned();
        for _ in 0..PATIENCE {
            if restored.is_ok() || checkpoint::is_checkpoint(&tried) {
                break;
            }
            tried = checkpoint::find(path)?.0;
            restored = self.restore(&tried);
        }
        restored
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
        self.state.step
    }

    /// From now on training and evaluation end with everything saved when `stop` says so.
    pub fn end_on(&mut self, stop: Stop) {
        self.stop = stop;
    }
}

/// Probabilities of classes.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> = logits.iter().map(|&v| f64::from(v - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|v| v / sum).collect()
}
