//! Where the 2012 code differs from the text of the paper: each difference is a field of a recipe.

mod support;

use alexnet_split::config::Recipe;
use alexnet_split::engine::stream::Tensor;
use alexnet_split::net::plan::ParamKind;

/// Bits of each parameter's value and momentum, by name, of both streams.
type Bits = Vec<(String, ParamKind, Vec<Vec<u32>>)>;

/// Rate 0 is no update at all: the momentum of the steps before does not coast, in weights that are updated in the
/// backward pass either.
#[test]
fn a_frozen_layer_does_not_move() {
    let frozen = "schedule.layer_rates=[{ layer = \"conv1\", after = 1, rate = 0.0 }, { layer = \"fc6\", after = 1, rate = 0.0 }]";
    let recipe = Recipe::find("paper").unwrap().with(frozen).unwrap();
    let (net, mut pair) = support::pair(&support::tiny_options(), 6, 2);
    let batch = support::batch(&net, 6, 1.);
    let mut after_epoch = |epoch: u64| -> Bits {
        pair.train_step(&batch, 1, epoch, |_| None::<String>, |param| recipe.update(param, epoch, 0.01, epoch + 1))
            .unwrap();
        let tensors = pair.read_params(&[Tensor::Value, Tensor::State(0)]).unwrap();
        let params = pair.plans().iter().flat_map(|plan| plan.params.clone()).zip(tensors.into_iter().flatten());
        let bits = |values: Vec<f32>| values.iter().map(|v| v.to_bits()).collect();
        params.map(|(param, tensors)| (param.name, param.kind, tensors.into_iter().map(bits).collect())).collect()
    };
    let (moving, still) = (after_epoch(0), after_epoch(1));
    for ((name, _, before), (_, _, after)) in moving.iter().zip(&still) {
        let is_frozen = name.starts_with("conv1.") || name.starts_with("fc6.");
        assert!(before[1].iter().any(|v| v << 1 != 0), "{name} had a momentum");
        assert_eq!(before == after, is_frozen, "{name}");
    }
}
