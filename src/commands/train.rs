//! `train`: a new run, or an old one continued.

use std::path::{Path, PathBuf};

use alexnet_split::data::DataSet;
use alexnet_split::error::{Error, Result};
use alexnet_split::net::spec::Net;
use alexnet_split::report::progress::Progress;
use alexnet_split::report::times;
use alexnet_split::train::checkpoint;
use alexnet_split::train::run_dir::{self, RunDir, RunInfo};
use alexnet_split::train::session::{Session, resolve};

use crate::cli::TrainArgs;

pub fn train(args: &TrainArgs) -> Result<()> {
    let (mut recipe, folder, resumed) = match &args.resume {
        None => {
            let mut recipe = super::recipe(&args.recipe, "quick")?;
            if let Some(lr) = args.lr {
                recipe = recipe.with(&format!("optimizer.lr={lr:?}"))?;
            }
            (recipe, super::data_folder(&args.data), None)
        }
        Some(run) => {
            let (recipe, info) = (run_dir::load_recipe(run)?, run_dir::load_info(run)?);
            (recipe, args.data.data.clone().unwrap_or(info.data), Some((run, checkpoint::find(run)?)))
        }
    };
    recipe.train.epochs = args.epochs.unwrap_or(recipe.train.epochs);
    let streams = Net::from_options(&recipe.net)?.streams;
    let (threads, device) = super::device(&args.device, streams)?;
    let data = DataSet::load(&folder)?;
    let recipe = resolve(recipe, &data)?;
    let info =
        RunInfo { version: env!("CARGO_PKG_VERSION").into(), data: folder.clone(), classes: data.classes.clone() };
    let sizes = (data.train.len(), data.test.len(), data.classes.len());

    // The directory first: nobody wants to learn after minutes that it cannot be used.
    let (mut run, mut session) = match &resumed {
        None => {
            let path = args.out.clone().map_or_else(|| next_run(&recipe.name), Ok)?;
            Net::from_options(&recipe.net).and_then(|net| alexnet_split::net::plan::Plan::all(&net))?;
            (RunDir::create(&path, &recipe, &info)?, Session::on_cpu(recipe.clone(), data, threads)?)
        }
        Some((path, checkpoint)) => {
            let step = checkpoint::load_state(checkpoint)?.step;
            let run = RunDir::resume(path, step)?;
            let mut session = Session::on_cpu(recipe.clone(), data, threads)?;
            session.restore(checkpoint)?;
            (run, session)
        }
    };
    let mut progress = Progress::new(args.json, recipe.train.batch_size);
    progress.say(&format!("device   {device}"));
    progress.say(&format!(
        "recipe   {} ({} optimizer, batch {}, lr {})",
        recipe.name,
        kind(&recipe),
        recipe.train.batch_size,
        recipe.optimizer.lr
    ));
    progress.say(&format!(
        "data     {}: {} training and {} held-out images, {} classes",
        folder.display(),
        sizes.0,
        sizes.1,
        sizes.2
    ));
    progress.say(&format!("run      {}", run.path().display()));
    session.train(&mut run, args.steps, &mut progress)?;
    if !args.json {
        let names: Vec<String> = session.pair().plans()[0].layers.iter().map(|layer| layer.name.clone()).collect();
        println!("\n{}", times::table(&names, &session.pair().times()));
        println!("Next: alexnet-split predict {}", run.path().display());
    }
    Ok(())
}

fn kind(recipe: &alexnet_split::recipe::Recipe) -> &'static str {
    match recipe.optimizer.kind {
        alexnet_split::recipe::OptimizerKind::Sgd => "SGD",
        alexnet_split::recipe::OptimizerKind::Adam => "Adam",
    }
}

/// The first `runs/<recipe>-<n>` that is not there yet.
fn next_run(recipe: &str) -> Result<PathBuf> {
    let mut paths = (1..100_000).map(|n| Path::new("runs").join(format!("{recipe}-{n}")));
    paths.find(|path| !path.exists()).ok_or_else(|| Error::run("runs", "holds too many runs; give --out"))
}
