//! `report`: one HTML page about a run, or about several.

use crate::run::files;
use std::path::PathBuf;

use crate::disk::write_whole;
use crate::error::{Error, NO_SPACE, Result};
use crate::run::checkpoint;
use crate::run::reader::{Run, tell_apart};
use crate::show::page::heldout::{self, HeldOut};
use crate::show::page::{self, HeldOutPart};

use super::on_run;
use crate::cli::{DeviceArgs, ReportArgs, RunArgs, TransportArg};

pub fn report(args: &ReportArgs) -> Result<()> {
    let runs: Vec<PathBuf> = args.runs.iter().map(|path| checkpoint::run_of(path)).collect();
    let mut read: Vec<Run> = runs.iter().map(|path| Run::read(path)).collect::<Result<_>>()?;
    tell_apart(&mut read);
    let (html, default) = match &read[..] {
        [run] => (page::of_one(run, &held_out(args)), runs[0].join(files::REPORT)),
        several => (page::of_several(several), PathBuf::from("runs-report.html")),
    };
    let out = args.out.clone().unwrap_or(default);
    if out.is_dir() {
        return Err(Error::run(&out, "is a folder; --out takes the name of a file"));
    }
    if !out.extension().is_some_and(|ending| ending == "html" || ending == "htm") {
        return Err(Error::Usage(format!("{}: --out writes a page; give a name that ends in .html", out.display())));
    }
    // As an absolute path it has a folder that can be flushed.
    let absolute = std::path::absolute(&out).map_err(Error::io("find", &out))?;
    write_whole(&absolute, html.as_bytes()).map_err(|error| match (&error, &args.out) {
        (Error::Io { .. }, None) if error.exit_code() != NO_SPACE => {
            Error::run(&out, format!("{error}; --out FILE writes the page elsewhere"))
        }
        _ => error,
    })?;
    outln!("wrote {}: open it in a browser", out.display());
    Ok(())
}

/// The newest checkpoint's answers for held-out images. Where there are none, the page is made and says why.
fn held_out(args: &ReportArgs) -> HeldOutPart {
    if args.images == 0 {
        return HeldOutPart::LeftOut;
    }
    // A run in training removes its old checkpoint after it has written a new one, perhaps while this reads it.
    match look(args).or_else(|_| look(args)) {
        Ok(seen) => HeldOutPart::Seen(Box::new(seen)),
        Err(Error::Run { path, .. }) if checkpoint::find(&path).is_err() && path.is_dir() => {
            HeldOutPart::Missing("The run has no checkpoint yet, so there is no network to show.".into())
        }
        Err(error) => HeldOutPart::Missing(format!("The network could not be run on held-out images: {error}.")),
    }
}

fn look(args: &ReportArgs) -> Result<HeldOut> {
    // The CPU, even where there are GPUs: those may be training this run.
    let device = DeviceArgs {
        backend: crate::cli::BackendArg::Fast,
        gpus: Some(0),
        threads: args.threads,
        precision: None,
        exchange: TransportArg::Auto,
        exchange_timeout: 60,
    };
    let run = RunArgs { run: args.runs[0].clone(), device, data: args.data.clone() };
    on_run!(&run, true, |session| heldout::look(&mut session, args.images))
}
