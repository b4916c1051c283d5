//! The same network in PyTorch (scripts/golden.py, f64): every activation, every gradient, the losses of ten steps, the
//! parameters after them, and the logits at test time.

use std::collections::BTreeMap;

use crate::support;
use crate::support::tolerance::{GOLDEN, GOLDEN_FINAL, GOLDEN_LOSS, assert_close};
use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::backend::{DropoutScaling, Update};
use alexnet_split::data::{Batch, Images};
use alexnet_split::engine::merge::{MergedTensor, merge, split};
use alexnet_split::engine::pair::Pair;
use alexnet_split::engine::stream::{Record, Tensor};
use alexnet_split::net::options::NetOptions;
use alexnet_split::net::plan::{ParamKind, Plan};
use alexnet_split::net::spec::{Activation, Net, Placement};
use safetensors::SafeTensors;

/// Of the dropout masks; as in the script.
const SEED: u64 = 1234567890123;

/// A tensor's shape and values.
type Shaped = (Vec<usize>, Vec<f64>);

/// One file of the script's.
struct Golden(BTreeMap<String, Shaped>);

impl Golden {
    fn load(name: &str) -> Golden {
        let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, view): (String, safetensors::tensor::TensorView)| {
            let values = match view.dtype() {
                safetensors::Dtype::F32 => {
                    view.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
                }
                safetensors::Dtype::F64 => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                _ => view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            };
            (name, (view.shape().to_vec(), values))
        };
        Golden(file.tensors().into_iter().map(tensor).collect())
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.0.get(name).unwrap_or_else(|| panic!("no tensor {name}")).1
    }

    /// All tensors named `prefix.`..., without the prefix.
    fn all(&self, prefix: &str) -> Vec<(&str, &Shaped)> {
        let named = |(name, tensor)| Some((str::strip_prefix(name, prefix)?.strip_prefix('.')?, tensor));
        self.0.iter().filter_map(|(name, tensor)| named((name.as_str(), tensor))).collect()
    }

    fn batch(&self) -> Batch {
        let images = Images::Ready(self.values("image").iter().map(|&v| v as f32).collect());
        Batch { images, labels: self.values("labels").iter().map(|&v| v as u32).collect() }
    }

    fn set_params(&self, pair: &mut Pair<CpuBackend>) {
        let tensor = |(shape, values): &Shaped| MergedTensor {
            shape: shape.clone(),
            values: values.iter().map(|&v| v as f32).collect(),
        };
        let merged = self.all("param").into_iter().map(|(name, found)| (name.to_owned(), tensor(found))).collect();
        split(pair, Tensor::Value, &merged).unwrap();
    }

    fn compare(&self, prefix: &str, merged: &BTreeMap<String, MergedTensor>, tolerance: f64) {
        let expected = self.all(prefix);
        assert_eq!(expected.len(), merged.len(), "{prefix}: number of tensors");
        for (name, (shape, values)) in expected {
            assert_eq!(shape, &merged[name].shape, "{prefix}.{name}");
            assert_close(&format!("{prefix}.{name}"), &merged[name].values, values, tolerance);
        }
    }
}

/// The streams' recorded tensors as those of the merged network: image by image, stream 0's channels first. A gradient
/// by the input of a layer that has no units in a stream is whole already.
pub fn merged_records(pair: &mut Pair<CpuBackend>, n: usize) -> BTreeMap<String, Vec<f32>> {
    let streams: Vec<Vec<Record>> =
        (0..pair.plans().len()).map(|stream| pair.stream(stream).recorded().to_vec()).collect();
    let mut merged = BTreeMap::new();
    for (index, (name, _)) in streams[0].iter().enumerate() {
        let parts: Vec<&[f32]> = streams.iter().map(|records| &records[index].1[..]).collect();
        assert!(streams.iter().all(|records| records[index].0 == *name));
        let image = |image: usize| parts.iter().flat_map(move |part| &part[part.len() / n * image..][..part.len() / n]);
        merged.insert(name.clone(), (0..n).flat_map(image).copied().collect());
    }
    merged
}

fn check(
    file: &str,
    options: NetOptions,
    scaling: DropoutScaling,
    states: usize,
    update: impl Fn(ParamKind, u64) -> Update + Sync,
) {
    let golden = Golden::load(file);
    let net = Net::from_options(&options).unwrap();
    let batch = golden.batch();
    let n = batch.len();
    let mut pair = Pair::on_cpu(&net, n, states, 2, scaling).unwrap();
    golden.set_params(&mut pair);

    pair.evaluate(&batch).unwrap();
    assert_close("test_logits", &pair.logits(n).unwrap().concat(), golden.values("test_logits"), GOLDEN);

    pair.start_recording().unwrap();
    pair.forward_backward(&batch, SEED, 0).unwrap();
    let records = merged_records(&mut pair, n);
    let activations = golden.all("activation");
    let activations_count = activations.len();
    assert_eq!(activations_count, Plan::new(&net, 0).unwrap().layers.len() - 1, "one for every layer but the loss");
    for (name, (_, values)) in activations {
        assert_close(&format!("activation.{name}"), &records[name], values, GOLDEN);
    }
    let input_gradients = golden.all("input_gradient");
    assert_eq!(input_gradients.len(), activations_count, "one for every layer but the first, and one for the loss");
    for (name, (_, values)) in input_gradients.into_iter().filter(|(name, _)| *name != "loss") {
        assert_close(&format!("input_gradient.{name}"), &records[&format!("{name}.dx")], values, GOLDEN);
    }
    golden.compare("gradient", &merge(&mut pair, Tensor::Gradient).unwrap(), GOLDEN);

    let step = |step: u64| {
        let loss = pair.forward_backward(&batch, SEED, step).unwrap().loss();
        pair.update(|param| update(param.kind, step + 1)).unwrap();
        loss as f32
    };
    let losses: Vec<f32> = (0..10).map(step).collect();
    assert_close("losses", &losses, golden.values("losses"), GOLDEN_LOSS);
    golden.compare("final", &merge(&mut pair, Tensor::Value).unwrap(), GOLDEN_FINAL);
}

fn two_streams(fc8: Placement) {
    let options = NetOptions { fc8: Some(fc8), ..support::tiny_options() };
    check("two_streams", options, DropoutScaling::Test, 1, |kind, _| Update::Sgd {
        lr: 0.0005,
        momentum: 0.9,
        weight_decay: if kind == ParamKind::Weight { 0.0005 } else { 0. },
    });
}

#[test]
fn two_streams_with_split_fc8() {
    two_streams(Placement::Split);
}

#[test]
fn two_streams_with_fc8_on_stream_0() {
    two_streams(Placement::Stream0);
}

#[test]
fn one_stream_with_tanh_adam_and_inverted_dropout() {
    let options = NetOptions {
        layers: support::layers_of("fashion"),
        image_channels: Some(1),
        image_size: Some(80),
        activation: Some(Activation::Tanh),
        pool: Some("2/2".into()),
        ..support::tiny_options()
    };
    check("one_stream", options, DropoutScaling::Train, 2, |_, step| Update::Adam {
        lr: 0.001,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.,
        step,
    });
}

#[test]
fn lenet_with_sigmoids_average_pooling_and_plain_sgd() {
    let options = NetOptions {
        layers: support::layers_of("lenet"),
        image_channels: Some(1),
        image_size: Some(20),
        conv_channels: Some(vec![4, 6]),
        ..support::tiny_options()
    };
    let sgd = Update::Sgd { lr: 0.5, momentum: 0., weight_decay: 0. };
    check("lenet", options, DropoutScaling::Train, 1, |_, _| sgd);
}
