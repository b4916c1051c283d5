//! The paper's claims, the recipes that test each, and the published numbers.

/// A claim of the paper, or of what is told about it.
pub struct Claim {
    pub name: &'static str,
    /// Of the paper.
    pub section: &'static str,
    pub says: &'static str,
    /// The base's recipe; `None` where any network of two streams will do.
    pub base: Option<&'static str>,
    pub variants: &'static [Variant],
    pub measure: Measure,
}

/// An ablation, as a recipe, and what was published of it.
pub struct Variant {
    pub recipe: &'static str,
    /// In the measure's unit: the difference to the base, or the ratio.
    pub published: Option<f64>,
}

/// What is read off each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Top-1 error of the held-out images at the end, percent. Variants are compared by difference.
    HeldOutError,
    /// Epochs until the mean error of an epoch's training batches is 25% or less. Variants are compared by ratio.
    EpochsTo25,
    /// The difference of the mean colourfulness of both streams' first filters at the end, without its sign. Variants
    /// are compared by difference.
    ColourGap,
}

const fn variant(recipe: &'static str, published: Option<f64>) -> Variant {
    Variant { recipe, published }
}

type Text = &'static str;

const fn ablation(name: Text, section: Text, says: Text, variants: &'static [Variant]) -> Claim {
    Claim { name, section, says, base: None, variants, measure: Measure::HeldOutError }
}

/// All claims, in the paper's order. Differences of errors are in points of ILSVRC's top-1 error.
pub const CLAIMS: [Claim; 9] = [
    Claim {
        name: "relu",
        section: "3.1, figure 1",
        says: "ReLU learns CIFAR-10 to 25% training error six times as fast as tanh",
        base: Some("figure1"),
        variants: &[variant("figure1-tanh", Some(6.))],
        measure: Measure::EpochsTo25,
    },
    ablation("two-gpus", "3.2", "two GPUs are better than one with half the filters", &[variant("one-gpu", Some(1.7))]),
    ablation(
        "communication",
        "3.2, 3.5",
        "streams that meet at some layers (the 2012 code has the number of those that do not, which are wider, too)",
        &[variant("no-communication", Some(1.1)), variant("communication-everywhere", None)],
    ),
    ablation("normalization", "3.3", "local response normalization helps", &[variant("no-lrn", Some(1.4))]),
    ablation("overlap", "3.4", "pooling that overlaps is better", &[variant("pool-2-2", Some(0.4))]),
    ablation(
        "augmentation",
        "4.1",
        "crops and mirror images prevent overfitting; changed colours bring over 1%",
        &[variant("no-crops", None), variant("no-colour-noise", Some(1.))],
    ),
    ablation("dropout", "4.2", "without dropout the network overfits substantially", &[variant("no-dropout", None)]),
    Claim {
        name: "specialization",
        section: "6.1, figure 3",
        says: "one stream's first filters become colourful, the other's colourless, in every run",
        base: None,
        variants: &[variant("communication-everywhere", None), variant("one-tower", None)],
        measure: Measure::ColourGap,
    },
    ablation(
        "depth",
        "7",
        "each middle layer that is taken away costs about 2%",
        &[
            variant("no-conv3", Some(2.)),
            variant("no-conv4", Some(2.)),
            variant("no-conv5", Some(2.)),
            variant("no-fc7", Some(2.)),
        ],
    ),
];

impl Measure {
    /// With its unit.
    pub fn name(self) -> &'static str {
        match self {
            Measure::HeldOutError => "held-out error, %",
            Measure::EpochsTo25 => "epochs to 25% training error",
            Measure::ColourGap => "gap in colourfulness",
        }
    }

    /// A variant beside the base, as it is published.
    pub fn compare(self, variant: f64, base: f64) -> f64 {
        match self {
            Measure::EpochsTo25 => variant / base,
            Measure::HeldOutError | Measure::ColourGap => variant - base,
        }
    }
}
