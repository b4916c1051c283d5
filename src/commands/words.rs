//! The lines that a run prints before its first step and after its last one.

use std::path::Path;

use crate::backend::Backend;
use crate::config::OptimizerKind;
use crate::error::Result;
use crate::net::plan::Param;
use crate::net::spec::Net;
use crate::show::progress::{TrainProgress, Work};
use crate::text::{counted, grouped, quoted};
use crate::train::session::Session;
use serde_json::json;

use super::job::{Job, Start};

/// The work of `session`.
pub fn work<B: Backend>(session: &Session<B>) -> Work {
    Work {
        batch_size: session.recipe().train.batch_size,
        steps_per_epoch: session.steps_per_epoch(),
        held_out: session.data().held_out.len(),
        classes: session.data().classes.len(),
    }
}

/// Prints what will be done, with which data, and in which directory; as a line of JSON on request.
pub fn before<B: Backend>(
    progress: &TrainProgress,
    job: &Job,
    session: &mut Session<B>,
    device: &str,
    as_json: bool,
) -> Result<()> {
    let plans = session.pair().plans();
    let streams = plans.len();
    let parameters: usize = plans.iter().flat_map(|plan| &plan.params).map(Param::elems).sum();
    let (recipe, data) = (session.recipe(), session.data());
    let [channels, height, width] = Net::from_options(&recipe.net)?.image;
    let Work { batch_size, steps_per_epoch, held_out, classes } = work(session);
    let planned = recipe.train.epochs.saturating_mul(steps_per_epoch);
    let total = job.steps.map_or(planned, |steps| steps.min(planned));
    let (training, step) = (data.train.len(), session.step());
    progress.say(&format!("device   {device}"));
    progress.say(&format!(
        "network  {}, {} parameters, images of {channels}x{height}x{width}",
        if streams == 1 { "one stream" } else { "two streams" },
        grouped(parameters as u64),
    ));
    let optimizer = match recipe.optimizer.kind {
        OptimizerKind::Sgd => "SGD",
        OptimizerKind::Adam => "Adam",
    };
    let (name, lr) = (&recipe.name, recipe.optimizer.lr);
    progress.say(&format!("recipe   {name} ({optimizer} optimizer, batch {batch_size}, lr {lr})"));
    let folder = job.data.display();
    let (ours, names) = (counted(held_out, "held-out image[s]"), counted(classes, "class[es]"));
    progress.say(&format!("data     {folder}: {training} training and {ours}, {names}"));
    if step < total {
        let epoch = if steps_per_epoch == 1 { "each an epoch".into() } else { format!("{steps_per_epoch} an epoch") };
        let first = step + 1;
        progress.say(&format!("steps    {first} to {total}, {epoch}; held-out images after each and at the end"));
    }
    let from = match &job.start {
        Start::New => String::new(),
        Start::Over => ": nothing of it was saved, from its beginning".into(),
        Start::Checkpoint { step, .. } => format!(": continues from step {step}"),
    };
    progress.say(&format!("run      {}{from}", job.run.display()));
    if as_json {
        let row = json!({
            "kind": "start", "run": job.run.to_string_lossy(), "device": device, "recipe": recipe.name,
            "streams": streams, "parameters": parameters, "batch_size": batch_size, "training_images": training,
            "held_out_images": held_out, "classes": classes, "step": step, "total_steps": total,
            "steps_per_epoch": steps_per_epoch,
        });
        outln!("{row}");
    }
    Ok(())
}

/// Prints the outcome, and the commands that a person may want next.
pub fn after<B: Backend>(progress: &TrainProgress, run: &Path, session: &Session<B>) {
    if let Some(outcome) = progress.outcome() {
        progress.say(&format!("done     {outcome}"));
    }
    // As this program was called, so that the lines can be copied whether or not it is on the PATH.
    let program = std::env::args_os().next().unwrap_or("alexnet-split".into());
    let (program, run) = (quoted(&program.to_string_lossy()), quoted(&run.to_string_lossy()));
    let epochs = session.recipe().train.epochs;
    let more = if session.step() < epochs.saturating_mul(session.steps_per_epoch()) {
        (format!("--resume {run}"), "continue to the end of its epochs")
    } else {
        (format!("--resume {run} --epochs {}", epochs.saturating_mul(2)), "train for as many epochs again")
    };
    let mut next = vec![
        (format!("predict {run}"), "its best classes for held-out images, or for image files"),
        (format!("report {run}"), "the whole run on one page for a browser"),
        (format!("filters {run} filters.png"), "the filters of the first layer as a picture"),
    ];
    // A run that its schedule has ended cannot continue.
    if progress.is_complete() {
        next.push(more);
    }
    let wide = next.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    outln!("Next:");
    for (command, why) in next {
        outln!("  {program} {command:<wide$}  # {why}");
    }
}
