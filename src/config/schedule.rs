//! The learning rate over the epochs: the recipe's part.

use serde::{Deserialize, Serialize};

/// The `[schedule]` part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRecipe {
    /// The rule by which the rate is divided by ten: `plateau` or `epochs`.
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
    /// The rate of biases over that of weights (2012 code: 2).
    #[serde(default = "one")]
    pub bias_rate: f32,
    /// Whether biases' rates drop and change with those of weights (2012 code: no).
    #[serde(default = "yes")]
    pub bias_drops: bool,
    /// Rates of single layers from some epoch on; the last one that has begun counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_rates: Vec<LayerRate>,
}

/// A layer's own rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRate {
    /// `conv1`
    pub layer: String,
    /// Epochs before it.
    pub after: u64,
    /// Of its weights. 0 freezes the layer, biases and momentum included.
    pub rate: f32,
}

fn one() -> f32 {
    1.
}

fn yes() -> bool {
    true
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
}

impl Default for ScheduleRecipe {
    /// A constant rate.
    fn default() -> ScheduleRecipe {
        ScheduleRecipe {
            kind: ScheduleKind::Plateau,
            drops: 0,
            patience: 1,
            drop_epochs: Vec::new(),
            stop_patience: 0,
            bias_rate: one(),
            bias_drops: yes(),
            layer_rates: Vec::new(),
        }
    }
}

impl ScheduleRecipe {
    /// Whether the rate is divided by ten after so many epochs, whatever the error.
    pub fn drops_after(&self, epochs: u64) -> bool {
        self.kind == ScheduleKind::Epochs && self.drop_epochs.contains(&epochs)
    }

    /// The rate of a layer's parameters in epoch `epoch` (from 0), where the network's rate began as `first` and is
    /// `now`; 0 for no update at all.
    pub fn rate(&self, layer: &str, is_bias: bool, epoch: u64, [first, now]: [f32; 2]) -> f32 {
        let own = self.layer_rates.iter().rfind(|own| own.layer == layer && epoch >= own.after);
        let weights = own.map_or(now, |own| own.rate);
        match is_bias && weights > 0. {
            true if self.bias_drops => self.bias_rate * weights,
            true => self.bias_rate * first,
            false => weights,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_2012_touch_weights_alone_and_a_layer_has_its_own_rate() {
        let own = |after, rate| LayerRate { layer: "conv1".into(), after, rate };
        let source = ScheduleRecipe {
            kind: ScheduleKind::Epochs,
            drop_epochs: vec![25, 51, 79],
            bias_rate: 2.,
            bias_drops: false,
            layer_rates: vec![own(67, 1e-5), own(72, 0.)],
            ..ScheduleRecipe::default()
        };
        let drops: Vec<u64> = (1..90).filter(|&epochs| source.drops_after(epochs)).collect();
        assert_eq!(drops, [25, 51, 79]);
        let rates =
            |layer: &str, is_bias| [66, 67, 71, 72, 89].map(|epoch| source.rate(layer, is_bias, epoch, [0.01, 1e-4]));
        assert_eq!(rates("conv1", false), [1e-4, 1e-5, 1e-5, 0., 0.]);
        assert_eq!(rates("conv1", true), [0.02, 0.02, 0.02, 0., 0.]);
        assert_eq!((rates("conv2", false), rates("conv2", true)), ([1e-4; 5], [0.02; 5]));
        let together = ScheduleRecipe { bias_drops: true, ..source };
        assert_eq!(together.rate("conv1", true, 67, [0.01, 1e-4]), 2e-5);
        let plain = ScheduleRecipe::default();
        assert_eq!([true, false].map(|is_bias| plain.rate("conv1", is_bias, 80, [0.01, 0.5])), [0.5; 2]);
    }
}
