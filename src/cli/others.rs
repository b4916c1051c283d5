//! Flags of the commands that do not train: those about runs, networks, speed and the machine.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{DataArgs, DeviceArgs, RecipeArgs};

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

/// `--views`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Views {
    #[value(name = "1")]
    Centre,
    #[value(name = "10")]
    Ten,
}

#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Views of each image: 1 (centre crop) or 10 (the paper's crops, probabilities averaged).
    #[arg(long, value_enum, default_value = "1", value_name = "1|10", hide_possible_values = true)]
    pub views: Views,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct PredictArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Image files (JPEG, PNG, WebP, BMP, GIF), or numbers of held-out images, from 0 [default: the first five].
    pub images: Vec<OsString>,
    /// Print JSON, one line per image.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct FiltersArgs {
    /// The run's directory, or one of its checkpoints.
    pub run: PathBuf,
    /// The PNG file to write.
    #[arg(value_name = "OUT.png")]
    pub picture: PathBuf,
    /// Pixels of the picture, across and down, for each weight.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub scale: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct DescribeArgs {
    /// Recipes to lay side by side, such as half paper one-gpu; one is as --recipe.
    #[arg(value_name = "RECIPE", conflicts_with = "recipe")]
    pub recipes: Vec<String>,
    /// A data set, whose classes and channels the network then has [default: 1000 classes, 3 channels].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The recipe of the network [default: paper].
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the recipe as TOML, as --recipe FILE reads it.
    #[arg(long, conflicts_with = "json")]
    pub toml: bool,
    /// Print each layer's output shape, for one image, as courses do.
    #[arg(long, conflicts_with_all = ["json", "toml"])]
    pub shapes: bool,
}

#[derive(Args)]
pub struct CheckGradsArgs {
    /// The recipe of the network, with few channels unless net.conv_channels is set [default: paper].
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print JSON, one line per check.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchArgs {
    /// The recipe of the network [default: paper].
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
    /// A Python with PyTorch: also measures PyTorch, alternating steps (tuned as in scripts/bench_pytorch.py).
    #[arg(long, value_name = "PYTHON")]
    pub pytorch: Option<PathBuf>,
    /// The output of an earlier bench --json: prints how much faster each layer and pass is now.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub compare: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ConvertArgs {
    /// The run's directory, or one of its checkpoints.
    pub run: PathBuf,
    /// The directory of the new run; it can be evaluated, exported and resumed.
    pub out: PathBuf,
}

#[derive(Subcommand)]
pub enum CheckpointCommand {
    /// List step, size, learning rate and held-out error of each.
    List(CheckpointArgs),
    /// Read and hash each; the exit code is 4 if one is damaged.
    Verify(CheckpointArgs),
}

#[derive(Args)]
pub struct CheckpointArgs {
    /// The run's directory, or one of its checkpoints.
    pub path: PathBuf,
    /// Print JSON, one line per checkpoint.
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
    /// GPUs to compile for; may be repeated [default: sm_80, sm_90, sm_100, sm_120].
    #[arg(long, value_name = "sm_90")]
    pub arch: Vec<String>,
    /// Folder for the machine code (cubins) and kernels.json, which lists it.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// The safetensors file to write.
    pub file: PathBuf,
}

#[derive(Args)]
pub struct ReportArgs {
    /// Directories of runs, which may still be training. The curves of several are drawn over each other.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The page to write [default: RUN/report.html, for several runs runs-report.html].
    #[arg(long, value_name = "FILE.html")]
    pub out: Option<PathBuf>,
    /// Held-out images to run the newest checkpoint on, on the CPU; 0 omits that part.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub images: usize,
    /// CPU threads in all [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Args)]
pub struct RunsArgs {
    /// The folder that the runs are in.
    #[arg(default_value = "runs", value_name = "DIR")]
    pub folder: PathBuf,
    /// Print JSON, one line per run.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ReproduceArgs {
    /// Claims to test; without one all are listed, with what was published and how long they would take here.
    pub claims: Vec<String>,
    #[command(flatten)]
    pub data: DataArgs,
    /// The recipe whose ablations are made [default: paper].
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Seeds of each run: the recipe's, and those after it.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub seeds: u8,
    /// The folder of the runs and of the page about them; runs that it has are not made again.
    #[arg(long, default_value = "runs/reproduce", value_name = "DIR")]
    pub out: PathBuf,
    /// Further flags of train, such as --gpus 2.
    #[arg(last = true, value_name = "FLAGS")]
    pub train: Vec<OsString>,
}
