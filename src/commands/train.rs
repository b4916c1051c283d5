//! `train`: a new run, or an old one continued; in one process or as one of two.

use std::path::{Path, PathBuf};

use crate::backend::Backend;
use crate::config::Recipe;
use crate::data::DataSet;
use crate::engine::devices::{self, GpuContexts};
use crate::engine::link::{Link, World};
use crate::engine::pair::StreamContext;
use crate::engine::times;
use crate::error::{Error, Result};
use crate::net::spec::Net;
use crate::run::checkpoint;
use crate::run::dir::{self, RunDir};
use crate::run::files;
use crate::run::host::Host;
use crate::run::rows::{self, End, Event, unix_s};
use crate::show::logs;
use crate::show::progress::TrainProgress;
use crate::show::trace;
use crate::train::session::{Session, resolve};
use crate::train::signals::Stop;
use crate::train::training::TrainOptions;

use super::device_flags::{self, Devices, on_devices};
use super::job::{Hold, Job, Start, commit, job, same_precision};
use super::words;
use crate::cli::TrainArgs;

pub fn train(args: &TrainArgs) -> Result<()> {
    let world = World::from_environment(|name| std::env::var(name).ok())?;
    let stop = Stop::on_signals()?;
    match world {
        None => {
            let (mut job, hold) = job(args)?;
            let streams = Net::from_options(&job.recipe.net)?.streams;
            let devices = device_flags::choose(&args.device, job.recipe.train.precision, streams);
            let options = device_flags::gpu_options(&args.device, job.recipe.train.precision);
            job.recipe.train.precision = Some(match devices {
                Devices::Cpu { precision, .. } => precision,
                Devices::Gpus(_) => options.precision,
            });
            on_devices!(devices, options, streams, |contexts, about| {
                Training { args, job: &job, contexts, link: None, device: &about, stop: &stop }.run(Some(hold))
            })
        }
        Some(world) => {
            let mut link = Link::open(&world, device_flags::gpu_options(&args.device, None).exchange_timeout)?;
            // Process 0 decides, so that only it needs the recipe and the run's directory.
            let (ours, hold) =
                if world.rank == 0 { job(args).map(|(job, hold)| (Some(job), Some(hold)))? } else { (None, None) };
            let mut job = link.broadcast(ours)?;
            let options = device_flags::gpu_options(&args.device, job.recipe.train.precision);
            same_precision(&job.recipe, args, "process 0")?;
            job.recipe.train.precision = Some(options.precision);
            job.data = args.data.data.clone().unwrap_or(job.data);
            if Net::from_options(&job.recipe.net)?.streams != 2 {
                return Err(Error::recipe("net.streams", "two processes run two streams; start one process"));
            }
            let GpuContexts { contexts, about } = devices::process_context(&world, &mut link, &options)?;
            Training { args, job: &job, contexts, link: Some(link), device: &about, stop: &stop }.run(hold)
        }
    }
}

/// All that training needs, in this process.
struct Training<'a, B: Backend> {
    args: &'a TrainArgs,
    job: &'a Job,
    contexts: Vec<StreamContext<B>>,
    /// To the other process, where there is one.
    link: Option<Link>,
    /// The devices, for people.
    device: &'a str,
    stop: &'a Stop,
}

impl<B: Backend> Training<'_, B> {
    fn leads(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.rank() == 0)
    }

    /// Opens the run's directory, trains, and records how the run ended.
    fn run(self, hold: Option<Hold>) -> Result<()> {
        let Training { args, job, device, .. } = self;
        let leads = self.leads();
        let data = DataSet::load(&job.data)?;
        if let Some(Hold::Claim(_)) = hold {
            dir::load_info(&job.run)?.goes_on_with(&data, &job.data)?;
        }
        let recipe = resolve(job.recipe.clone(), &data)?;
        let trace = args.trace.as_ref().filter(|_| leads);
        let _tracing = trace.map(|path| trace::start(&trace_path(path, &job.start))).transpose()?;
        let instructions = self.contexts.first().map_or(String::new(), |context| context.backend.instructions());
        // The directory before the network: otherwise the user would learn only after minutes that it cannot be used.
        let (mut run, keep, made) = job.open(hold, &recipe, &data, args.keep, instructions)?;
        let step = job.start.step();
        if leads {
            logs::keep(&job.run.join(files::LOG))?;
        }
        let planned = recipe.train.epochs.saturating_mul(data.train.len().div_ceil(recipe.train.batch_size) as u64);
        // A run that is longer already stays so.
        let total_steps = job.steps.map_or(planned, |steps| steps.min(planned)).max(step);
        run.journal(&Event::Start(Box::new(rows::Start {
            unix_s: unix_s(),
            step,
            command: super::command_line(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit(),
            device: device.into(),
            host: Host::this(),
            seed: Some(recipe.train.seed),
            total_steps: Some(total_steps),
            epochs: Some(recipe.train.epochs),
            process: Some(std::process::id()),
        })))?;
        let trained = self.train(keep, recipe, data, &mut run);
        for text in logs::take_warnings() {
            run.journal(&Event::warning(text))?;
        }
        let (how, code, message) = outcome(&trained);
        let step = match &trained {
            Ok(step) | Err(Error::Interrupted { step, .. } | Error::Diverged { step, .. }) => Some(*step),
            Err(_) => None,
        };
        let ended =
            run.journal(&Event::End(End { unix_s: unix_s(), step, how: how.into(), exit_code: code.into(), message }));
        // Nothing is to be seen in a run that wrong flags, wrong data or a lacking device ended before its first step.
        if made.is_some() && matches!(code, 2 | 3 | 5 | 10..=16) {
            run.discard_unless_trained();
        }
        // The error that ended the run is more important than one of its journal.
        trained.and(ended)
    }

    /// Returns the steps done.
    fn train(self, keep: usize, recipe: Recipe, data: DataSet, run: &mut RunDir) -> Result<u64> {
        let leads = self.leads();
        let Training { args, job, contexts, link, device, stop } = self;
        let options = TrainOptions { max_steps: job.steps, keep, histograms: job.histograms };
        let mut session = Session::new(recipe, data, contexts, link)?;
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
        let mut progress = TrainProgress::new(args.json, words::work(&session));
        words::before(&progress, job, &mut session, device, args.json)?;
        session.train(run, &options, &mut progress)?;
        let times = session.pair().times()?;
        if !args.json && times.iter().any(|times| times.steps > 0) {
            let names: Vec<String> =
                session.pair().running()[0].layers.iter().map(|layer| layer.name.to_string()).collect();
            logs::say(&format!("\n{}", times::table(&names, &times)));
            logs::say(&format!(
                "loader: {:.1} ms per step waited for batches",
                session.loader_wait().as_secs_f64() * 1e3
            ));
        }
        if !args.json && !checkpoint::list(run.path())?.is_empty() {
            words::after(&progress, run.path(), &session);
        }
        Ok(session.step())
    }
}

/// How a run ended, its exit code, and the message of what ended it, which the log keeps.
fn outcome(trained: &Result<u64>) -> (&'static str, u8, String) {
    let Err(error) = trained else { return ("finished", 0, String::new()) };
    let how = match error {
        Error::Interrupted { .. } => "interrupted",
        Error::Diverged { .. } => "diverged",
        _ => "failed",
    };
    logs::note(&format!("error: {error}"));
    (how, error.exit_code(), error.to_string())
}

/// The path of the trace. That of a resumed run is a new file beside the earlier ones, which stay.
fn trace_path(path: &Path, start: &Start) -> PathBuf {
    if let Start::New = start {
        return path.to_owned();
    }
    let numbered = (1..).map(|number: u32| match path.extension() {
        Some(kind) => path.with_extension(format!("{number}.{}", kind.display())),
        None => path.with_extension(number.to_string()),
    });
    std::iter::once(path.to_owned()).chain(numbered).find(|path| !path.exists()).unwrap_or_else(|| path.to_owned())
}
