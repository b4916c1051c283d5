//! Rows of a network's table as recipes write them: `"relu"`, `{ conv = "conv2", out = 256, kernel = 5, pad = 2 }`.
//!
//! The first key of a row says its kind; each kind has the keys of its fields and no others.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use toml::{Table, Value};

use super::spec::{Activation, Conv, Dense, Layer, Lrn, Placement, Pool, Reads};

/// The kinds of row that are a word.
const WORDS: [&str; 4] = ["relu", "tanh", "sigmoid", "softmax"];

/// The kinds of row with fields, and their fields.
const KINDS: [(&str, &[&str]); 7] = [
    ("conv", &["out", "kernel", "stride", "pad", "round_up", "reads", "bias", "std"]),
    ("dense", &["out", "reads", "bias", "std", "on"]),
    ("lrn", &["k", "alpha", "beta"]),
    ("spatial_lrn", &["k", "alpha", "beta"]),
    ("max_pool", &["stride", "ties"]),
    ("avg_pool", &["stride"]),
    ("dropout", &[]),
];

/// The word for as many units as there are classes.
const CLASSES: &str = "classes";

impl<'de> Deserialize<'de> for Layer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Layer, D::Error> {
        parse(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Layer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        print(self).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

fn parse(value: &Value) -> Result<Layer, String> {
    match value {
        Value::String(word) => match &**word {
            "relu" => Ok(Layer::Activation(Activation::Relu)),
            "tanh" => Ok(Layer::Activation(Activation::Tanh)),
            "sigmoid" => Ok(Layer::Activation(Activation::Sigmoid)),
            "softmax" => Ok(Layer::SoftmaxCrossEntropy),
            _ => Err(format!(
                "\"{word}\" is not a layer; expected one of {}, or a row such as {{ conv = \"conv1\", out = 96, kernel = 11 }}",
                WORDS.join(", ")
            )),
        },
        Value::Table(row) => parse_row(row),
        other => Err(format!(
            "{other} is not a layer; expected a word such as \"relu\" or a row such as {{ max_pool = 3, stride = 2 }}"
        )),
    }
}

fn parse_row(table: &Table) -> Result<Layer, String> {
    let kinds: Vec<_> = KINDS.iter().filter(|(kind, _)| table.contains_key(*kind)).collect();
    let [(kind, fields)] = kinds[..] else {
        let known: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        return Err(format!("row {} must have one of {}", inline(table), known.join(", ")));
    };
    let row = Row { kind, table };
    if let Some(key) = table.keys().find(|key| *key != kind && !fields.contains(&key.as_str())) {
        return Err(row.wrong(&format!("has no key \"{key}\"; it may have {}", fields.join(", "))));
    }
    Ok(match *kind {
        "conv" => Layer::Conv(Conv {
            name: row.name()?,
            out: row.count("out", None)?,
            kernel: row.count("kernel", None)?,
            stride: row.count("stride", Some(1))?,
            pad: row.number("pad", Some(0))?,
            round_up: row.flag("round_up")?,
            reads: row.reads()?,
            bias: row.float("bias", Some(0.))?,
            std: row.std()?,
        }),
        "dense" => Layer::Dense(Dense {
            name: row.name()?,
            out: match table.get("out") {
                Some(Value::String(word)) if word == CLASSES => None,
                _ => Some(row.count("out", None)?),
            },
            reads: row.reads()?,
            bias: row.float("bias", Some(0.))?,
            std: row.std()?,
            placement: match row.word("on", "split")? {
                "split" => Placement::Split,
                "stream0" => Placement::Stream0,
                found => return Err(row.wrong(&format!("on = \"{found}\"; expected \"split\" or \"stream0\""))),
            },
        }),
        "lrn" => Layer::Lrn(row.lrn()?),
        "spatial_lrn" => Layer::SpatialLrn(row.lrn()?),
        "max_pool" => Layer::MaxPool(row.pool()?),
        "avg_pool" => Layer::AvgPool(row.pool()?),
        _ => {
            let share = row.float("dropout", None)?;
            if !(0. ..1.).contains(&share) {
                return Err(row.wrong("needs a share of units to drop from 0 to below 1"));
            }
            Layer::Dropout(1. - share)
        }
    })
}

/// A row, named by its first key.
struct Row<'a> {
    kind: &'a str,
    table: &'a Table,
}

impl<'a> Row<'a> {
    /// An error about this row.
    fn wrong(&self, problem: &str) -> String {
        match &self.table[self.kind] {
            Value::String(name) => format!("layer {name}: {problem}"),
            _ => format!("layer {}: {problem}", inline(self.table)),
        }
    }

    /// Local response normalization. It divides by a power of k and a multiple of the sum of squares, which may be 0.
    fn lrn(&self) -> Result<Lrn, String> {
        let lrn = Lrn {
            n: self.count(self.kind, None)?,
            k: self.float("k", None)?,
            alpha: self.float("alpha", None)?,
            beta: self.float("beta", None)?,
        };
        match lrn {
            Lrn { k, .. } if k <= 0. => Err(self.wrong(&format!("k = {k}; expected more than 0"))),
            Lrn { alpha, .. } if alpha < 0. => Err(self.wrong(&format!("alpha = {alpha}; expected 0 or more"))),
            lrn => Ok(lrn),
        }
    }

    fn pool(&self) -> Result<Pool, String> {
        let all_ties = match self.word("ties", "first")? {
            "first" => false,
            "all" => true,
            found => return Err(self.wrong(&format!("ties = \"{found}\"; expected \"first\" or \"all\""))),
        };
        Ok(Pool { window: self.count(self.kind, None)?, stride: self.count("stride", None)?, all_ties })
    }

    /// The name: a letter, and then letters, digits and underscores.
    fn name(&self) -> Result<String, String> {
        let name = self.word(self.kind, "")?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(fits) {
            true => Ok(name.to_owned()),
            false => Err(format!("\"{name}\" is not a valid layer name; use letters, digits and _, such as conv1")),
        }
    }

    fn word(&self, key: &str, otherwise: &'a str) -> Result<&'a str, String> {
        match self.table.get(key) {
            None => Ok(otherwise),
            Some(Value::String(word)) => Ok(word),
            Some(found) => Err(self.wrong(&format!("{key} = {found}; expected text in quotes"))),
        }
    }

    fn number(&self, key: &str, otherwise: Option<usize>) -> Result<usize, String> {
        match (self.table.get(key), otherwise) {
            (None, Some(otherwise)) => Ok(otherwise),
            (None, None) => Err(self.wrong(&format!("has no {key}"))),
            // More than any network has, and little enough to multiply.
            (Some(Value::Integer(number @ 0..=1_000_000)), _) => Ok(*number as usize),
            (Some(found), _) => Err(self.wrong(&format!("{key} = {found}; expected a whole number up to a million"))),
        }
    }

    /// A number from 1.
    fn count(&self, key: &str, otherwise: Option<usize>) -> Result<usize, String> {
        match self.number(key, otherwise)? {
            0 => Err(self.wrong(&format!("{key} = 0; expected at least 1"))),
            number => Ok(number),
        }
    }

    fn float(&self, key: &str, otherwise: Option<f32>) -> Result<f32, String> {
        let found = match (self.table.get(key), otherwise) {
            (None, Some(otherwise)) => return Ok(otherwise),
            (None, None) => return Err(self.wrong(&format!("has no {key}"))),
            (Some(Value::Integer(number)), _) => *number as f32,
            (Some(Value::Float(number)), _) => *number as f32,
            (Some(found), _) => return Err(self.wrong(&format!("{key} = {found}; expected a number"))),
        };
        if found.is_finite() { Ok(found) } else { Err(self.wrong(&format!("{key} is not finite"))) }
    }

    fn std(&self) -> Result<Option<f32>, String> {
        let std = self.table.get("std").map(|_| self.float("std", None)).transpose()?;
        match std {
            Some(std) if std <= 0. => Err(self.wrong("std is not positive")),
            std => Ok(std),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        match self.table.get(key) {
            None => Ok(false),
            Some(Value::Boolean(flag)) => Ok(*flag),
            Some(found) => Err(self.wrong(&format!("{key} = {found}; expected true or false"))),
        }
    }

    fn reads(&self) -> Result<Reads, String> {
        match self.word("reads", "own")? {
            "own" => Ok(Reads::Own),
            "both" => Ok(Reads::Both),
            found => Err(self.wrong(&format!("reads = \"{found}\"; expected \"own\" or \"both\""))),
        }
    }
}

/// A row as it stands in a file.
fn inline(table: &Table) -> String {
    let pairs: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn print(layer: &Layer) -> Result<Value, String> {
    let mut row = Table::new();
    let mut put = |key: &str, value: Value, default: Option<Value>| {
        if Some(&value) != default.as_ref() {
            row.insert(key.into(), value);
        }
    };
    let count = |number: usize| Value::Integer(number as i64);
    let text = |text: &str| Value::String(text.into());
    // As short as the f32 allows: 0.0001, not 0.00009999999747378752.
    let float =
        |number: f32| number.to_string().parse().map(Value::Float).map_err(|_| format!("{number} is not a number"));
    let reads = |reads: Reads| text(if reads == Reads::Both { "both" } else { "own" });
    match layer {
        Layer::Activation(Activation::Relu) => return Ok(text("relu")),
        Layer::Activation(Activation::Tanh) => return Ok(text("tanh")),
        Layer::Activation(Activation::Sigmoid) => return Ok(text("sigmoid")),
        Layer::SoftmaxCrossEntropy => return Ok(text("softmax")),
        Layer::Conv(conv) => {
            put("conv", text(&conv.name), None);
            put("out", count(conv.out), None);
            put("kernel", count(conv.kernel), None);
            put("stride", count(conv.stride), Some(count(1)));
            put("pad", count(conv.pad), Some(count(0)));
            put("round_up", Value::Boolean(conv.round_up), Some(Value::Boolean(false)));
            put("reads", reads(conv.reads), Some(text("own")));
            put("bias", float(conv.bias)?, Some(Value::Float(0.)));
            conv.std.map_or(Ok(()), |std| float(std).map(|std| put("std", std, None)))?;
        }
        Layer::Dense(dense) => {
            put("dense", text(&dense.name), None);
            put("out", dense.out.map_or(text(CLASSES), count), None);
            put("reads", reads(dense.reads), Some(text("own")));
            put("bias", float(dense.bias)?, Some(Value::Float(0.)));
            dense.std.map_or(Ok(()), |std| float(std).map(|std| put("std", std, None)))?;
            let on = if dense.placement == Placement::Stream0 { "stream0" } else { "split" };
            put("on", text(on), Some(text("split")));
        }
        Layer::Lrn(lrn) | Layer::SpatialLrn(lrn) => {
            let kind = if matches!(layer, Layer::Lrn(_)) { "lrn" } else { "spatial_lrn" };
            put(kind, count(lrn.n), None);
            put("k", float(lrn.k)?, None);
            put("alpha", float(lrn.alpha)?, None);
            put("beta", float(lrn.beta)?, None);
        }
        Layer::MaxPool(pool) | Layer::AvgPool(pool) => {
            let kind = if matches!(layer, Layer::MaxPool(_)) { "max_pool" } else { "avg_pool" };
            put(kind, count(pool.window), None);
            put("stride", count(pool.stride), None);
            put("ties", text(if pool.all_ties { "all" } else { "first" }), Some(text("first")));
        }
        Layer::Dropout(keep) => put("dropout", float(1. - keep)?, None),
    }
    Ok(Value::Table(row))
}
