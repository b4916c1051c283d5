//! The training loop: batches in order, gradients, check, update; evaluation and a checkpoint after every epoch.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::checkpoint::{self, State};
use super::run_dir::RunDir;
use super::schedule::Schedule;
use crate::backend::Backend;
use crate::data::input::Preprocessor;
use crate::data::{DataSet, ImageSet};
use crate::error::{Error, Result};
use crate::exchange::link::Link;
use crate::net::pair::{BatchResult, Pair, Seat};
use crate::net::spec::Net;
use crate::recipe::Recipe;
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
    data: DataSet,
    input: Preprocessor,
    pair: Pair<B>,
    step: u64,
    schedule: Schedule,
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
        let input = Preprocessor::new(&recipe.input, net.image, &data.train)?;
        let states = recipe.state_names().len();
        let mut pair = Pair::new(&net, seats, link, recipe.train.batch_size, states, recipe.train.dropout)?;
        pair.set_input(input.shape(), input.mean())?;
        pair.init(recipe.train.seed, recipe.init.weights, recipe.init.biases)?;
        let schedule = Schedule::new(recipe.optimizer.lr);
        Ok(Session { recipe, data, input, pair, step: 0, schedule })
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
        self.input = Preprocessor::with_mean(&self.recipe.input, image, &self.data.train, mean)?;
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
        let mut order = (u64::MAX, Vec::new());
        while self.step < total {
            let epoch = self.step / per_epoch;
            if order.0 != epoch {
                order = (epoch, self.epoch_order(epoch));
            }
            let report = self.train_step(epoch, &order.1).map_err(|error| explain_divergence(error, run.path()))?;
            run.log(&json!({
                "kind": "step", "step": report.step, "epoch": epoch, "loss": report.result.loss(), "lr": report.lr,
                "images_per_s": report.result.images as f64 / report.time.as_secs_f64(),
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

    /// The order of the training images in an epoch: by seed and epoch alone.
    fn epoch_order(&self, epoch: u64) -> Vec<u32> {
        Philox::new(self.recipe.train.seed, Purpose::Shuffle, 0).permutation(self.data.train.len(), epoch as u32)
    }

    fn train_step(&mut self, epoch: u64, order: &[u32]) -> Result<StepReport> {
        let _span = tracing::info_span!("step", step = self.step).entered();
        let start = Instant::now();
        let (seed, size) = (self.recipe.train.seed, self.recipe.train.batch_size);
        let first = (self.step % self.steps_per_epoch()) as usize * size;
        let indices = &order[first..(first + size).min(order.len())];
        let batch =
            tracing::debug_span!("batch").in_scope(|| self.input.batch(&self.data.train, indices, Some((seed, epoch))));
        let result = self.pair.forward_backward(&batch, seed, self.step)?;
        if !result.loss().is_finite() {
            return Err(Error::Diverged { step: self.step + 1, loss: result.loss(), checkpoint: String::new() });
        }
        let (recipe, lr, update) = (&self.recipe, self.schedule.lr, self.step + 1);
        self.pair.update(|kind| recipe.update(kind, lr, update))?;
        self.step += 1;
        Ok(StepReport { step: self.step, epoch, lr, result, time: start.elapsed() })
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
        let Session { data, pair, input, recipe, .. } = self;
        let mut whole = BatchResult::default();
        for indices in all_indices(&data.test).chunks(recipe.train.batch_size) {
            whole.add(&pair.evaluate(&input.batch(&data.test, indices, None))?);
            observer.evaluating(whole.images, data.test.len());
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

fn all_indices(set: &ImageSet) -> Vec<u32> {
    (0..set.len() as u32).collect()
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
