//! Commands and flags: one definition each.

mod others;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::config::OnBadLoss;
use crate::data::shards::Store;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use others::*;

/// Train the two-GPU AlexNet of 2012: one network in two halves ("streams"), one per device.
///
/// Without a command it trains: two streams of 48/128/192/192/128 channels and 2048/2048 units, each on its own device
/// (or both emulated on the CPU), that exchange activations before conv3, fc6, fc7 and fc8 and nowhere else.
#[derive(Parser)]
#[command(name = "alexnet-split", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP, after_long_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub train: TrainArgs,

    /// Log timings: -v steps and checkpoints, -vv layers and exchanges, -vvv operations.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

const AFTER_HELP: &str = "\
Examples:
  alexnet-split                                 train on the images that come with the program, about two minutes
  alexnet-split --recipe fashion --data DIR     the textbook's single tower on your Fashion-MNIST folder
  alexnet-split --set net.fc8=stream0 --lr 0.001 --out runs/try
  alexnet-split --resume runs/try --epochs 2    resume; bit-for-bit identical to an uninterrupted run
  alexnet-split describe                        the paper's network: shapes, parameters, exchanges
  alexnet-split describe --recipe quick --toml  a recipe to change and give to --recipe FILE
  alexnet-split predict runs/try                the best classes for some held-out images
  alexnet-split predict runs/try cat.jpg        and for your own image
  alexnet-split filters runs/try filters.png    its first-layer filters, as the paper's figure 3
  alexnet-split report runs/try                 an HTML page: curves, streams, filters, mistakes
  alexnet-split prepare DIR data/mine           makes a folder of images, or ImageNet's files, ready for --data

Exit codes: 0 success, 1 a file could not be read or written, 2 wrong flags, recipe or network, 3 wrong data, 4 a run
directory or checkpoint cannot be used, 5 the CPU cannot be used as asked, 6 the loss diverged, 7 gradients wrong, 8 a
stream failed, 20 the disk is full, 130 and 143 ended by SIGINT or SIGTERM, with everything saved. GPUs: 10 no driver,
11 fewer than asked for, 12 too old, 13 NVRTC missing or failing, 14 NCCL missing or too old, 15 out of memory, 16 no
peer access with --exchange copy, 17 a CUDA call or a kernel failed, 18 the exchange failed or timed out, 19 the other
process cannot be reached or has ended.";

#[derive(Subcommand)]
pub enum Command {
    /// Train a network (the default command).
    Train(TrainArgs),
    /// Make a data set ready for training: scale its images once, and write them as shards.
    Prepare(PrepareArgs),
    /// Measure a run's newest checkpoint on the held-out images.
    Eval(EvalArgs),
    /// Show a run's best five classes for image files or held-out images, with the images.
    Predict(PredictArgs),
    /// Draw a run's first-layer filters as the paper's figure 3, and measure how much more colour one stream's have.
    Filters(FiltersArgs),
    /// Print the network: shapes, parameters, multiply-adds, exchanges and memory, by stream.
    Describe(DescribeArgs),
    /// Compare the gradients of every parameter with finite differences, through the exchange.
    CheckGrads(CheckGradsArgs),
    /// Measure training speed by layer and pass, beside the machine's peak and PyTorch.
    Bench(BenchArgs),
    /// Make one HTML page about a run (curves, streams, filters, confusions), or one that compares several.
    Report(ReportArgs),
    /// Test the paper's claims on your images: runs of a network and of its ablations, over several seeds.
    Reproduce(ReproduceArgs),
    /// List the runs of a folder: state, error and speed of each.
    Runs(RunsArgs),
    /// Write a run's network, both halves merged, for PyTorch.
    Export(ExportArgs),
    /// Convert a run of two streams to a single stream, or back.
    Convert(ConvertArgs),
    /// List a run's checkpoints, or verify their checksums.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Check what this machine has for training on GPUs, and say how to get what is missing.
    Doctor(DoctorArgs),
    /// Compile the CUDA kernels for several GPU architectures; no GPU needed. Prints registers, shared memory, spills.
    Kernels(KernelsArgs),
    /// Print a shell's completions, for a file that the shell reads at its start.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Not a command: the answer says that it is a flag.
    #[command(hide = true)]
    Resume {
        /// The run.
        run: Option<PathBuf>,
    },
    /// Print the manual page: alexnet-split man | man -l -
    Man,
}

/// The recipe, and changes to it.
#[derive(Args, Clone)]
pub struct RecipeArgs {
    /// quick, paper, source, fashion, half, tiny, lenet, figure1, an ablation of the paper (docs/recipes.md), or a TOML file [default: quick
    /// for train; paper for describe, bench, check-grads].
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    /// Override one value of the recipe, such as optimizer.lr=0.01 or net.fc8=stream0; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Batch size: images per step [recipe: train.batch_size].
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Seed of all random numbers [recipe: train.seed].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// The devices and how they are used.
#[derive(Args, Clone)]
pub struct DeviceArgs {
    /// Number of GPUs: 2 = one per stream, 1 = both streams on it, 0 = CPU [default: the most that are usable].
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub gpus: Option<u8>,
    /// Operations: fast, or reference, the simplest possible code, on the CPU, for tiny networks.
    #[arg(long, value_enum, default_value_t = BackendArg::Fast, value_name = "fast|reference", hide_possible_values = true)]
    pub backend: BackendArg,
    /// CPU threads of all streams together [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Matrix products in fp32, or with operands rounded to tf32 (GPUs) or bf16 (GPUs, and CPUs with AVX512_BF16)
    /// [recipe: train.precision; default: bf16 on GPUs, fp32 on CPUs and in eval, predict and export]. A resumed run
    /// keeps its own.
    #[arg(long, value_enum, value_name = "fp32|tf32|bf16", hide_possible_values = true)]
    pub precision: Option<PrecisionArg>,
    /// Transport between two GPUs: nccl, copy (direct copies within one process), or auto: copy where one process has
    /// both GPUs and they reach each other's memory, nccl elsewhere.
    #[arg(
        long,
        value_enum,
        default_value_t = TransportArg::Auto,
        value_name = "auto|nccl|copy",
        hide_possible_values = true
    )]
    pub exchange: TransportArg,
    /// Longest time that the GPUs wait for each other before the run ends with an error.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub exchange_timeout: u16,
}

/// `--backend`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    Fast,
    Reference,
}

/// `--precision`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    Fp32,
    Tf32,
    Bf16,
}

/// `--exchange`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportArg {
    Auto,
    Nccl,
    Copy,
}

/// The data set.
#[derive(Args, Clone)]
pub struct DataArgs {
    /// A folder that `prepare` has made, or one with the files of MNIST (IDX, plain or .gz) or CIFAR (binary)
    /// [default: of a run its own, else the images that come with the program].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `--classes-from`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClassesFromArg {
    Folders,
    Names,
}

/// The policy for images that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BadImages {
    /// The first one ends the preparation.
    Stop,
    /// They are left out, and listed.
    Skip,
}

#[derive(Args)]
#[command(after_help = PREPARE_HELP)]
pub struct PrepareArgs {
    /// The data set.
    pub source: PathBuf,
    /// The folder to write; a preparation that was interrupted goes on where it was.
    #[arg(required_unless_present = "dry_run")]
    pub folder: Option<PathBuf>,
    /// Rows and columns: the shorter side is scaled to it and the centre kept (paper, section 2).
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(8..=4096))]
    pub size: u16,
    /// How images are stored: jpeg, or raw pixels, eight times as large.
    #[arg(long, value_enum, default_value = "jpeg", hide_possible_values = true)]
    pub store: Store,
    /// Quality of JPEG.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: u8,
    /// Share of each class to hold out if the set has no validation part; 0 holds out nothing, and training then refuses
    /// the set.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", value_parser = share)]
    pub val_fraction: f64,
    /// The folder of images to train on (of SOURCE, or any other), where the set does not show it.
    #[arg(long, value_name = "DIR")]
    pub train: Option<PathBuf>,
    /// The folder of images to hold out (of SOURCE, or any other), where the set does not show it.
    #[arg(long, value_name = "DIR")]
    pub val: Option<PathBuf>,
    /// A file with the class names, one a line, in the order of their numbers; folders that it does not list are not read.
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// Where the class of an image is written: in the name of its folder, whatever that is called, or in its own name,
    /// before the first dot or digit (cat.12.jpg, tabby_cat_7.jpg).
    #[arg(long, value_enum, value_name = "folders|names", hide_possible_values = true)]
    pub classes_from: Option<ClassesFromArg>,
    /// The column of a table (parquet, Arrow) that holds the images.
    #[arg(long, value_name = "NAME")]
    pub image_column: Option<String>,
    /// The column of a table that holds the labels.
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// Print what was found, the classes and their numbers of images, and write nothing; needs no FOLDER.
    #[arg(long)]
    pub dry_run: bool,
    /// What to do with an image that is damaged: stop and name it, or skip it.
    #[arg(long, value_enum, default_value = "stop", value_name = "stop|skip", hide_possible_values = true)]
    pub bad_images: BadImages,
    /// How many are skipped at most.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub max_bad_images: usize,
    /// Threads [default: one per core].
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

const PREPARE_HELP: &str = "\
Forms of data sets:
  ImageNet's official files: ILSVRC2012_img_train.tar, _img_val.tar and _devkit_t12.tar.gz
  a folder for each class, in train/ and val/ (or seg_test, dev ...) or together (--val-fraction)
  images with a file of their labels (metadata.csv, labels.csv, val_annotations.txt and others)
  Tiny ImageNet, Kaggle's ILSVRC, Food-101 and CUB as they are unpacked
  Hugging Face's parquet shards: train-*.parquet, validation-*.parquet
  WebDataset's tar shards: train-*.tar, val-*.tar, with .cls, or .json with a label; classes.txt
  CIFAR-10 and CIFAR-100; MNIST and its relatives in IDX (these train as they are, too)

Images may be JPEG, PNG, WebP, BMP, GIF, TIFF or PPM, of any name: their first bytes tell. They
are turned as their EXIF says. What a set has beside its images is not read, and counted.";

fn rate(text: &str) -> Result<f32, String> {
    let rate = text.parse().ok().filter(|rate: &f32| rate.is_finite() && *rate > 0.);
    rate.ok_or_else(|| "expected a number above 0, such as 0.01".into())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0. ..1.).contains(share));
    share.ok_or_else(|| "expected a number from 0 to below 1".into())
}

#[derive(Args, Clone)]
pub struct TrainArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Number of passes over the training set [recipe: train.epochs].
    #[arg(long, value_name = "N")]
    pub epochs: Option<u64>,
    /// Stop after this many steps in all, with those before the run was resumed.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Learning rate at the start [recipe: optimizer.lr].
    #[arg(long, value_parser = rate, allow_negative_numbers = true, value_name = "RATE")]
    pub lr: Option<f32>,
    /// Directory of the run [default: runs/<recipe>-<n>].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Resume a run from its newest undamaged checkpoint; cannot be combined with --out or with flags that change the
    /// recipe (--recipe, --set, --batch-size, --seed, --lr).
    #[arg(long, value_name = "RUN", conflicts_with_all = ["out", "recipe", "set", "batch_size", "seed", "lr"])]
    pub resume: Option<PathBuf>,
    /// Checkpoints to keep: the newest N, and the one with the lowest held-out error [default: 2; for a resumed run its
    /// own].
    #[arg(long, value_name = "N")]
    pub keep: Option<NonZeroUsize>,
    /// If the loss is NaN, infinite, above a million or jumps: end the run (stop), skip the step (skip), or go back to
    /// the newest checkpoint and skip all steps since then (rollback; if no good step follows, to the checkpoint before
    /// it) [recipe: train.on_bad_loss].
    #[arg(long, value_enum, value_name = "stop|skip|rollback", hide_possible_values = true)]
    pub on_nan: Option<OnBadLoss>,
    /// Begin the run in --out, or resume it if it was begun there: one command for systemd, Slurm's requeue and
    /// torchrun's --max-restarts. The recipe must be that of the run.
    #[arg(long = "continue", requires = "out")]
    pub continues: bool,
    /// Write a timeline for Perfetto or Chrome: layers, exchanges and waits of each stream in some steps, the loader
    /// and checkpoints in all steps.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Also give TensorBoard the distributions of all parameters.
    #[arg(long)]
    pub histograms: bool,
    /// Print the metrics as JSON lines instead of progress for people.
    #[arg(long)]
    pub json: bool,
}
