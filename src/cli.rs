//! Commands and flags: one definition each.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The network of 2012 as it was trained: AlexNet split over two devices.
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

    /// Log times: -v of steps and checkpoints, -vv of layers, exchanges and waits of both streams, -vvv of operations.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

const AFTER_HELP: &str = "\
Examples:
  alexnet-split                                 train on the images that come with the program, about two minutes
  alexnet-split --recipe fashion --data DIR     the textbook's single tower on your Fashion-MNIST folder
  alexnet-split --set net.fc8=stream0 --lr 0.001 --out runs/try
  alexnet-split --resume runs/try --epochs 2    go on, to the same bits as a run never stopped
  alexnet-split describe                        the paper's network: shapes, parameters, exchanges
  alexnet-split describe --recipe quick --toml  a recipe to change, for --recipe FILE
  alexnet-split predict runs/try                what it sees in some held-out images

Exit codes: 0 success, 1 a file could not be read or written, 2 wrong flags, recipe or network, 3 wrong data,
4 run directory or checkpoint unusable, 5 the CPU cannot be used as asked, 6 the loss diverged, 7 gradients wrong,
8 a stream failed. GPUs: 10 no driver, 11 fewer than asked for, 12 too old, 13 NVRTC missing or failing, 14 NCCL missing,
15 out of memory, 16 no peer access, 17 a CUDA call failed, 18 exchange failed or timed out, 19 other process missing.";

#[derive(Subcommand)]
pub enum Command {
    /// Train a network (the default command).
    Train(TrainArgs),
    /// Measure a run's newest checkpoint on the held-out images.
    Eval(EvalArgs),
    /// Show a run's best five classes for held-out images, with the images.
    Predict(PredictArgs),
    /// Print the network: shapes, parameters, multiply-adds, exchanges and memory, by stream.
    Describe(DescribeArgs),
    /// Compare the gradients of every parameter with finite differences, through the exchange.
    CheckGrads(CheckGradsArgs),
    /// Measure training speed by layer and pass, beside the machine's peak and PyTorch.
    Bench(BenchArgs),
    /// Write a run's network, both halves merged, for PyTorch.
    Export(ExportArgs),
    /// Tell what this machine has for training on GPUs, and what to do about what is missing.
    Doctor(DoctorArgs),
    /// Compile the GPU kernels, with no GPU, and print their registers, shared memory and spills.
    Kernels(KernelsArgs),
}

/// Which network and how: recipe and overrides.
#[derive(Args, Clone)]
pub struct RecipeArgs {
    /// quick, paper, fashion, half, or a TOML file.
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: Option<String>,
    /// Override one value of the recipe, such as optimizer.lr=0.01 or net.fc8=stream0; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Images a step [recipe: train.batch_size].
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Seed of all random numbers [recipe: train.seed].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Where it runs.
#[derive(Args, Clone)]
pub struct DeviceArgs {
    /// GPUs: 2, one a stream; 1, both streams on it; 0, the CPU. Without it the best that is there.
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub gpus: Option<u8>,
    /// CPU threads in all, shared out to the streams [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Matrix products in fp32, or with factors rounded to tf32 (GPUs) or bf16 (GPUs, and CPUs with AVX512_BF16)
    /// [default: bf16 on GPUs in training and bench, else fp32].
    #[arg(long, value_enum, value_name = "fp32|tf32|bf16", hide_possible_values = true)]
    pub precision: Option<PrecisionArg>,
    /// What carries values between two GPUs: nccl, or copy, direct copies within one process.
    #[arg(long, value_enum, default_value_t = TransportArg::Nccl, value_name = "nccl|copy", hide_possible_values = true)]
    pub exchange: TransportArg,
    /// How long the GPUs may wait for each other before the run ends with an error.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub exchange_timeout: u16,
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
    Nccl,
    Copy,
}

/// What to train on.
#[derive(Args, Clone)]
pub struct DataArgs {
    /// Folder with the four IDX files of MNIST or Fashion-MNIST, plain or .gz [default: the images that come with it].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct TrainArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Times that every training image is used [recipe: train.epochs].
    #[arg(long, value_name = "N")]
    pub epochs: Option<u64>,
    /// Stop after this many steps in all.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Learning rate at the start [recipe: optimizer.lr].
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f32>,
    /// Directory of the run [default: runs/<recipe>-<n>].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with a run from its newest checkpoint; only --epochs, --steps, --data and --threads may be given with it.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["out", "recipe", "set", "batch_size", "seed", "lr"])]
    pub resume: Option<PathBuf>,
    /// Print the metrics as JSON lines instead of progress for people.
    #[arg(long)]
    pub json: bool,
}

/// An existing run.
#[derive(Args, Clone)]
pub struct RunArgs {
    /// The run's directory, or one of its checkpoints.
    pub run: PathBuf,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct PredictArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Numbers of held-out images, from 0 [default: the first five].
    pub images: Vec<u32>,
    /// Print JSON, a line an image.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct DescribeArgs {
    /// The recipe whose network is meant [default: paper].
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the recipe as TOML, as --recipe FILE reads it.
    #[arg(long, conflicts_with = "json")]
    pub toml: bool,
}

#[derive(Args)]
pub struct CheckGradsArgs {
    /// The recipe whose network is meant, with few channels unless net.conv_channels is set [default: paper].
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print JSON, a line a check.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchArgs {
    /// The recipe whose network is meant [default: paper].
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Measured steps, after one to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub steps: u16,
    /// Measure the forward pass alone.
    #[arg(long)]
    pub inference: bool,
    /// A Python with PyTorch: the best way it has to make the same step is measured in turn with ours.
    #[arg(long, value_name = "PYTHON")]
    pub pytorch: Option<PathBuf>,
    /// What bench --json printed earlier: prints how much faster each layer and pass is now.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub compare: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct KernelsArgs {
    /// GPUs to compile for; may be repeated [default: sm_80, sm_90a, sm_100a, sm_120a].
    #[arg(long, value_name = "sm_90")]
    pub arch: Vec<String>,
}

#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// The safetensors file to write.
    pub file: PathBuf,
}
