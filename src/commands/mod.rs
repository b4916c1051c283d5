//! The commands, and what they share: how they find recipe, data, device and run.

mod bench;
mod bench_report;
mod builtin;
mod check_grads;
mod checkpoints;
mod convert;
mod describe;
pub mod device_flags;
mod doctor;
mod eval;
mod export;
mod filters;
mod job;
mod kernels;
mod manual;
mod peer;
mod predict;
mod prepare;
mod report;
mod reproduce;
mod roofline;
mod runs;
mod step_work;
mod train;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, DataArgs, RecipeArgs, RunArgs};
use crate::config::Recipe;
use crate::data::DataSet;
use crate::data::input::Mean;
use crate::error::{Error, Result};
use crate::net::spec::Net;
use crate::run::checkpoint;
use crate::run::dir;
use crate::show::logs;
use crate::text::{self, quoted};

/// The program: parses the flags, runs the command, and returns its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::start(cli.verbose);
    let unprinted =
        || text::failure().map_or(Ok(()), |error| Err(Error::io("write", Path::new("standard output"))(error)));
    match run(cli).and_then(|()| unprinted()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("error: {error}");
            // Not by returning: threads that nobody waits for may be ending NCCL's communicators, or hang in a device,
            // and must not meet libraries that have cleaned up. Everything is printed and on the disk.
            signal_hook::low_level::exit(i32::from(error.exit_code()))
        }
    }
}

/// Runs the command that the user gave.
fn run(cli: Cli) -> Result<()> {
    match cli.command {
        None => train::train(&cli.train),
        Some(Command::Train(args)) => train::train(&args),
        Some(Command::Prepare(args)) => prepare::prepare(&args),
        Some(Command::Eval(args)) => eval::eval(&args),
        Some(Command::Predict(args)) => predict::predict(&args),
        Some(Command::Filters(args)) => filters::filters(&args),
        Some(Command::Describe(args)) => describe::describe(&args),
        Some(Command::CheckGrads(args)) => check_grads::check_grads(&args),
        Some(Command::Bench(args)) => bench::bench(&args),
        Some(Command::Report(args)) => report::report(&args),
        Some(Command::Reproduce(args)) => reproduce::reproduce(&args),
        Some(Command::Runs(args)) => runs::runs(&args),
        Some(Command::Export(args)) => export::export(&args),
        Some(Command::Convert(args)) => convert::convert(&args),
        Some(Command::Checkpoint(command)) => checkpoints::checkpoint(&command),
        Some(Command::Doctor(args)) => doctor::doctor(&args),
        Some(Command::Kernels(args)) => kernels::kernels(&args),
        Some(Command::Completions { shell }) => manual::completions(shell),
        Some(Command::Man) => manual::man(),
        Some(Command::Resume { run }) => {
            let run = run.map_or_else(|| "RUN".into(), |run| quoted(&run.to_string_lossy()));
            Err(Error::Usage(format!("resume is a flag of train: alexnet-split --resume {run}")))
        }
    }
}

/// The command line, for a run's journal.
fn command_line() -> Vec<String> {
    std::env::args_os().map(|part| part.to_string_lossy().into_owned()).collect()
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

/// The folder named, or the images that come with the program: in its sources where those are the working directory,
/// else unpacked into the user's cache.
fn data_folder(args: &DataArgs) -> Result<PathBuf> {
    let own = Path::new("data/fashion-mnist");
    match &args.data {
        Some(folder) => Ok(folder.clone()),
        None if own.is_dir() => Ok(own.to_owned()),
        None => builtin::unpack(),
    }
}

/// A run's recipe, data, newest checkpoint and number of streams, for commands that read it. The data are not looked
/// for where nobody `needs_data`; what there is of them is the images' shape and the classes' names.
fn find_run(args: &RunArgs, needs_data: bool) -> Result<(Recipe, DataSet, PathBuf, usize)> {
    let (checkpoint, state) = checkpoint::find(&args.run)?;
    let run = checkpoint::run_of(&checkpoint);
    let recipe = dir::load_recipe(&run)?;
    let streams = Net::from_options(&recipe.net)?.streams;
    if state.streams != streams {
        let problem = format!("is of a network of {} streams, the recipe's has {streams}", state.streams);
        return Err(Error::run(checkpoint, problem));
    }
    let info = dir::load_info(&run)?;
    if let (false, None, Some(image)) = (needs_data, &args.data.data, info.image) {
        // The mean image is the checkpoint's, and colours are not changed.
        let mut recipe = recipe;
        (recipe.input.mean, recipe.input.colour_noise) = (Mean::Value(0.), 0.);
        return Ok((recipe, DataSet::without_images(image, info.classes), checkpoint, streams));
    }
    let folder = args.data.data.clone().unwrap_or_else(|| info.data.clone());
    if args.data.data.is_none() && !folder.is_dir() {
        let problem = "no such folder; the run was trained on it: if it has moved, name it with --data";
        return Err(Error::data(folder, problem));
    }
    let data = DataSet::load(&folder)?;
    info.has_classes_of(&data, &folder)?;
    Ok((recipe, data, checkpoint, streams))
}

/// Evaluates `$body` with a run's network at its newest checkpoint, on the device that the flags choose.
macro_rules! on_run {
    ($args:expr, $needs_data:expr, |$session:ident| $body:expr) => {{
        let (recipe, data, checkpoint, streams) = $crate::commands::find_run($args, $needs_data)?;
        // Speed matters little here.
        let fp32 = Some(crate::backend::Precision::Fp32);
        let devices = $crate::commands::device_flags::choose(&$args.device, fp32, streams);
        let options = $crate::commands::device_flags::gpu_options(&$args.device, fp32);
        $crate::commands::device_flags::on_devices!(devices, options, streams, |contexts, _about| {
            let mut $session = crate::train::session::Session::new(recipe, data, contexts, None)?;
            $session.restore_or_newest(&checkpoint, &$args.run)?;
            $body
        })
    }};
}
pub(crate) use on_run;
