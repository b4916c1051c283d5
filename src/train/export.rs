//! The merged network as one safetensors file with the names and layouts of a PyTorch module (grouped convolutions),
//! for `scripts/load_exported.py` and everything else that reads the format.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::session::Session;
use crate::backend::{Backend, DropoutScaling};
use crate::data::{Batch, Images};
use crate::disk::tensors::{self, NamedTensor};
use crate::engine::merge::merge;
use crate::engine::stream::Tensor;
use crate::error::Result;
use crate::net::plan::{Op, Plan};
use crate::net::spec::Activation;
use crate::rng::{Philox, Purpose};
use crate::shapes::LrnShape;

/// Images of noise whose logits go into the file, so that a reader can check itself.
const CHECK_IMAGES: usize = 2;

/// Writes the network of `session`: its parameters, its table as metadata, and a few images with their logits.
pub fn export<B: Backend>(session: &mut Session<B>, path: &Path) -> Result<()> {
    let (count, input) = (CHECK_IMAGES.min(session.recipe().train.batch_size), *session.input().shape());
    let (rng, elems) = (Philox::new(0, Purpose::Check, 0), count * input.channels * input.size * input.size);
    // As wide as bytes less their mean, times the recipe's scale.
    let value = |at| rng.normal([at, 0, 0, 0]) as f32 * 64. * input.scale;
    let images: Vec<f32> = (0..elems as u32).map(value).collect();
    session.pair().evaluate(&Batch { images: Images::Ready(images.clone()), labels: vec![0; count] })?;
    let logits = session.pair().logits(count)?;
    let scaling = session.recipe().train.dropout;
    let metadata = HashMap::from([
        ("format".to_owned(), "pt".to_owned()),
        ("layers".to_owned(), layers(session.pair().plans(), scaling).to_string()),
        ("classes".to_owned(), json!(session.data().classes).to_string()),
    ]);
    let merged = merge(session.pair(), Tensor::Value)?;
    let named = |name: String, shape: Vec<usize>, values: Vec<f32>| NamedTensor { name, shape, values };
    let mut tensors: Vec<_> =
        merged.into_iter().map(|(name, tensor)| named(name, tensor.shape, tensor.values)).collect();
    tensors.push(named("check.images".into(), vec![count, input.channels, input.size, input.size], images));
    tensors.push(named("check.logits".into(), vec![count, logits[0].len()], logits.concat()));
    tensors::write(path, &tensors, Some(metadata)).map(drop)
}

/// The table, one row per layer, as the script reads it.
fn layers(plans: &[Plan], scaling: DropoutScaling) -> Value {
    let streams = plans.len();
    let rows = plans[0].layers.iter().filter_map(|layer| {
        let groups = if layer.exchange_point.is_some() || layer.reads_image() { 1 } else { streams };
        Some(match layer.op {
            Op::Conv(s) => {
                // Zeros that the last window reads beyond the image, besides the padding.
                let after = |out: usize, size: usize| ((out - 1) * s.stride + s.r).saturating_sub(size + s.pad);
                let padding = [s.pad, after(s.q, s.w), s.pad, after(s.p, s.h)];
                json!({"op": "conv", "name": &*layer.name, "stride": s.stride, "groups": groups, "padding": padding})
            }
            Op::Dense(_) => json!({"op": "dense", "name": &*layer.name}),
            Op::Activation(Activation::Relu, _) => json!({"op": "relu"}),
            Op::Activation(Activation::Tanh, _) => json!({"op": "tanh"}),
            Op::Activation(Activation::Sigmoid, _) => json!({"op": "sigmoid"}),
            Op::Lrn(s) => {
                json!({"op": "lrn", "n": s.n, "k": s.k, "alpha": f64::from(s.alpha), "beta": s.beta, "groups": streams})
            }
            Op::SpatialLrn(s) => {
                let LrnShape { n, k, alpha, beta, .. } = s.norm;
                json!({"op": "spatial_lrn", "n": n, "k": k, "alpha": f64::from(alpha), "beta": beta})
            }
            Op::MaxPool(s) => json!({"op": "max_pool", "window": s.window, "stride": s.stride}),
            Op::AvgPool(s) => json!({"op": "avg_pool", "window": s.window, "stride": s.stride}),
            Op::Dropout(s) => json!({"op": "dropout", "keep": s.keep, "scaling": scaling}),
            Op::ReluLrnMaxPool(..) => unreachable!("no device runs this plan"),
            Op::SoftmaxCrossEntropy(_) | Op::Absent => return None,
        })
    });
    rows.collect()
}
