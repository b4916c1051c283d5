//! The learning rate over time: divided by ten when the held-out error stops improving (paper, section 5).

use serde::{Deserialize, Serialize};

use crate::recipe::ScheduleRecipe;

/// Where the schedule stands; part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The rate now.
    pub lr: f32,
    /// Drops so far.
    pub drops: u32,
    /// Least held-out error so far.
    pub best_error: Option<f64>,
    /// Epochs since then.
    pub epochs_since_best: u32,
}

impl Schedule {
    /// At the start of a run.
    pub fn new(lr: f32) -> Schedule {
        Schedule { lr, drops: 0, best_error: None, epochs_since_best: 0 }
    }

    /// After an epoch with this held-out error (0 to 1). Returns whether the rate was dropped.
    pub fn after_epoch(&mut self, recipe: &ScheduleRecipe, error: f64) -> bool {
        if self.best_error.is_none_or(|best| error < best) {
            self.best_error = Some(error);
            self.epochs_since_best = 0;
            return false;
        }
        self.epochs_since_best += 1;
        let due = self.epochs_since_best >= recipe.patience && self.drops < recipe.drops;
        if due {
            self.lr /= 10.;
            self.drops += 1;
            self.epochs_since_best = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_when_the_error_stops_improving_and_not_more_often_than_allowed() {
        let recipe = ScheduleRecipe { drops: 2, patience: 2 };
        let mut schedule = Schedule::new(1.);
        let dropped: Vec<bool> = [0.5, 0.4, 0.4, 0.41, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
            .map(|error| schedule.after_epoch(&recipe, error))
            .to_vec();
        assert_eq!(dropped, [false, false, false, true, false, false, true, false, false, false]);
        assert!((schedule.lr - 0.01).abs() < 1e-9);
    }
}
