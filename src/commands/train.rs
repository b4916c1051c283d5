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
use alexnet_split::report::progress::Progress;
use alexnet_split::report::times;
use alexnet_split::train::checkpoint;
use alexnet_split::train::run_dir::{self, RunDir, RunInfo};
use alexnet_split::train::session::{Session, resolve};

use super::place::{self, on_place};
use crate::cli::TrainArgs;

/// What is to be trained: the same in every process of a run.
#[derive(serde::Serialize, serde::Deserialize)]
struct Job {
    recipe: Recipe,
    data: PathBuf,
    /// The run's directory.
    run: PathBuf,
    /// The checkpoint to go on from.
    resumed: Option<PathBuf>,
    steps: Option<u64>,
}

pub fn train(args: &TrainArgs) -> Result<()> {
    let options = place::gpu_options(&args.device, None);
    match World::from_environment(|name| std::env::var(name).ok())? {
        None => {
            let job = job(args)?;
            let streams = Net::from_options(&job.recipe.net)?.streams;
            on_place!(place::choose(&args.device, streams), options, streams, |seats, about| {
                run(args, &job, seats, None, &about)
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
            run(args, &job, seats, Some(link), &about)
        }
    }
}

/// What the flags ask for.
fn job(args: &TrainArgs) -> Result<Job> {
    let (mut recipe, data, resumed) = match &args.resume {
        None => {
            let mut recipe = super::recipe(&args.recipe, "quick")?;
            if let Some(lr) = args.lr {
                recipe = recipe.with(&format!("optimizer.lr={lr:?}"))?;
            }
            (recipe, super::data_folder(&args.data), None)
        }
        Some(run) => {
            let (recipe, info) = (run_dir::load_recipe(run)?, run_dir::load_info(run)?);
            (recipe, args.data.data.clone().unwrap_or(info.data), Some(checkpoint::find(run)?))
        }
    };
    recipe.train.epochs = args.epochs.unwrap_or(recipe.train.epochs);
    let run = match (&args.resume, &args.out) {
        (Some(run), _) | (None, Some(run)) => run.clone(),
        (None, None) => next_run(&recipe.name)?,
    };
    Ok(Job { recipe, data, run, resumed, steps: args.steps })
}

fn run<B: Backend>(args: &TrainArgs, job: &Job, seats: Vec<Seat<B>>, link: Option<Link>, device: &str) -> Result<()> {
    let leads = link.as_ref().is_none_or(|link| link.rank() == 0);
    let data = DataSet::load(&job.data)?;
    let recipe = resolve(job.recipe.clone(), &data)?;
    let sizes = (data.train.len(), data.test.len(), data.classes.len());
    // The directory before the network: nobody wants to learn after minutes that it cannot be used.
    let mut run = match &job.resumed {
        _ if !leads => RunDir::elsewhere(&job.run),
        Some(checkpoint) => RunDir::resume(&job.run, checkpoint::load_state(checkpoint)?.step)?,
        None => {
            Net::from_options(&recipe.net).and_then(|net| Plan::all(&net))?;
            let version = env!("CARGO_PKG_VERSION").into();
            let info = RunInfo { version, data: job.data.clone(), classes: data.classes.clone() };
            RunDir::create(&job.run, &recipe, &info)?
        }
    };
    let mut session = Session::new(recipe.clone(), data, seats, link)?;
    if let Some(checkpoint) = &job.resumed {
        session.restore(checkpoint)?;
    }
    if !leads {
        eprintln!("device   {device}; process 0 reports");
        session.train(&mut run, job.steps, &mut ())?;
        session.pair().times()?;
        return Ok(());
    }
    let mut progress = Progress::new(args.json, recipe.train.batch_size);
    progress.say(&format!("device   {device}"));
    let optimizer = match recipe.optimizer.kind {
        OptimizerKind::Sgd => "SGD",
        OptimizerKind::Adam => "Adam",
    };
    let (name, batch_size, lr) = (&recipe.name, recipe.train.batch_size, recipe.optimizer.lr);
    progress.say(&format!("recipe   {name} ({optimizer} optimizer, batch {batch_size}, lr {lr})"));
    let (training, held_out, classes) = sizes;
    let folder = job.data.display();
    progress.say(&format!("data     {folder}: {training} training and {held_out} held-out images, {classes} classes"));
    progress.say(&format!("run      {}", run.path().display()));
    session.train(&mut run, job.steps, &mut progress)?;
    let times = session.pair().times()?;
    if !args.json && times.iter().any(|times| times.steps > 0) {
        let names: Vec<String> =
            session.pair().running()[0].layers.iter().map(|layer| layer.name.to_string()).collect();
        println!("\n{}", times::table(&names, &times));
        println!("loader: {:.1} ms a step waited for batches", session.loader_wait().as_secs_f64() * 1e3);
    }
    if !args.json {
        println!("Next: alexnet-split predict {}", run.path().display());
    }
    Ok(())
}

/// The first `runs/<recipe>-<n>` that is not there yet.
fn next_run(recipe: &str) -> Result<PathBuf> {
    let mut paths = (1..100_000).map(|n| Path::new("runs").join(format!("{recipe}-{n}")));
    paths.find(|path| !path.exists()).ok_or_else(|| Error::run("runs", "holds too many runs; give --out"))
}
