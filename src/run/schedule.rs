//! The current learning rate, and its changes. The recipe's part of the schedule is in `config/schedule.rs`.

use serde::{Deserialize, Serialize};

use crate::config::{ScheduleKind, ScheduleRecipe};

/// The state of the schedule; part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The rate now.
    pub lr: f32,
    /// Drops so far.
    pub drops: u32,
    /// Least held-out error so far.
    pub best_error: Option<f64>,
    /// Epochs since then or since the newest drop.
    pub epochs_since_best: u32,
    /// Epochs since then.
    pub epochs_without_better: u32,
}

impl Schedule {
    /// At the start of a run.
    pub fn new(lr: f32) -> Schedule {
        Schedule { lr, drops: 0, best_error: None, epochs_since_best: 0, epochs_without_better: 0 }
    }

    /// After so many epochs, the newest with this held-out error (0 to 1). Returns whether the rate was divided by ten.
    pub fn after_epoch(&mut self, recipe: &ScheduleRecipe, epochs: u64, error: f64) -> bool {
        if self.best_error.is_none_or(|best| error < best) {
            self.best_error = Some(error);
            (self.epochs_since_best, self.epochs_without_better) = (0, 0);
        } else {
            self.epochs_since_best += 1;
            self.epochs_without_better += 1;
        }
        let stuck = recipe.kind == ScheduleKind::Plateau
            && self.epochs_since_best >= recipe.patience
            && self.drops < recipe.drops;
        let due = stuck || recipe.drops_after(epochs);
        if due {
            self.lr /= 10.;
            self.drops += 1;
            self.epochs_since_best = 0;
        }
        due
    }

    /// Whether the run has gone on for long enough without a better error.
    pub fn is_over(&self, recipe: &ScheduleRecipe) -> bool {
        recipe.stop_patience > 0 && self.epochs_without_better >= recipe.stop_patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERRORS: [f64; 10] = [0.5, 0.4, 0.4, 0.41, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3];

    #[test]
    fn drops_when_the_error_stops_improving_and_not_more_often_than_allowed() {
        let recipe = ScheduleRecipe { drops: 2, patience: 2, ..ScheduleRecipe::default() };
        let mut schedule = Schedule::new(1.);
        let dropped = (1..).zip(ERRORS).map(|(epochs, error)| schedule.after_epoch(&recipe, epochs, error));
        let dropped: Vec<bool> = dropped.collect();
        assert_eq!(dropped, [false, false, false, true, false, false, true, false, false, false]);
        assert!((schedule.lr - 0.01).abs() < 1e-9);
    }

    #[test]
    fn ends_when_drops_do_not_help_either() {
        let recipe = ScheduleRecipe { drops: 1, patience: 2, stop_patience: 4, ..ScheduleRecipe::default() };
        let mut schedule = Schedule::new(1.);
        let over = (1..).zip(ERRORS).map(|(epochs, error)| {
            schedule.after_epoch(&recipe, epochs, error);
            schedule.is_over(&recipe)
        });
        assert_eq!(over.collect::<Vec<bool>>(), [false, false, false, false, false, false, false, false, true, true]);
    }

    #[test]
    fn given_epochs_do_not_look_at_the_error() {
        let kind = ScheduleKind::Epochs;
        let recipe = ScheduleRecipe { kind, drops: 5, drop_epochs: vec![1, 3], ..ScheduleRecipe::default() };
        let mut schedule = Schedule::new(1.);
        let dropped = [(1, 0.1), (2, 0.5), (3, 0.6), (4, 0.7)];
        let dropped = dropped.map(|(epochs, error)| schedule.after_epoch(&recipe, epochs, error));
        assert_eq!(dropped, [true, false, true, false]);
    }
}
