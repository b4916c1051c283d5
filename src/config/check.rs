//! Values of a recipe that no run could use.

use super::Recipe;
use crate::error::{Error, Result};

impl Recipe {
    /// Refuses values that no run could use.
    pub(super) fn check(&self) -> Result<()> {
        let refuse =
            |key: &str, found: String, expected: &str| Err(Error::recipe(key, format!("{found} is not {expected}")));
        let rate = |value: f32| value.is_finite() && value >= 0.;
        let share = |value: Option<f32>| value.is_none_or(|value| (0. ..1.).contains(&value));
        let fits = |c: char| c.is_alphanumeric() || "-_. ".contains(c);
        if let Some((layer, rate)) = self.wrong_layer_rate() {
            let found = format!("rate {rate} of layer {layer:?}");
            return refuse("schedule.layer_rates", found, "a rate from 0 of a layer of the network");
        }
        match self {
            // It is part of a folder's name.
            r if r.name.trim().is_empty() || r.name.starts_with('.') || !r.name.chars().all(fits) => {
                refuse("name", format!("{:?}", r.name), "a name of letters, digits, spaces, -, _ and .")
            }
            r if !(share(r.optimizer.beta1) && share(r.optimizer.beta2)) => refuse(
                "optimizer",
                format!("{:?}", [r.optimizer.beta1, r.optimizer.beta2]),
                "two betas from 0 to below 1",
            ),
            r if r.optimizer.epsilon.is_some_and(|epsilon| !(epsilon > 0. && epsilon.is_finite())) => {
                refuse("optimizer.epsilon", format!("{:?}", r.optimizer.epsilon), "a positive number")
            }
            r if r.train.batch_size == 0 => refuse("train.batch_size", "0".into(), "at least 1"),
            r if !(rate(r.optimizer.lr) && r.optimizer.lr > 0.) => {
                refuse("optimizer.lr", r.optimizer.lr.to_string(), "a positive number")
            }
            r if !rate(r.optimizer.weight_decay) => {
                refuse("optimizer.weight_decay", r.optimizer.weight_decay.to_string(), "a number from 0")
            }
            r if !(rate(r.momentum()) && r.momentum() < 1.) => {
                refuse("optimizer.momentum", r.momentum().to_string(), "a number from 0 to below 1")
            }
            r if r.input.resize == 0 || r.input.resize > 4096 => {
                refuse("input.resize", r.input.resize.to_string(), "from 1 to 4096")
            }
            r if !(r.input.colour_noise >= 0. && r.input.colour_noise.is_finite()) => {
                refuse("input.colour_noise", r.input.colour_noise.to_string(), "a number from 0")
            }
            r if !(rate(r.input.colour_noise_divisor) && r.input.colour_noise_divisor > 0.) => {
                refuse("input.colour_noise_divisor", r.input.colour_noise_divisor.to_string(), "a positive number")
            }
            r if r.input.crop_chunk == 0 => refuse("input.crop_chunk", "0".into(), "at least 1"),
            r if !r.input.scale.is_finite() || r.input.scale == 0. => {
                refuse("input.scale", r.input.scale.to_string(), "a number other than 0, which makes all images alike")
            }
            r if !(r.train.loss_spike == 0. || r.train.loss_spike > 1.) => {
                refuse("train.loss_spike", r.train.loss_spike.to_string(), "0 or more than 1")
            }
            r if !(rate(r.schedule.bias_rate) && r.schedule.bias_rate > 0.) => {
                refuse("schedule.bias_rate", r.schedule.bias_rate.to_string(), "a positive number")
            }
            r if r.schedule.patience == 0 => refuse("schedule.patience", "0".into(), "at least 1"),
            _ => Ok(()),
        }
    }

    /// A layer's rate that is none, or of no layer: its name and rate.
    fn wrong_layer_rate(&self) -> Option<(&str, f32)> {
        let known = |name: &str| self.net.layers.iter().any(|layer| layer.name() == Some(name));
        let rates = self.schedule.layer_rates.iter().map(|own| (own.layer.as_str(), own.rate));
        rates.into_iter().find(|(layer, rate)| !(known(layer) && rate.is_finite() && *rate >= 0.))
    }
}
