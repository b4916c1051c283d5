//! Where the 2012 code differs from the text of the paper: each difference is a field of a recipe.

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::backend::{Backend, PoolShape, TensorShape, Update, Window};
use alexnet_split::config::Recipe;
use alexnet_split::data::input::Preprocessor;
use alexnet_split::data::{DataSet, ImageSet, Images};
use alexnet_split::engine::stream::Tensor;
use alexnet_split::net::options::NetOptions;
use alexnet_split::net::plan::{Op, ParamKind, Plan};
use alexnet_split::net::spec::Net;
use alexnet_split::train::check_grads::check_grads;

use crate::support;
use crate::support::place::{Place, checkpoint, metrics, succeeded};

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

/// Random images of 3 x 12 x 12, of which the network sees 8 x 8.
fn images(count: usize) -> (DataSet, Vec<u8>) {
    let pixels: Vec<u8> = support::normals(count * 3 * 144, 50., 7).iter().map(|v| (v + 128.) as u8).collect();
    let set = || ImageSet::in_memory([3, 12, 12], pixels.clone(), vec![0; count]);
    (DataSet { train: set(), held_out: set(), classes: vec!["noise".into()], prepared: None }, pixels)
}

/// `convdata.py`: 32 neighbours are cropped and mirrored in one way, the centre of the mean is subtracted, colours change,
/// and all of it is divided by 1.1.
#[test]
fn images_come_as_convdata_makes_them() {
    let (count, size) = (70, 8);
    let (data, pixels) = images(count);
    let sets = ["input.resize=12", "input.crop_chunk=32", "input.mean_crop=center", "input.colour_noise_divisor=1.1"];
    let sets = sets.into_iter().chain(["input.colour_noise_epochs=67"]);
    let recipe = sets.fold(Recipe::find("paper").unwrap(), |recipe, set| recipe.with(set).unwrap());
    let input = Preprocessor::new(&recipe.input, [3, size, size], &data).unwrap();
    let indices: Vec<u32> = (0..count as u32).rev().collect();
    let batch = |epoch| match input.batch(&data.train, &indices, Some((6, epoch))).unwrap().images {
        Images::Bytes(bytes, windows) => (bytes, windows),
        Images::Ready(_) => panic!("not yet"),
    };
    let (bytes, windows) = batch(0);
    let place = |w: &Window| (w.row, w.col, w.mirrored);
    for chunk in windows.chunks(32) {
        assert!(chunk.iter().all(|window| place(window) == place(&chunk[0])), "{chunk:?}");
        assert!(chunk.windows(2).all(|pair| pair[0].shift != pair[1].shift), "every image has its own colours");
    }
    assert!(place(&windows[0]) != place(&windows[32]) && windows.iter().any(|window| window.mirrored));

    let mean = |at: usize| (0..count).map(|i| f64::from(pixels[i * 432 + at])).sum::<f64>() / count as f64;
    let mut expected = Vec::new();
    for (image, w) in indices.iter().zip(&windows) {
        for (c, p, q) in (0..3 * 64).map(|at| (at / 64, at / 8 % 8, at % 8)) {
            let col = w.col as usize + if w.mirrored { 7 - q } else { q };
            let pixel = pixels[*image as usize * 432 + c * 144 + (w.row as usize + p) * 12 + col];
            let centre = mean(c * 144 + (2 + p) * 12 + 2 + q);
            expected.push((f64::from(pixel) - centre + f64::from(w.shift[c])) / 1.1);
        }
    }
    let (backend, maps) = (CpuBackend::default(), TensorShape::Maps(count, [3, size, size]));
    let mut y = backend.alloc(maps).unwrap();
    backend.augment(input.shape(), &bytes, &windows, &input.mean().to_vec(), maps, &mut y).unwrap();
    support::tolerance::assert_close("input", &y, &expected, support::tolerance::OPERATION);

    // When the colours stop changing, images are as they are at test time.
    let (_, windows) = batch(67);
    assert!(windows.iter().all(|window| window.shift == [0.; 3] && window.scale == 1.));
    // Without a chunk every image has its own crop.
    let alone = Preprocessor::new(&recipe.with("input.crop_chunk=1").unwrap().input, [3, size, size], &data).unwrap();
    let Images::Bytes(_, windows) = alone.batch(&data.train, &indices, Some((6, 0))).unwrap().images else { panic!() };
    assert!(windows[..32].iter().any(|window| place(window) != place(&windows[0])));
}

/// cuda-convnet's pooling: where all values are equal, a place has the gradient of every window that it is in.
#[test]
fn each_tied_maximum_gets_the_whole_gradient() {
    let s = PoolShape { c: 1, h: 3, w: 3, window: 2, stride: 1, p: 2, q: 2, all_ties: true };
    for backend in [CpuBackend::default(), CpuBackend::default().as_reference()] {
        let gradient = |all_ties| {
            let mut dx = vec![7.; 9];
            let s = PoolShape { all_ties, ..s };
            backend.max_pool_backward(&s, 1, &vec![5.; 9], &vec![5.; 4], &vec![1.; 4], &mut dx).unwrap();
            dx
        };
        assert_eq!(gradient(true), [1., 2., 1., 2., 4., 2., 1., 2., 1.]);
        assert_eq!(gradient(false), [1., 1., 0., 1., 1., 0., 0., 0., 0.]);
    }
}

/// The recipe, row by row beside `layers-145.cfg`, and its rates beside the end of `layer-params-145.cfg`.
#[test]
fn the_recipe_is_layers_145() {
    let recipe = Recipe::find("source").unwrap();
    let net = Net::from_options(&recipe.net).unwrap();
    let plan = Plan::new(&net, 0).unwrap();
    let names: Vec<&str> = plan.layers.iter().map(|layer| &*layer.name).collect();
    let first = ["conv1", "norm1", "pool1", "relu1", "conv2", "relu2", "norm2", "cnorm2", "pool2", "conv3", "relu3"];
    let last =
        ["conv4", "relu4", "conv5", "pool5", "relu5", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8", "loss"];
    assert_eq!(names, [&first[..], &last[..]].concat());
    for layer in &plan.layers {
        match layer.op {
            Op::Lrn(s) => assert_eq!((s.n, s.k, s.alpha, s.beta), (5, 2., 1e-4 / 5., 0.75)),
            Op::SpatialLrn(s) => {
                assert_eq!((s.norm.n, s.norm.k, s.norm.alpha, s.norm.beta), (5, 1., (1e-3 / 25f64) as f32, 0.75))
            }
            Op::MaxPool(s) => assert!(s.all_ties && (s.window, s.stride) == (3, 2)),
            _ => {}
        }
    }
    let all: Vec<_> = Plan::all(&net).unwrap().into_iter().flat_map(|plan| plan.params).collect();
    assert_eq!(all.iter().map(|param| param.elems()).sum::<usize>(), 60_965_224);
    assert!(all.iter().all(|param| param.std.is_some() == ["conv3", "conv4", "conv5"].contains(&&param.name[..5])));
    // Its last epochs. The rate is the recipe's after three drops.
    let rates = all.iter().map(|param| match recipe.update(param, 89, 1e-5, 1) {
        Update::Sgd { lr, momentum: 0.9, weight_decay } => (param.name.as_str(), param.kind, lr, weight_decay),
        other => panic!("{other:?}"),
    });
    for (name, kind, lr, weight_decay) in rates {
        let is_weight = kind == ParamKind::Weight;
        assert_eq!(weight_decay, if is_weight { 0.0005 } else { 0. }, "{name}");
        let expected = if name.starts_with("conv1.") {
            0.
        } else if is_weight {
            1e-5
        } else {
            0.02
        };
        assert_eq!(lr, expected, "{name}");
    }
}

/// Finite differences through the whole network, exchanges included.
#[test]
fn the_gradients_of_source_are_right() {
    let options = NetOptions { layers: support::layers_of("source"), ..support::tiny_options() };
    let (net, mut pair) = support::pair(&options, 6, 2);
    let checks = check_grads(&mut pair, &support::batch(&net, 6, 1.), 3).unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| !check.passes()).collect();
    assert!(checks.len() > 40 && failed.is_empty(), "{failed:#?}");
}

/// On colour images, with an end to colour noise, drops and a frozen layer within reach; resumed, the bits are the same.
#[test]
fn source_trains() {
    let place = Place::new();
    let sets = [
        "input.colour_noise_epochs=1",
        "schedule.drop_epochs=[1]",
        "schedule.layer_rates=[{ layer = \"conv1\", after = 1, rate = 0.0 }]",
    ];
    let recipe: Vec<&str> =
        ["--recipe", "source"].into_iter().chain(sets.iter().flat_map(|set| ["--set", set])).collect();
    succeeded(place.train(&[&recipe[..], &["--gpus", "0", "--epochs", "2", "--out", "run"]].concat()));
    let losses: Vec<f64> = metrics(&place.path("run")).iter().filter_map(|row| row["loss"].as_f64()).collect();
    assert!(losses.len() >= 10 && losses.iter().all(|loss| loss.is_finite() && *loss < 4.), "{losses:?}");
    succeeded(
        place.train(&[&recipe[..], &["--gpus", "0", "--epochs", "2", "--steps", "7", "--out", "parts"]].concat()),
    );
    place.ok(&["--resume", "parts"]);
    assert_eq!(checkpoint(&place.path("parts")), checkpoint(&place.path("run")));
}
