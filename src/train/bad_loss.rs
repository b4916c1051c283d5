//! Bad losses: not finite, or as bad as that, or far above those before. The update is not made, or, where the loss on
//! held-out images shows it afterwards, not saved. The recipe says what is done then ([`OnBadLoss`]).

use serde_json::json;

use super::session::Session;
use super::training::Outputs;
use crate::backend::Backend;
use crate::config::{OnBadLoss, Recipe};
use crate::data::Batch;
use crate::disk::{self, faults};
use crate::error::{Error, Result};
use crate::run::checkpoint::{self, TrainState};
use crate::run::rows::{Row, Skipped};
use crate::text::loss_text;

/// The number of skipped steps or rollbacks in a row, without a good step in between, that ends the run.
const MOST_IN_A_ROW: u32 = 10;

/// The weight of the newest step in the mean of losses.
const NEWEST: f64 = 0.05;

/// Losses that must be in the mean before a loss can be a jump: Adam's first steps take the loss to several times chance
/// and back.
const ENOUGH: u64 = 100;

/// A loss above this is as good as infinite. At a rate of 10 Adam's second loss is near 1e17, which f32 holds, and what
/// comes back from there learns nothing more; three times the textbook's rate takes it to a thousand.
const LOST: f64 = 1e6;

/// Whether `loss` is bad in itself, whatever the losses before it were.
pub fn is_lost(recipe: &Recipe, loss: f64) -> bool {
    !loss.is_finite() || (recipe.train.loss_spike > 0. && loss > LOST)
}

/// The reason why `loss` is bad, if it is; `state` is the one before the step.
pub fn why(recipe: &Recipe, state: &TrainState, classes: usize, loss: f64) -> Option<String> {
    if is_lost(recipe, loss) {
        return Some(format!("the loss is {}", loss_text(loss)));
    }
    let spike = recipe.train.loss_spike;
    let mean = state.loss_mean.filter(|_| state.updates() >= ENOUGH)?;
    // Below chance a loss may well be several times the mean.
    let usual = mean.max((classes as f64).ln());
    (spike > 0. && loss > spike * usual)
        .then(|| format!("the loss jumped to {}, the mean of the steps before is {}", loss_text(loss), loss_text(mean)))
}

/// The mean with one more loss.
pub fn mean_with(mean: Option<f64>, loss: f64) -> f64 {
    mean.map_or(loss, |mean| mean + NEWEST * (loss - mean))
}

impl<B: Backend> Session<B> {
    /// Handles a bad loss of the next step. Returns whether the next batches have changed.
    pub(super) fn leave_out(&mut self, batch: &Batch, loss: f64, why: &str, to: &mut Outputs) -> Result<bool> {
        let step = self.state.step + 1;
        // Once more: the backward pass has written over activations.
        self.pair.training_loss(batch, self.recipe.train.seed, self.state.step)?;
        let details = self.write_details(step, batch.len(), self.next_indices(), loss, why, to)?;
        let policy = self.recipe.train.on_bad_loss;
        self.state.bad_in_a_row += 1;
        if policy == OnBadLoss::Stop || self.state.bad_in_a_row > MOST_IN_A_ROW {
            let skip = ", or skip such steps with --on-nan skip or rollback";
            let advice = if policy == OnBadLoss::Stop { skip } else { "" };
            return Err(self.diverged(step, &format!("{why}; stopped before the update"), &details, advice, to)?);
        }
        let rolls_back = policy == OnBadLoss::Rollback;
        let from = if rolls_back { self.roll_back(self.state.went_back_to, to)? } else { step - 1 };
        self.go_on_at(step, from, loss, why, to)?;
        Ok(rolls_back)
    }

    /// Handles a bad loss of the newest weights on held-out images: skipping later steps does not repair them, so only
    /// a rollback helps.
    pub(super) fn leave_out_evaluated(&mut self, loss: f64, to: &mut Outputs) -> Result<()> {
        let (step, why) = (self.state.step, format!("the held-out loss after it is {}", loss_text(loss)));
        let (size, count) = (self.recipe.train.batch_size, self.data.held_out.len());
        let details = self.write_details(step, (count - 1) % size + 1, Vec::new(), loss, &why, to)?;
        self.state.bad_in_a_row += 1;
        let rolls_back = self.recipe.train.on_bad_loss == OnBadLoss::Rollback;
        if !rolls_back || self.state.bad_in_a_row > MOST_IN_A_ROW {
            let advice = if rolls_back { "" } else { ", or skip such steps with --on-nan rollback" };
            return Err(self.diverged(step, &format!("{why}; stopped before it was saved"), &details, advice, to)?);
        }
        // A checkpoint of this same step has these weights.
        let before = self.state.went_back_to.map_or(step, |bad| bad.min(step));
        let from = self.roll_back(Some(before), to)?;
        self.go_on_at(step, from, loss, &why, to)?;
        self.state.evaluation_due = true;
        Ok(())
    }

    /// The error of a run that a bad loss ends; `advice` is what else to try.
    fn diverged(&mut self, step: u64, why: &str, details: &str, advice: &str, to: &mut Outputs) -> Result<Error> {
        // The checkpoint that is being written may be the last good one.
        to.settle()?;
        let run = to.run.path();
        let at = (self.state.step, self.state.went_back_to);
        let good = self.pair.broadcast(|| {
            let states = checkpoint::states(run)?;
            // No good step was made from it.
            let doubtful =
                |state: &TrainState| state.bad_in_a_row > 0 || state.step == at.0 || Some(state.step) == at.1;
            let newest = states.last().map(|(checkpoint, _)| checkpoint.path.display());
            let good = states.iter().rfind(|(_, state)| !doubtful(state)).map(|(found, _)| found.path.display());
            Ok(match (newest, good) {
                (None, _) => "no checkpoint had been written yet".into(),
                (Some(newest), None) => format!("the newest checkpoint, {newest}, has the weights that gave this loss"),
                (_, Some(good)) => format!("the last good checkpoint is {good}"),
            })
        })?;
        let advice = format!("{good}{details}. Lower the learning rate (--lr) and start again{advice}");
        Ok(Error::Diverged { step, why: why.into(), advice })
    }

    /// Goes back to the newest checkpoint that is older than `before`, or to the oldest one; returns its step.
    fn roll_back(&mut self, before: Option<u64>, to: &mut Outputs) -> Result<u64> {
        to.settle()?;
        let (checkpoint, state) = self.pair.broadcast(|| checkpoint::find_to_go_back(to.run.path(), before))?;
        let bad_in_a_row = self.state.bad_in_a_row;
        self.restore(&checkpoint)?;
        (self.state.bad_in_a_row, self.state.went_back_to) = (bad_in_a_row, Some(state.step));
        Ok(state.step)
    }

    /// Continues as if `step` were done, with the weights of step `from`.
    fn go_on_at(&mut self, step: u64, from: u64, loss: f64, why: &str, to: &mut Outputs) -> Result<()> {
        let left_out = step - from;
        // The checkpoint's count is older: the steps skipped since then are skipped again.
        self.state.skipped_steps += left_out;
        self.state.step = step;
        let back = self.recipe.train.on_bad_loss == OnBadLoss::Rollback;
        let why = if back { format!("{why}; back to the weights of step {from}") } else { why.to_owned() };
        to.run.log(&Row::Skipped(Skipped { step, steps: left_out, loss, why: why.clone() }))?;
        to.observer.left_out(step, &why);
        Ok(())
    }

    /// Writes the training images of the batch of `n` and each tensor's extreme values to a file; returns the part of
    /// the message about it.
    fn write_details(
        &mut self,
        step: u64,
        n: usize,
        images: Vec<u32>,
        loss: f64,
        why: &str,
        to: &mut Outputs,
    ) -> Result<String> {
        let streams = self.pair.extremes(n)?;
        if !self.pair.leads() {
            return Ok(String::new());
        }
        let path = to.run.path().join(format!("bad-loss-step-{step:08}.json"));
        let details = json!({
            "step": step, "loss": loss.to_string(), "why": why, "loss_mean": self.state.loss_mean,
            "lr": self.state.schedule.lr, "images": images, "injected": faults::in_step("nan", step),
            "streams": streams,
        });
        disk::write_whole(&path, &serde_json::to_vec_pretty(&details).unwrap_or_default())?;
        Ok(format!(", details are in {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::schedule::Schedule;

    #[test]
    fn what_is_not_finite_or_jumps_is_bad_and_noise_is_not() {
        let recipe = Recipe::find("quick").unwrap();
        let after = |steps: u64, skipped_steps: u64, loss_mean: Option<f64>| TrainState {
            step: steps,
            skipped_steps,
            loss_mean,
            ..TrainState::new(2, Schedule::new(0.1))
        };
        let bad = |mean, loss| why(&recipe, &after(100, 0, Some(mean)), 10, loss).is_some();
        assert!(bad(1., f64::NAN) && bad(1., f64::INFINITY));
        assert!(!bad(0.01, 2.) && !bad(2.3, 6.8) && !bad(20., 50.));
        assert!(bad(0.01, 7.) && bad(20., 61.));
        // While the mean has too few losses, no loss is a jump. Skipped losses are not in it.
        for early in [after(0, 0, None), after(1, 0, Some(2.3)), after(99, 0, Some(2.3)), after(109, 10, Some(2.3))] {
            let bad = |loss| why(&recipe, &early, 10, loss).is_some();
            assert!(!bad(7.336) && !bad(2e4), "{early:?}");
            assert!(bad(f64::NAN) && bad(f64::INFINITY) && bad(2e6), "{early:?}");
        }
        assert!(why(&recipe, &after(110, 10, Some(2.3)), 10, 7.).is_some());
        let never = recipe.with("train.loss_spike=0").unwrap();
        assert_eq!(why(&never, &after(100, 0, Some(0.01)), 10, 1e9), None);
    }
}
