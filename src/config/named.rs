//! The recipes that have a name, each number with its source.

use super::*;

/// Names of the built-in recipes, the default first.
pub const NAMES: [&str; 4] = ["quick", "paper", "fashion", "half"];

impl Recipe {
    /// The text of the paper. At test time it has ten views: `eval --views 10`.
    pub fn paper() -> Recipe {
        Recipe {
            name: "paper".into(),
            // Figure 2 draws fc8 as one layer; the 2012 code has it on the first GPU.
            net: NetOptions { table: Table::Alexnet, fc8: Some(Placement::Stream0), ..NetOptions::default() },
            init: InitRecipe { weights: WeightInit::Paper, biases: BiasInit::Table }, // section 5
            input: InputRecipe {
                resize: 256,                         // section 2
                crop: Crop::Random,                  // 4.1
                flip: true,                          // 4.1
                colour_noise: 0.1,                   // 4.1
                mean: Mean::Image(MeanImage::Pixel), // section 2
                scale: 1.,                           // section 2: "raw RGB values"
            },
            train: TrainRecipe {
                epochs: 90,                       // section 5: "roughly 90 cycles"
                batch_size: 128,                  // section 5
                precision: Some(Precision::Fp32), // as the GTX 580
                seed: 2012,
                dropout: DropoutScaling::Test, // 4.2: "multiply their outputs by 0.5" at test time
                checkpoint_steps: 0,
                order: Order::Shuffled,
                on_bad_loss: OnBadLoss::Stop,
                loss_spike: LOSS_SPIKE,
            },
            optimizer: OptimizerRecipe {
                kind: OptimizerKind::Sgd,
                lr: 0.01,             // section 5
                weight_decay: 0.0005, // section 5; on weights only, as in the 2012 code
                momentum: Some(0.9),  // section 5
                beta1: None,
                beta2: None,
                epsilon: None,
            },
            // Section 5: divided by 10 "when the validation error rate stopped improving", three times.
            schedule: ScheduleRecipe { drops: 3, patience: 3, ..ScheduleRecipe::default() },
        }
    }

    /// The paper's network with what makes it learn within minutes on a small set. On Fashion-MNIST the paper's
    /// initialization and rate leave the loss at ln 10 for the whole first epoch; with He's, zero biases and pixels of
    /// 0 to 1, one epoch of 7,000 images reaches 70% at a rate of 0.002 and 75% at 0.005.
    pub fn quick() -> Recipe {
        let paper = Recipe::paper();
        Recipe {
            name: "quick".into(),
            net: NetOptions { fc8: Some(Placement::Split), ..paper.net }, // balances the two streams
            init: InitRecipe { weights: WeightInit::He, biases: BiasInit::Zero },
            input: InputRecipe {
                resize: 224,
                crop: Crop::Center,
                flip: false,
                colour_noise: 0.,
                scale: 1. / 255.,
                ..paper.input
            },
            train: TrainRecipe { epochs: 1, batch_size: 32, precision: None, ..paper.train },
            optimizer: OptimizerRecipe { lr: 0.005, ..paper.optimizer },
            schedule: ScheduleRecipe::default(),
        }
    }

    /// The single tower of "Dive into Deep Learning" (section 8.1) on Fashion-MNIST, trained with Adam from PyTorch's
    /// default initialization.
    pub fn fashion() -> Recipe {
        Recipe {
            name: "fashion".into(),
            net: NetOptions { table: Table::Fashion, ..NetOptions::default() },
            init: InitRecipe { weights: WeightInit::PyTorch, biases: BiasInit::PyTorch },
            input: InputRecipe {
                resize: 224,
                crop: Crop::Center,
                flip: false,
                colour_noise: 0.,
                mean: Mean::Value(0.),
                scale: 1. / 255.,
            },
            train: TrainRecipe {
                epochs: 5,
                batch_size: 128,
                precision: None,
                seed: 2012,
                dropout: DropoutScaling::Train,
                checkpoint_steps: 0,
                order: Order::Shuffled,
                on_bad_loss: OnBadLoss::Stop,
                loss_spike: LOSS_SPIKE,
            },
            optimizer: adam(0.001),
            schedule: ScheduleRecipe::default(),
        }
    }

    /// One stream alone, as many PyTorch courses teach it on small photo sets: pixels of -1 to 1, Adam at 0.0002,
    /// PyTorch's default initialization.
    pub fn half() -> Recipe {
        Recipe {
            name: "half".into(),
            net: NetOptions { table: Table::Half, ..NetOptions::default() },
            init: InitRecipe { weights: WeightInit::PyTorch, biases: BiasInit::PyTorch },
            input: InputRecipe {
                resize: 224,
                crop: Crop::Center,
                flip: true,
                colour_noise: 0.,
                mean: Mean::Value(127.5),
                scale: 1. / 127.5,
            },
            train: TrainRecipe {
                epochs: 10,
                batch_size: 32,
                precision: None,
                seed: 2012,
                dropout: DropoutScaling::Train,
                checkpoint_steps: 0,
                order: Order::Shuffled,
                on_bad_loss: OnBadLoss::Stop,
                loss_spike: LOSS_SPIKE,
            },
            optimizer: adam(0.0002),
            schedule: ScheduleRecipe::default(),
        }
    }
}

fn adam(lr: f32) -> OptimizerRecipe {
    OptimizerRecipe {
        kind: OptimizerKind::Adam,
        lr,
        weight_decay: 0.,
        momentum: None,
        // Kingma and Ba, 2015.
        beta1: Some(0.9),
        beta2: Some(0.999),
        epsilon: Some(1e-8),
    }
}
