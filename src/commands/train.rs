//! `train`: a new run, or an old one continued; in one process or as one of two.

use std::path::{Path, PathBuf};

use alexnet_split::backend::Backend;
use alexnet_split::data::DataSet;
use alexnet_split::devices::{self, GpuSeats};
use alexnet_split::error::{Error, Result};
use alexnet_split::exchange::link::{Link, World};
use alexnet_split::net::pair::Seat;
use alexnet_split::net::plan::Plan;
use alexnet_split::net::spec::Net;
use alexnet_split::recipe::{OptimizerKind, Recipe};
use alexnet_split::report::host::Host;
use alexnet_split::report::progress::Progress;
use alexnet_split::report::{logs, times, trace};
use alexnet_split::train::checkpoint;
use alexnet_split::train::run_dir::{self, RunDir, RunInfo};
use alexnet_split::train::session::{Session, resolve};
use alexnet_split::train::signals::Stop;
use alexnet_split::train::training::TrainOptions;
use serde_json::json;

use super::place::{self, on_place};
use super::supervise;
use crate::cli::TrainArgs;

/// What is to be trained: the same in every process of a run.
#[derive(serde::Serialize, serde::Deserialize)]
struct Job {
    recipe: Recipe,
    data: PathBuf,
    /// The run's directory.
    run: PathBuf,
    start: Start,
    steps: Option<u64>,
    histograms: bool,
}

/// Where a run begins.
#[derive(serde::Serialize, serde::Deserialize)]
enum Start {
    /// It is a new one.
    New,
    /// It was begun, but nothing of it was saved.
    Over,
    /// From a checkpoint, after so many steps.
    Checkpoint(PathBuf, u64),
}

pub fn train(args: &TrainArgs) -> Result<()> {
    if args.restarts > 0 && !supervise::is_supervised()? {
        let run = args.resume.clone().or(args.out.clone());
        let run = run.map_or_else(|| next_run(&super::recipe(&args.recipe, "quick")?.name), Ok)?;
        return supervise::supervise(args, &run);
    }
    let stop = Stop::on_signals()?;
    let options = place::gpu_options(&args.device, None);
    match World::from_environment(|name| std::env::var(name).ok())? {
        None => {
            let job = job(args)?;
            let streams = Net::from_options(&job.recipe.net)?.streams;
            on_place!(place::choose(&args.device, streams), options, streams, |seats, about| {
                run(args, &job, seats, None, &about, &stop)
            })
        }
        Some(world) => {
            let mut link = Link::open(&world, options.exchange_timeout)?;
            // Process 0 decides, so that only it needs the recipe and the run's directory.
            let ours = if world.rank == 0 { Some(job(args)?) } else { None };
            let mut job = link.told(ours)?;
            job.data = args.data.data.clone().unwrap_or(job.data);
            if Net::from_options(&job.recipe.net)?.streams != 2 {
                return Err(Error::recipe("net.streams", "two processes run two streams; start one process"));
            }
            let GpuSeats { seats, about } = devices::process_seat(&world, &mut link, &options)?;
            run(args, &job, seats, Some(link), &about, &stop)
        }
    }
}

/// What the flags ask for.
fn job(args: &TrainArgs) -> Result<Job> {
    let begun = args.out.as_deref().filter(|run| supervise::is_supervised().unwrap_or(false) && run_dir::is_run(run));
    let resumed = args.resume.as_deref().or(begun);
    let (mut recipe, data) = match &args.resume {
        None => {
            let mut recipe = super::recipe(&args.recipe, "quick")?;
            if let Some(lr) = args.lr {
                recipe = recipe.with(&format!("optimizer.lr={lr:?}"))?;
            }
            (recipe, super::data_folder(&args.data))
        }
        Some(checkpoint) if checkpoint::run_of(checkpoint) != checkpoint => {
            let run = checkpoint::run_of(checkpoint).display();
            return Err(Error::run(checkpoint, format!("is a checkpoint; its run goes on with --resume {run}")));
        }
        Some(run) => {
            let recipe = run_dir::load_recipe(run)?;
            (recipe, args.data.data.clone().map_or_else(|| run_dir::load_info(run).map(|info| info.data), Ok)?)
        }
    };
    recipe.train.epochs = args.epochs.unwrap_or(recipe.train.epochs);
    recipe.train.on_bad_loss = args.on_nan.unwrap_or(recipe.train.on_bad_loss);
    let start = match resumed {
        None => Start::New,
        // Damaged checkpoints are no reason to lose all that was trained: that is for the run's owner to decide.
        Some(run) if checkpoint::list(run)?.is_empty() => Start::Over,
        Some(run) => {
            let (path, state) = checkpoint::find(run)?;
            Start::Checkpoint(path, state.step)
        }
    };
    let run = match (resumed, &args.out) {
        (Some(run), _) => run.to_owned(),
        (None, Some(run)) => run.clone(),
        (None, None) => next_run(&recipe.name)?,
    };
    Ok(Job { recipe, data, run, start, steps: args.steps, histograms: args.histograms })
}

fn run<B: Backend>(
    args: &TrainArgs,
    job: &Job,
    seats: Vec<Seat<B>>,
    link: Option<Link>,
    device: &str,
    stop: &Stop,
) -> Result<()> {
    let leads = link.as_ref().is_none_or(|link| link.rank() == 0);
    let data = DataSet::load(&job.data)?;
    let recipe = resolve(job.recipe.clone(), &data)?;
    // The directory before the network: nobody wants to learn after minutes that it cannot be used.
    let mut run = match &job.start {
        _ if !leads => RunDir::elsewhere(&job.run),
        Start::New => {
            Net::from_options(&recipe.net).and_then(|net| Plan::all(&net))?;
            let (version, commit) = (env!("CARGO_PKG_VERSION").into(), commit());
            // The run may be looked at from another folder.
            let folder = std::path::absolute(&job.data).map_err(Error::io("find", &job.data))?;
            let info = RunInfo { version, commit, data: folder, classes: data.classes.clone() };
            RunDir::create(&job.run, &recipe, &info)?
        }
        begun => {
            same_recipe(&job.run, &recipe)?;
            let step = if let Start::Checkpoint(_, step) = begun { *step } else { 0 };
            let run = RunDir::resume(&job.run, step)?;
            checkpoint::set_aside_after(&job.run, step)?;
            run
        }
    };
    let step = if let Start::Checkpoint(_, step) = job.start { step } else { 0 };
    if leads {
        logs::keep(&job.run.join("log.txt"))?;
    }
    let planned = recipe.train.epochs * data.train.len().div_ceil(recipe.train.batch_size) as u64;
    let total_steps = job.steps.map_or(planned, |steps| steps.min(planned));
    let command: Vec<String> = std::env::args_os().map(|part| part.to_string_lossy().into_owned()).collect();
    run.journal(
        "start",
        &json!({
            "step": step, "command": command, "version": env!("CARGO_PKG_VERSION"),
            "commit": commit(), "device": device, "host": Host::this(), "seed": recipe.train.seed,
            "epochs": recipe.train.epochs, "total_steps": total_steps, "process": std::process::id(),
        }),
    )?;
    let trained = train_in(args, job, recipe, data, seats, link, device, stop, &mut run);
    for text in logs::take_warnings() {
        run.journal("warning", &json!({"text": text}))?;
    }
    let (how, code, message) = match &trained {
        Ok(_) => ("finished", 0, String::new()),
        Err(error) => {
            let how = match error {
                Error::Interrupted { .. } => "interrupted",
                Error::Diverged { .. } => "diverged",
                _ => "failed",
            };
            logs::note(&format!("error: {error}"));
            (how, error.exit_code(), error.to_string())
        }
    };
    let step = trained.as_ref().ok().copied();
    let ended = run.journal("end", &json!({"step": step, "how": how, "exit_code": code, "message": message}));
    // What ended the run goes before what its journal met.
    trained.and(ended)
}

/// Trains; returns the steps done.
#[expect(clippy::too_many_arguments, reason = "one call, of what `run` has made")]
fn train_in<B: Backend>(
    args: &TrainArgs,
    job: &Job,
    recipe: Recipe,
    data: DataSet,
    seats: Vec<Seat<B>>,
    link: Option<Link>,
    device: &str,
    stop: &Stop,
    run: &mut RunDir,
) -> Result<u64> {
    let leads = link.as_ref().is_none_or(|link| link.rank() == 0);
    let _tracing = args.trace.as_ref().filter(|_| leads).map(|path| trace::start(path)).transpose()?;
    let options = TrainOptions { max_steps: job.steps, keep: args.keep.get(), histograms: job.histograms };
    let (training, held_out, classes) = (data.train.len(), data.test.len(), data.classes.len());
    let mut session = Session::new(recipe.clone(), data, seats, link)?;
    session.end_on(stop.clone());
    if let Start::Checkpoint(checkpoint, _) = &job.start {
        session.restore(checkpoint)?;
    }
    if !leads {
        errln!("device   {device}; process 0 reports");
        session.train(run, &options, &mut ())?;
        session.pair().times()?;
        return Ok(session.step());
    }
    let mut progress = Progress::new(args.json, recipe.train.batch_size);
    progress.say(&format!("device   {device}"));
    let optimizer = match recipe.optimizer.kind {
        OptimizerKind::Sgd => "SGD",
        OptimizerKind::Adam => "Adam",
    };
    let (name, batch_size, lr) = (&recipe.name, recipe.train.batch_size, recipe.optimizer.lr);
    progress.say(&format!("recipe   {name} ({optimizer} optimizer, batch {batch_size}, lr {lr})"));
    let folder = job.data.display();
    progress.say(&format!("data     {folder}: {training} training and {held_out} held-out images, {classes} classes"));
    let from = match &job.start {
        Start::New => String::new(),
        Start::Over => ": nothing of it was saved, from its beginning".into(),
        Start::Checkpoint(_, step) => format!(": on from step {step}"),
    };
    progress.say(&format!("run      {}{from}", run.path().display()));
    session.train(run, &options, &mut progress)?;
    let times = session.pair().times()?;
    if !args.json && times.iter().any(|times| times.steps > 0) {
        let names: Vec<String> =
            session.pair().running()[0].layers.iter().map(|layer| layer.name.to_string()).collect();
        logs::say(&format!("\n{}", times::table(&names, &times)));
        logs::say(&format!("loader: {:.1} ms a step waited for batches", session.loader_wait().as_secs_f64() * 1e3));
    }
    if !args.json {
        outln!("Next: alexnet-split predict {}", run.path().display());
    }
    Ok(session.step())
}

/// Fails where the run in `path` is of another recipe than the one asked for.
fn same_recipe(path: &Path, recipe: &Recipe) -> Result<()> {
    let mut stored = run_dir::load_recipe(path)?;
    // These may change on the way.
    stored.train.epochs = recipe.train.epochs;
    stored.train.on_bad_loss = recipe.train.on_bad_loss;
    if stored != *recipe {
        let problem = "holds a run of another recipe; give the flags that it was started with, or choose another --out";
        return Err(Error::run(path, problem));
    }
    Ok(())
}

/// The commit that this program was built from.
fn commit() -> Option<String> {
    option_env!("ALEXNET_SPLIT_COMMIT").map(str::to_owned)
}

/// The first `runs/<recipe>-<n>` that is not there yet.
fn next_run(recipe: &str) -> Result<PathBuf> {
    let mut paths = (1..100_000).map(|n| Path::new("runs").join(format!("{recipe}-{n}")));
    paths.find(|path| !path.exists()).ok_or_else(|| Error::run("runs", "holds too many runs; give --out"))
}
