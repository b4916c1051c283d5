//! The commands, and what they share: finding recipe, data, device and run.

mod bench;
mod check_grads;
mod describe;
mod run;
mod train;

use std::path::{Path, PathBuf};

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::data::DataSet;
use alexnet_split::error::{Error, Result};
use alexnet_split::recipe::Recipe;
use alexnet_split::train::checkpoint;
use alexnet_split::train::run_dir;
use alexnet_split::train::session::Session;

use crate::cli::{Cli, Command, DataArgs, DeviceArgs, RecipeArgs, RunArgs};

/// Runs the command that the user gave.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        None => train::train(&cli.train),
        Some(Command::Train(args)) => train::train(&args),
        Some(Command::Eval(args)) => run::eval(&args),
        Some(Command::Predict(args)) => run::predict(&args),
        Some(Command::Describe(args)) => describe::describe(&args),
        Some(Command::CheckGrads(args)) => check_grads::check_grads(&args),
        Some(Command::Bench(args)) => bench::bench(&args),
        Some(Command::Export(args)) => run::export(&args),
    }
}

/// The recipe named (or `default`) with the flags' overrides.
fn recipe(args: &RecipeArgs, default: &str) -> Result<Recipe> {
    let mut recipe = Recipe::find(args.recipe.as_deref().unwrap_or(default))?;
    for assignment in &args.set {
        recipe = recipe.with(assignment)?;
    }
    if let Some(batch_size) = args.batch_size {
        recipe = recipe.with(&format!("train.batch_size={batch_size}"))?;
    }
    if let Some(seed) = args.seed {
        recipe = recipe.with(&format!("train.seed={seed}"))?;
    }
    Ok(recipe)
}

/// The device that the flags choose: its number of threads and a line that says what it is.
///
/// Fails where GPUs are asked for: the CUDA backend does not exist yet.
fn device(args: &DeviceArgs, streams: usize) -> Result<(usize, String)> {
    let threads = args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    match args.gpus {
        None | Some(0) => {
            // The pool of everything outside the streams: reading and scaling images. Only the first call sets it.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
            let streams = if streams == 1 { "one stream" } else { "both streams emulated" };
            let why = if args.gpus.is_none() { " (this version has no CUDA backend yet)" } else { "" };
            Ok((threads, format!("CPU, {threads} thread{}, {streams}{why}", if threads == 1 { "" } else { "s" })))
        }
        Some(gpus) => Err(Error::Device(format!(
            "--gpus {gpus}: this version has no CUDA backend yet; use --gpus 0 to run both streams on the CPU"
        ))),
    }
}

/// The folder named, or the one that comes with the program: beside the working directory, else in its source.
fn data_folder(args: &DataArgs) -> PathBuf {
    let own = Path::new("data/fashion-mnist");
    args.data
        .clone()
        .unwrap_or_else(|| if own.is_dir() { own.to_owned() } else { Path::new(env!("CARGO_MANIFEST_DIR")).join(own) })
}

/// A run's network at its newest checkpoint, for looking at it.
fn open_run(args: &RunArgs) -> Result<Session<CpuBackend>> {
    let checkpoint = checkpoint::find(&args.run)?;
    let run = checkpoint::run_of(&checkpoint);
    let recipe = run_dir::load_recipe(run)?;
    let mut data_args = args.data.clone();
    data_args.data.get_or_insert(run_dir::load_info(run)?.data);
    let data = DataSet::load(&data_folder(&data_args))?;
    let streams = checkpoint::load_state(&checkpoint)?.streams;
    let mut session = Session::on_cpu(recipe, data, device(&args.device, streams)?.0)?;
    session.restore(&checkpoint)?;
    Ok(session)
}
