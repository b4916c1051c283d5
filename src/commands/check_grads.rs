//! `check-grads`: gradients against finite differences.

use crate::backend::Precision;
use crate::data::{Batch, Images};
use crate::engine::pair::Pair;
use crate::error::{Error, Result};
use crate::net::init::{BiasInit, WeightInit};
use crate::net::options::NetOptions;
use crate::net::spec::{Layer, Net};
use crate::rng::{Philox, Purpose};
use crate::train::check_grads;

use super::device_flags::{self, on_devices};
use crate::cli::CheckGradsArgs;

/// Images in the batch: a few, so that every layer's sum over images is exercised.
const IMAGES: usize = 6;

/// Convolutions and dense layers of the table: 5 and 3 in every recipe that has a name.
fn layers_of(net: &NetOptions) -> [usize; 2] {
    let count = |is: fn(&Layer) -> bool| net.layers.iter().filter(|layer| is(layer)).count();
    [count(|layer| matches!(layer, Layer::Conv(_))), count(|layer| matches!(layer, Layer::Dense(_)))]
}

pub fn check_grads(args: &CheckGradsArgs) -> Result<()> {
    let mut recipe = super::recipe(&args.recipe, "paper")?;
    let net = &mut recipe.net;
    // Every parameter takes several forward passes: a small network of the same shape unless sizes are asked for.
    net.image_size.get_or_insert(100);
    net.classes.get_or_insert(7);
    if layers_of(net) == [5, 3] {
        net.conv_channels.get_or_insert(vec![8, 12, 16, 16, 12]);
        net.dense_units.get_or_insert(vec![24, 20]);
    }
    let net = Net::from_options(&recipe.net)?;
    let rng = Philox::new(recipe.train.seed, Purpose::Check, 1);
    let pixels = (IMAGES * net.image.iter().product::<usize>()) as u32;
    let batch = Batch {
        images: Images::Ready((0..pixels).map(|i| rng.normal([i, 0, 0, 0]) as f32).collect()),
        labels: (0..IMAGES).map(|i| (3 * i % net.classes()) as u32).collect(),
    };
    let (devices, streams) = (device_flags::choose(&args.device, Some(Precision::Fp32), net.streams), net.streams);
    // Rounded operands would hide the differences.
    let options = device_flags::gpu_options(&args.device, Some(Precision::Fp32));
    let (checks, device) = on_devices!(devices, options, streams, |contexts, about| {
        let mut pair = Pair::new(&net, contexts, None, IMAGES, 1, recipe.train.dropout)?;
        pair.init(recipe.train.seed, WeightInit::He, BiasInit::Zero)?;
        (check_grads::check_grads(&mut pair, &batch, recipe.train.seed)?, about)
    });
    if args.json {
        checks.iter().for_each(|check| outln!("{}", serde_json::json!(check)));
    } else {
        outln!("device {device}; {} network of {} channels\n", recipe.name, net.image[0]);
        outln!(
            "{:<7} {:<20} {:<10} {:>14} {:>14} {:>10}",
            "stream",
            "parameter",
            "direction",
            "gradient",
            "difference",
            "error"
        );
        for check in &checks {
            let direction = ["gradient", "one half", "other half"][check.direction as usize];
            let verdict = if check.passes() { "ok" } else { "WRONG" };
            outln!(
                "{:<7} {:<20} {direction:<10} {:>14.6e} {:>14.6e} {:>9.3}% {verdict}",
                check.stream,
                check.parameter,
                check.analytic,
                check.numeric,
                100. * check.error
            );
        }
    }
    let failed = checks.iter().filter(|check| !check.passes()).count();
    if failed > 0 {
        return Err(Error::GradientCheck { failed, checked: checks.len() });
    }
    if !args.json {
        outln!("\nall {} checks within {}%", checks.len(), 100. * check_grads::TOLERANCE);
    }
    Ok(())
}
