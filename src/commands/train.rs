//! `train`: a new run, or an old one continued; in one process or as one of two.

use std::num::NonZeroUsize;
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
use alexnet_split::report::page::quoted;
use alexnet_split::report::progress::Progress;
use alexnet_split::report::{logs, times, trace};
use alexnet_split::train::checkpoint;
use alexnet_split::train::run_dir::{self, Claim, RunDir, RunInfo};
use alexnet_split::train::session::{Session, resolve};
use alexnet_split::train::signals::Stop;
use alexnet_split::train::training::TrainOptions;
use serde_json::json;

use super::place::{self, on_place};
use super::supervise;
use crate::cli::TrainArgs;

/// Checkpoints that are kept, besides the best.
const DEFAULT_KEEP: usize = 2;

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
    /// From a checkpoint, after so many steps, perhaps before their evaluation.
    Checkpoint { path: PathBuf, step: u64, evaluation_due: bool },
}

impl Start {
    /// Steps done before.
    fn step(&self) -> u64 {
        if let Start::Checkpoint { step, .. } = self { *step } else { 0 }
    }
}

/// What keeps other processes out of a run's directory until it is opened.
enum Hold {
    /// A new one's folder.
    Folder(Option<NewFolder>),
    /// The claim on one that was begun.
    Claim(Claim),
}

/// A folder that this process has made, and perhaps the one that it is in; gone again where nothing came into them.
struct NewFolder {
    path: PathBuf,
    parent: Option<PathBuf>,
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // Fails where there is anything in it.
        let gone = std::fs::remove_dir(&self.path);
        if let (Ok(()), Some(parent)) = (gone, &self.parent) {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

pub fn train(args: &TrainArgs) -> Result<()> {
    let world = World::from_environment(|name| std::env::var(name).ok())?;
    if args.restarts > 0 && !supervise::is_supervised()? {
        let given = args.resume.clone().or(args.out.clone());
        // Process 0 alone keeps the run's directory.
        let leads = world.as_ref().is_none_or(|world| world.rank == 0);
        let new = given.is_none() && leads;
        let made = new.then(|| next_run(&super::recipe(&args.recipe, "quick")?.name)).transpose()?;
        let run = given.or(made.as_ref().map(|made| made.path.clone())).unwrap_or("runs".into());
        let code = supervise::supervise(args, &run)?;
        drop(made);
        // The run's process has said why.
        std::process::exit(code);
    }
    let stop = Stop::on_signals()?;
    let options = place::gpu_options(&args.device, None);
    match world {
        None => {
            let (job, hold) = job(args)?;
            let streams = Net::from_options(&job.recipe.net)?.streams;
            on_place!(place::choose(&args.device, streams), options, streams, |seats, about| {
                run(args, &job, Some(hold), seats, None, &about, &stop)
            })
        }
        Some(world) => {
            let mut link = Link::open(&world, options.exchange_timeout)?;
            // Process 0 decides, so that only it needs the recipe and the run's directory.
            let (ours, hold) =
                if world.rank == 0 { job(args).map(|(job, hold)| (Some(job), Some(hold)))? } else { (None, None) };
            let mut job = link.told(ours)?;
            job.data = args.data.data.clone().unwrap_or(job.data);
            if Net::from_options(&job.recipe.net)?.streams != 2 {
                return Err(Error::recipe("net.streams", "two processes run two streams; start one process"));
            }
            let GpuSeats { seats, about } = devices::process_seat(&world, &mut link, &options)?;
            run(args, &job, hold, seats, Some(link), &about, &stop)
        }
    }
}

/// What the flags ask for, in a directory that is this process' from now on.
fn job(args: &TrainArgs) -> Result<(Job, Hold)> {
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
        Some(path) if checkpoint::is_generation(path) => {
            let run = checkpoint::run_of(path);
            return Err(Error::run(path, format!("is a checkpoint; its run goes on with --resume {}", run.display())));
        }
        Some(run) => {
            let recipe = run_dir::load_recipe(run)?;
            (recipe, args.data.data.clone().map_or_else(|| run_dir::load_info(run).map(|info| info.data), Ok)?)
        }
    };
    // The same command again does not take back what was asked for on the way.
    let before = begun.map(run_dir::load_recipe).transpose()?;
    let before = before.as_ref().unwrap_or(&recipe);
    let (epochs, on_bad_loss) = (before.train.epochs, before.train.on_bad_loss);
    recipe.train.epochs = args.epochs.unwrap_or(epochs);
    recipe.train.on_bad_loss = args.on_nan.unwrap_or(on_bad_loss);
    let (run, start, hold) = match (resumed, &args.out) {
        (Some(run), _) => {
            // First: a process that trains there changes what there is to go on from.
            let claim = Claim::new(run)?;
            (run.to_owned(), begun_at(run)?, Hold::Claim(claim))
        }
        (None, Some(run)) => (run.clone(), Start::New, Hold::Folder(None)),
        (None, None) => {
            let folder = next_run(&recipe.name)?;
            (folder.path.clone(), Start::New, Hold::Folder(Some(folder)))
        }
    };
    Ok((Job { recipe, data, run, start, steps: args.steps, histograms: args.histograms }, hold))
}

/// Where a run that was begun goes on.
fn begun_at(run: &Path) -> Result<Start> {
    if !checkpoint::list(run)?.is_empty() {
        let (path, state) = checkpoint::find(run)?;
        return Ok(Start::Checkpoint { path, step: state.step, evaluation_due: state.evaluation_due });
    }
    // Damaged checkpoints are no reason to lose all that was trained: that is for the run's owner to decide.
    match checkpoint::left_over(run)? {
        Some(path) => {
            let problem =
                format!("only damaged checkpoints are left: {}; begin again with another --out", path.display());
            Err(Error::run(run, problem))
        }
        None => Ok(Start::Over),
    }
}

fn run<B: Backend>(
    args: &TrainArgs,
    job: &Job,
    hold: Option<Hold>,
    seats: Vec<Seat<B>>,
    link: Option<Link>,
    device: &str,
    stop: &Stop,
) -> Result<()> {
    let leads = link.as_ref().is_none_or(|link| link.rank() == 0);
    let data = DataSet::load(&job.data)?;
    let begun = matches!(hold, Some(Hold::Claim(_))).then(|| run_dir::load_info(&job.run)).transpose()?;
    begun.as_ref().map_or(Ok(()), |info| info.goes_on_with(&data, &job.data))?;
    let keep = args.keep.map_or_else(|| begun.as_ref().map_or(DEFAULT_KEEP, |info| info.keep), NonZeroUsize::get);
    let recipe = resolve(job.recipe.clone(), &data)?;
    let restart = supervise::restart();
    let tracing = |path: &PathBuf| match (&restart, path.extension()) {
        // What was seen before the run ended stays.
        (Some((number, _)), Some(kind)) => trace::start(&path.with_extension(format!("{number}.{}", kind.display()))),
        (Some((number, _)), None) => trace::start(&path.with_extension(number.to_string())),
        (None, _) => trace::start(path),
    };
    let _tracing = args.trace.as_ref().filter(|_| leads).map(tracing).transpose()?;
    // The directory before the network: nobody wants to learn after minutes that it cannot be used.
    let step = job.start.step();
    let mut run = match hold {
        None => RunDir::elsewhere(&job.run),
        Some(Hold::Folder(_made)) => {
            Net::from_options(&recipe.net).and_then(|net| Plan::all(&net))?;
            let (version, commit) = (env!("CARGO_PKG_VERSION").into(), commit());
            let images = Some(data.train.len());
            let info = RunInfo {
                version,
                commit,
                data: lasting_path(&job.data)?,
                images,
                classes: data.classes.clone(),
                keep,
            };
            RunDir::create(&job.run, &recipe, &info, || Ok(()))?
        }
        Some(Hold::Claim(claim)) => {
            same_recipe(&job.run, &recipe)?;
            // What was changed on the way stays so.
            if let Some(info) = begun.filter(|info| info.keep != keep) {
                run_dir::store_info(&job.run, &RunInfo { keep, ..info })?;
            }
            let evaluation_due = matches!(job.start, Start::Checkpoint { evaluation_due: true, .. });
            let run = RunDir::resume(claim, step, evaluation_due)?;
            checkpoint::set_aside_after(&job.run, step)?;
            run
        }
    };
    if leads {
        logs::keep(&job.run.join("log.txt"))?;
        if let Some((_, text)) = restart {
            logs::keep_warning(&text);
        }
    }
    let planned = recipe.train.epochs.saturating_mul(data.train.len().div_ceil(recipe.train.batch_size) as u64);
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
    let trained = train_in(args, job, keep, recipe, data, seats, link, device, stop, &mut run);
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
    let step = match &trained {
        Ok(step) | Err(Error::Interrupted { step, .. } | Error::Diverged { step, .. }) => Some(*step),
        Err(_) => None,
    };
    let ended = run.journal("end", &json!({"step": step, "how": how, "exit_code": code, "message": message}));
    // What ended the run goes before what its journal met.
    trained.and(ended)
}

/// Trains; returns the steps done.
#[expect(clippy::too_many_arguments, reason = "one call, of what `run` has made")]
fn train_in<B: Backend>(
    args: &TrainArgs,
    job: &Job,
    keep: usize,
    recipe: Recipe,
    data: DataSet,
    seats: Vec<Seat<B>>,
    link: Option<Link>,
    device: &str,
    stop: &Stop,
    run: &mut RunDir,
) -> Result<u64> {
    let leads = link.as_ref().is_none_or(|link| link.rank() == 0);
    let options = TrainOptions { max_steps: job.steps, keep, histograms: job.histograms };
    let (training, held_out, classes) = (data.train.len(), data.test.len(), data.classes.len());
    let mut session = Session::new(recipe.clone(), data, seats, link)?;
    session.end_on(stop.clone());
    if let Start::Checkpoint { path, .. } = &job.start {
        session.restore(path)?;
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
        Start::Checkpoint { step, .. } => format!(": on from step {step}"),
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
    if !args.json && !checkpoint::list(run.path())?.is_empty() {
        outln!("Next: alexnet-split predict {}", quoted(&run.path().to_string_lossy()));
    }
    Ok(session.step())
}

/// Fails where the run in `path` is of another recipe than the one asked for; keeps what may change on the way.
fn same_recipe(path: &Path, recipe: &Recipe) -> Result<()> {
    let before = run_dir::load_recipe(path)?;
    let mut stored = before.clone();
    stored.train.epochs = recipe.train.epochs;
    stored.train.on_bad_loss = recipe.train.on_bad_loss;
    if stored != *recipe {
        let problem = "holds a run of another recipe; give the flags that it was started with, or choose another --out";
        return Err(Error::run(path, problem));
    }
    if stored == before { Ok(()) } else { run_dir::store_recipe(path, recipe) }
}

/// The commit that this program was built from.
fn commit() -> Option<String> {
    option_env!("ALEXNET_SPLIT_COMMIT").map(str::to_owned)
}

/// The data folder as it can be found from other folders, as far as `run.json` can say it.
fn lasting_path(data: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(data).map_err(Error::io("find", data))?;
    let told = [absolute, data.to_owned()].into_iter().find(|path| path.to_str().is_some());
    told.ok_or_else(|| Error::data(data, "its name is not UTF-8, as run.json needs it; give a link to it"))
}

/// Makes the first `runs/<recipe>-<n>` that is not there yet.
fn next_run(recipe: &str) -> Result<NewFolder> {
    let runs = Path::new("runs");
    let parent = (!runs.exists()).then(|| runs.to_owned());
    std::fs::create_dir_all(runs).map_err(Error::io("create", runs))?;
    for path in (1..100_000).map(|n| runs.join(format!("{recipe}-{n}"))) {
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(NewFolder { path, parent }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", &path)(error)),
        }
    }
    Err(Error::run(runs, "holds too many runs; give --out"))
}
