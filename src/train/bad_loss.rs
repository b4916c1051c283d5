//! A loss that is none to learn from: not finite, or far above those before it. The update is not made; what is done
//! then is the recipe's to say ([`OnBadLoss`]).

use serde_json::json;

use super::checkpoint;
use super::session::Session;
use super::training::Outputs;
use crate::backend::Backend;
use crate::data::Batch;
use crate::disk::{self, faults};
use crate::error::{Error, Result};
use crate::recipe::{OnBadLoss, Recipe};

/// Steps left out, or returns to a checkpoint, without a good step in between that end the run.
const MOST_IN_A_ROW: u32 = 10;

/// How much the newest step counts in the mean of losses.
const NEWEST: f64 = 0.05;

/// Why `loss` is bad, if it is; `mean` is that of the steps before.
pub fn why(recipe: &Recipe, mean: Option<f64>, classes: usize, loss: f64) -> Option<String> {
    if !loss.is_finite() {
        return Some(format!("the loss is {loss}"));
    }
    let (spike, mean) = (recipe.train.loss_spike, mean?);
    // Below chance a loss may well be several times the mean.
    let usual = mean.max((classes as f64).ln());
    (spike > 0. && loss > spike * usual)
        .then(|| format!("the loss jumped to {loss:.3}, the mean of the steps before is {mean:.3}"))
}

/// The mean with one more loss.
pub fn mean_with(mean: Option<f64>, loss: f64) -> f64 {
    mean.map_or(loss, |mean| mean + NEWEST * (loss - mean))
}

impl<B: Backend> Session<B> {
    /// Deals with the step that comes next, whose loss is bad. Returns whether the batches to come are others now.
    pub(super) fn leave_out(&mut self, batch: &Batch, loss: f64, why: &str, to: &mut Outputs) -> Result<bool> {
        let step = self.state.step + 1;
        let details = self.write_details(batch, loss, why, to)?;
        let again = self.recipe.train.on_bad_loss;
        self.bad_in_a_row += 1;
        if again == OnBadLoss::Stop || self.bad_in_a_row > MOST_IN_A_ROW {
            // What is being written may be the last good state.
            to.writer.finish()?;
            let good = match self.pair.told(|| Ok(checkpoint::find(to.run.path()).ok()))? {
                Some((path, _)) => format!("the last good checkpoint is {}", path.display()),
                None => "no checkpoint had been written yet".into(),
            };
            let advice = match again {
                OnBadLoss::Stop => {
                    "Lower the learning rate (--lr) and start again, or leave such steps out with --on-nan skip or rollback"
                }
                _ => "Lower the learning rate (--lr) and start again",
            };
            return Err(Error::Diverged { step, why: why.into(), advice: format!("{good}{details}. {advice}") });
        }
        let skipped = self.state.skipped_steps;
        let (left_out, why) = match again {
            OnBadLoss::Rollback => {
                to.writer.finish()?;
                let (checkpoint, state) = self.pair.told(|| checkpoint::find(to.run.path()))?;
                self.restore(&checkpoint)?;
                (step - state.step, format!("{why}; back to the weights of step {}", state.step))
            }
            _ => (1, why.to_owned()),
        };
        self.state.step = step;
        self.state.skipped_steps = skipped + left_out;
        let shown = if loss.is_finite() { json!(loss) } else { json!(loss.to_string()) };
        to.run.log(&json!({"kind": "skipped", "step": step, "steps": left_out, "loss": shown, "why": why}))?;
        to.observer.left_out(step, &why);
        Ok(again == OnBadLoss::Rollback)
    }

    /// Writes down the batch and how far every tensor's values reach; returns how to speak of it.
    fn write_details(&mut self, batch: &Batch, loss: f64, why: &str, to: &mut Outputs) -> Result<String> {
        // Once more: the backward pass has written over activations.
        self.pair.training_loss(batch, self.recipe.train.seed, self.state.step)?;
        let (step, streams) = (self.state.step + 1, self.pair.extremes(batch.len())?);
        if !self.pair.leads() {
            return Ok(String::new());
        }
        let path = to.run.path().join(format!("bad-loss-step-{step:08}.json"));
        let details = json!({
            "step": step, "loss": loss.to_string(), "why": why, "loss_mean": self.state.loss_mean,
            "lr": self.state.schedule.lr, "images": self.next_indices(), "injected": faults::in_step("nan", step),
            "streams": streams,
        });
        disk::write_whole(&path, &serde_json::to_vec_pretty(&details).unwrap_or_default())?;
        Ok(format!(", details are in {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_or_jumps_is_bad_and_noise_is_not() {
        let recipe = Recipe::quick();
        let bad = |mean, loss| why(&recipe, mean, 10, loss).is_some();
        assert!(bad(None, f64::NAN) && bad(Some(1.), f64::INFINITY));
        assert!(!bad(None, 50.), "nothing to compare the first one with");
        assert!(!bad(Some(0.01), 2.) && !bad(Some(2.3), 6.8) && !bad(Some(20.), 50.));
        assert!(bad(Some(0.01), 7.) && bad(Some(20.), 61.));
        let never = recipe.with("train.loss_spike=0").unwrap();
        assert_eq!(why(&never, Some(0.01), 10, 1e9), None);
    }
}
