//! One training step of the two-stream AlexNet with the library, on the CPU and on random images.
//!
//! ```sh
//! cargo run --release --example two_streams
//! ```

use alexnet_split::config::Recipe;
use alexnet_split::data::{Batch, Images};
use alexnet_split::engine::pair::Pair;
use alexnet_split::error::Result;
use alexnet_split::net::plan::Op;
use alexnet_split::net::spec::Net;
use alexnet_split::rng::{Philox, Purpose};
use alexnet_split::shapes::SoftmaxShape;

/// Images in the batch.
const IMAGES: usize = 8;

fn main() -> Result<()> {
    // The recipe has every hyper-parameter, as `describe --recipe quick --toml` prints it. `?` ends `main` with the
    // error where a call fails; `mut` marks what will change.
    let mut recipe = Recipe::find("quick")?;
    recipe.net.classes = Some(10);
    let seed = recipe.train.seed;

    // The table of layers, as in recipes/paper.toml: what PyTorch calls the module, but without weights.
    let net = Net::from_options(&recipe.net)?;

    // The two streams with their weights, optimizer state and buffers, each in a thread of its own. SGD keeps one state
    // tensor for each parameter, the momentum.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let states = recipe.state_names().len();
    let mut pair = Pair::on_cpu(&net, IMAGES, states, threads, recipe.train.dropout)?;
    pair.init(seed, recipe.init.weights, recipe.init.biases)?;

    // Random images, N C H W, and a label for each. The generator is counter-based: value i depends on the seed and i
    // alone, not on what was drawn before.
    let rng = Philox::new(seed, Purpose::Check, 0);
    let values = (IMAGES * net.image.iter().product::<usize>()) as u32;
    let images = (0..values).map(|i| rng.normal([i, 0, 0, 0]) as f32).collect();
    let labels = (0..IMAGES).map(|image| (image % net.classes()) as u32).collect();
    let batch = Batch { images: Images::Ready(images), labels };

    // loss.backward() and optimizer.step() in one. The first closure may check the loss and refuse the update; this one
    // does not. The second gives each parameter its learning rate, momentum and weight decay.
    let update = |param: &_| recipe.update(param, 0, recipe.optimizer.lr, 1);
    let (result, _) = pair.train_step::<()>(&batch, seed, 0, |_| None, update)?;
    println!("loss {:.4}, mean of {} images", result.loss(), result.images);

    // What crossed between the streams: activations forward, and as many gradients backward.
    for layer in &pair.plans()[0].layers {
        if let Some(point) = layer.exchange_point {
            println!("before {}: {} values each way, forward and backward", layer.name, IMAGES * point.elems());
        }
        if let Op::SoftmaxCrossEntropy(shape) = layer.op
            && shape.split
        {
            println!("softmax: {} values each way, forward", IMAGES * SoftmaxShape::STATS);
        }
    }
    Ok(())
}
