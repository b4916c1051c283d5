//! Every hyper-parameter, with its source. A recipe prints as TOML and loads from TOML.

mod check;
mod find;
mod named;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};

use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::data::input::InputRecipe;
use crate::error::{Error, Result};
use crate::net::init::{BiasInit, WeightInit};
use crate::net::options::NetOptions;
use crate::net::plan::{Param, ParamKind};
use crate::net::spec::Layer;
use crate::shapes::{DropoutScaling, Precision, Update};

pub use named::{ABLATIONS, NAMES};
pub use schedule::{LayerRate, ScheduleKind, ScheduleRecipe};

/// All choices of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The run's name.
    pub name: String,
    /// The network.
    pub net: NetOptions,
    /// Initial weights.
    pub init: InitRecipe,
    /// Images to input.
    pub input: InputRecipe,
    /// The loop.
    pub train: TrainRecipe,
    /// The update.
    pub optimizer: OptimizerRecipe,
    /// The learning rate over time.
    pub schedule: ScheduleRecipe,
}

/// The `[init]` part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitRecipe {
    /// `paper`, `he`, `xavier` or `pytorch`.
    pub weights: WeightInit,
    /// `table`, `zero` or `pytorch`.
    pub biases: BiasInit,
}

/// The `[train]` part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Times that every training image is used.
    pub epochs: u64,
    /// Images per step.
    pub batch_size: usize,
    /// `fp32`, `tf32` or `bf16`: how matrix products are computed. `auto`, the default, is bf16 on GPUs and fp32 on CPUs;
    /// a run's own recipe says which of them it was.
    #[serde(default, deserialize_with = "precision_or_auto", skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Of all random numbers.
    pub seed: u64,
    /// `test` or `train`: when dropout scales.
    pub dropout: DropoutScaling,
    /// `shuffled` or `fixed`: the order of the images.
    #[serde(default)]
    pub order: ImageOrder,
    /// Steps between checkpoints within an epoch; 0 for none (one is written after every epoch in any case).
    pub checkpoint_steps: u64,
    /// `stop`, `skip` or `rollback`: what is done where the loss is not finite, too large, or jumps.
    #[serde(default)]
    pub on_bad_loss: OnBadLoss,
    /// The factor over the mean of recent losses (or over the loss of chance, if that is more) from which a loss is a
    /// jump, once a hundred are in the mean; 0 for never, and for no limit to a loss that is finite.
    #[serde(default = "default_loss_spike")]
    pub loss_spike: f64,
}

/// A loss that is three times chance or more is not noise.
const LOSS_SPIKE: f64 = 3.;

fn default_loss_spike() -> f64 {
    LOSS_SPIKE
}

/// `auto` asks for no precision.
fn precision_or_auto<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Precision>, D::Error> {
    let word = String::deserialize(deserializer)?;
    match &*word {
        "auto" => Ok(None),
        word => Precision::deserialize(word.into_deserializer()).map(Some),
    }
}

/// The policy for a loss that is not finite, or jumps; in any case the update of that step is not made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnBadLoss {
    /// The run ends.
    #[default]
    Stop,
    /// The step is left out.
    Skip,
    /// The weights of the newest checkpoint come back, and all steps since then are left out.
    Rollback,
}

/// The `[optimizer]` part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// `sgd` or `adam`.
    pub kind: OptimizerKind,
    /// Learning rate at the start.
    pub lr: f32,
    /// Of the weights; biases have none.
    #[serde(default)]
    pub weight_decay: f32,
    /// For SGD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f32>,
    /// For Adam: decay of the first moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f32>,
    /// For Adam: decay of the second moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f32>,
    /// For Adam: added to the root of the second moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f32>,
}

/// The optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum, as the paper writes it.
    Sgd,
    /// Adam.
    Adam,
}

/// The order of the training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageOrder {
    /// Drawn anew for every epoch.
    #[default]
    Shuffled,
    /// Drawn once, as the batches of the 2012 code were.
    Fixed,
}

impl Recipe {
    /// With one value replaced: `key` is dotted (`optimizer.lr`), `value` is TOML (text may go without quotes).
    pub fn with(self, assignment: &str) -> Result<Recipe> {
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| Error::recipe(assignment, "expected key=value, such as optimizer.lr=0.01"))?;
        let (key, value) = (key.trim(), value.trim());
        let value = match toml::from_str::<toml::Table>(&format!("value = {value}")) {
            Ok(mut parsed) => parsed.remove("value").unwrap_or(toml::Value::String(value.into())),
            Err(_) => toml::Value::String(value.into()),
        };
        let mut whole = self.to_table();
        let mut at = &mut whole;
        let (parents, last) = key.rsplit_once('.').unwrap_or(("", key));
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            at = match at.get_mut(part) {
                Some(toml::Value::Table(table)) => table,
                _ => return Err(Error::recipe(key, format!("no such key; {}", known_keys(&whole)))),
            };
        }
        // An integer is taken as a float where the old value is a float.
        let value = match (at.get(last), value) {
            (Some(toml::Value::Float(_)), toml::Value::Integer(number)) => toml::Value::Float(number as f64),
            (_, value) => value,
        };
        at.insert(last.into(), value);
        Recipe::from_table(whole, key)
    }

    /// As TOML; a line for each conv and dense layer and what follows it.
    pub fn to_toml(&self) -> String {
        let plain = |error: toml::ser::Error| unreachable!("a recipe is plain data: {error}");
        let mut rest = self.clone();
        let mut layers = String::new();
        for layer in std::mem::take(&mut rest.net.layers) {
            let row = toml::Value::try_from(&layer).unwrap_or_else(plain);
            let begins = matches!(layer, Layer::Conv(_) | Layer::Dense(_));
            layers += &format!("{}{row},", if begins { "\n    " } else { " " });
        }
        let text = toml::to_string(&rest).unwrap_or_else(|error| unreachable!("a recipe is plain data: {error}"));
        text.replacen("layers = []\n", &format!("layers = [{layers}\n]\n"), 1)
    }

    fn to_table(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_else(|error| unreachable!("a recipe is plain data: {error}"))
    }

    fn from_table(table: toml::Table, key: &str) -> Result<Recipe> {
        let recipe: Recipe = table.try_into().map_err(|error: toml::de::Error| {
            let problem = error.message().replace('\n', " ");
            // Its text ends with the place, the path of keys that its message does not have.
            let text = error.to_string();
            let at = text.trim_end().rsplit_once("\nin `").map(|(_, at)| at.trim_end_matches('`'));
            let at = at.filter(|at| *at != key).map(|at| format!("{at}: ")).unwrap_or_default();
            Error::recipe(key, format!("{at}{}", problem.trim()))
        })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The values in which `other` differs, as `key is this, not that`.
    pub fn differences(&self, other: &Recipe) -> Vec<String> {
        let [ours, theirs] = [self, other].map(|recipe| flattened(&recipe.to_table()));
        let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let told = |value: Option<&String>| value.map_or("not given".to_owned(), |value| value.replace('\n', " "));
        let differ = keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key));
        differ.map(|key| format!("{key} is {}, not {}", told(ours.get(key)), told(theirs.get(key)))).collect()
    }

    fn momentum(&self) -> f32 {
        self.optimizer.momentum.unwrap_or(0.9)
    }

    /// State tensors per parameter that the optimizer keeps, by name.
    pub fn state_names(&self) -> &'static [&'static str] {
        match self.optimizer.kind {
            OptimizerKind::Sgd => &["momentum"],
            OptimizerKind::Adam => &["adam_m", "adam_v"],
        }
    }

    /// The update of a parameter in epoch `epoch`, from 0, where the network's rate is `lr`; `step` counts from 1.
    pub fn update(&self, param: &Param, epoch: u64, lr: f32, step: u64) -> Update {
        let is_bias = param.kind == ParamKind::Bias;
        let layer = param.name.split('.').next().unwrap_or_default();
        let lr = self.schedule.rate(layer, is_bias, epoch, [self.optimizer.lr, lr]);
        let weight_decay = if is_bias { 0. } else { self.optimizer.weight_decay };
        match self.optimizer.kind {
            OptimizerKind::Sgd => Update::Sgd { lr, momentum: self.momentum(), weight_decay },
            OptimizerKind::Adam => Update::Adam {
                lr,
                beta1: self.optimizer.beta1.unwrap_or(0.9),
                beta2: self.optimizer.beta2.unwrap_or(0.999),
                epsilon: self.optimizer.epsilon.unwrap_or(1e-8),
                weight_decay,
                step,
            },
        }
    }
}

/// A table's values by dotted key.
pub fn flattened(table: &toml::Table) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(table) => {
                values.extend(flattened(table).into_iter().map(|(below, value)| (format!("{key}.{below}"), value)));
            }
            // In f32, as all numbers of a recipe are: 0.01 must not become 0.009999999776482582.
            toml::Value::Float(value) => drop(values.insert(key.clone(), (*value as f32).to_string())),
            value => drop(values.insert(key.clone(), value.to_string())),
        }
    }
    values
}

fn known_keys(table: &toml::Table) -> String {
    let groups: Vec<&str> = table.iter().filter(|(_, value)| value.is_table()).map(|(key, _)| key.as_str()).collect();
    format!("keys begin with {}", groups.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_recipe_survives_toml_and_json() {
        for name in NAMES.into_iter().chain(ABLATIONS) {
            let recipe = Recipe::find(name).unwrap();
            assert_eq!(Recipe::from_text(&recipe.to_toml(), name, Path::new(""), 0).unwrap(), recipe);
            let json = serde_json::to_string(&recipe).unwrap();
            assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
        }
    }

    #[test]
    fn one_value_can_be_set() {
        let recipe = Recipe::find("quick")
            .unwrap()
            .with("optimizer.lr=1")
            .unwrap()
            .with("net.conv_channels=[8,12,16,16,12]")
            .unwrap();
        let recipe = recipe.with("input.mean=pixel").unwrap().with("optimizer.kind=adam").unwrap();
        assert_eq!(recipe.optimizer.lr, 1.);
        assert_eq!(recipe.net.conv_channels, Some(vec![8, 12, 16, 16, 12]));
        assert_eq!(recipe.state_names().len(), 2);
    }

    #[test]
    fn unknown_keys_and_wrong_values_name_the_key() {
        for wrong in
            ["optimizer.rate=1", "optimiser.lr=1", "optimizer.lr=fast", "optimizer.lr=-1", "train.batch_size=0", "lr"]
        {
            let message = Recipe::find("quick").unwrap().with(wrong).unwrap_err().to_string();
            assert!(message.contains(wrong.split('=').next().unwrap()), "{message}");
        }
    }
}
