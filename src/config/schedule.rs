//! The learning rate over the epochs: the recipe's part.

use serde::{Deserialize, Serialize};

/// The `[schedule]` part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRecipe {
    /// The rule by which the rate is divided by ten: `plateau`, `epochs` or `source`.
    #[serde(default)]
    pub kind: ScheduleKind,
    /// For `plateau`: how often at most; 0 keeps the rate constant.
    pub drops: u32,
    /// For `plateau`: epochs without a better held-out error before a drop.
    pub patience: u32,
    /// For `epochs`: after which numbers of epochs, such as `[30, 60]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop_epochs: Vec<u64>,
    /// Epochs without a better held-out error after which the run ends before its time; 0 for never.
    #[serde(default)]
    pub stop_patience: u32,
}

/// The rule by which the rate is divided by ten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// When the held-out error stops improving, as the paper says (section 5).
    #[default]
    Plateau,
    /// After given epochs.
    Epochs,
    /// As the 2012 code did it, [`Change`] by change.
    Source,
}

/// A change that the 2012 code made after an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// All rates are divided by ten.
    Drop,
    /// One layer's rate, from then on.
    LayerRate(&'static str, f32),
    /// No more colour noise.
    NoColourNoise,
}

/// The changes in the 90 epochs of the 2012 code, after how many.
const SOURCE: [(u64, Change); 6] = [
    (25, Change::Drop),
    (51, Change::Drop),
    (67, Change::LayerRate("conv1", 1e-5)),
    (67, Change::NoColourNoise),
    (72, Change::LayerRate("conv1", 0.)),
    (79, Change::Drop),
];

impl Default for ScheduleRecipe {
    /// A constant rate.
    fn default() -> ScheduleRecipe {
        ScheduleRecipe { kind: ScheduleKind::Plateau, drops: 0, patience: 1, drop_epochs: Vec::new(), stop_patience: 0 }
    }
}

impl ScheduleRecipe {
    fn table(&self) -> &'static [(u64, Change)] {
        if self.kind == ScheduleKind::Source { &SOURCE } else { &[] }
    }

    /// Whether the rate is divided by ten after so many epochs, whatever the error.
    pub fn drops_after(&self, epochs: u64) -> bool {
        let drop = |change: &(u64, Change)| *change == (epochs, Change::Drop);
        self.table().iter().any(drop) || (self.kind == ScheduleKind::Epochs && self.drop_epochs.contains(&epochs))
    }

    /// The rate of a layer's parameters in epoch `epoch` (from 0) where the whole network's is `lr`. In the 2012 code
    /// biases learn at twice the rate of weights.
    pub fn rate(&self, layer: &str, is_bias: bool, epoch: u64, lr: f32) -> f32 {
        let changes = self.table().iter().filter(|(after, _)| epoch >= *after);
        let mut own = changes.filter_map(|(_, change)| match change {
            Change::LayerRate(name, rate) if *name == layer => Some(*rate),
            _ => None,
        });
        let twice = if self.kind == ScheduleKind::Source && is_bias { 2. } else { 1. };
        twice * own.next_back().unwrap_or(lr)
    }

    /// The number of epochs with colour noise; `None` where there is no end to it.
    pub fn colour_noise_epochs(&self) -> Option<u64> {
        self.table().iter().find(|(_, change)| *change == Change::NoColourNoise).map(|(after, _)| *after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_2012_is_followed() {
        let source = ScheduleRecipe { kind: ScheduleKind::Source, ..ScheduleRecipe::default() };
        let drops: Vec<u64> = (1..90).filter(|&epochs| source.drops_after(epochs)).collect();
        assert_eq!(drops, [25, 51, 79]);
        let conv1 = |epoch| source.rate("conv1", false, epoch, 1e-4);
        assert_eq!([66, 67, 71, 72, 89].map(conv1), [1e-4, 1e-5, 1e-5, 0., 0.]);
        assert_eq!(source.rate("conv2", false, 80, 1e-5), 1e-5);
        assert_eq!(source.rate("conv2", true, 80, 1e-5), 2e-5);
        assert_eq!(source.colour_noise_epochs(), Some(67));
        let epochs = ScheduleRecipe { kind: ScheduleKind::Epochs, drop_epochs: vec![2, 4], ..source };
        assert_eq!([1, 2, 3, 4].map(|after| epochs.drops_after(after)), [false, true, false, true]);
        assert_eq!(epochs.rate("conv1", true, 80, 0.5), 0.5);
    }
}
