//! `--restarts`: the run is a child of this process, which starts it again where it dies of something that may pass.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use alexnet_split::error::{Error, GpuTrouble, Result, Signal};
use alexnet_split::run::checkpoint;
use alexnet_split::train::signals::Stop;
use rustix::process::{Pid, Signal as UnixSignal, getppid, kill_process, set_parent_process_death_signal};

use crate::cli::TrainArgs;

/// Tells the child whose it is.
const PARENT: &str = "ALEXNET_SPLIT_PARENT";

/// Tells the child which try after the first it is, and why: "1 of 5, after signal: 9 (SIGKILL)".
const RESTART: &str = "ALEXNET_SPLIT_RESTART";

/// Time between two looks at signals and at the child.
const POLL: Duration = Duration::from_millis(50);

/// The longest pause before a restart, where the run comes no further.
const MOST_SECONDS: u64 = 32;

/// Whether this process is such a child. It is told to end when its parent has died, so that no orphan keeps a GPU.
pub fn is_supervised() -> Result<bool> {
    let Ok(parent) = std::env::var(PARENT) else { return Ok(false) };
    let failed = |error: rustix::io::Errno| Error::Device(format!("cannot watch the parent process: {error}"));
    set_parent_process_death_signal(Some(UnixSignal::TERM)).map_err(failed)?;
    if getppid().is_none_or(|pid| pid.as_raw_pid().to_string() != parent) {
        return Err(Error::Device("the process that watches over this run has ended".into()));
    }
    Ok(true)
}

/// Which try after the first this is, and what the run is to remember of it; `None` in the first one.
pub fn restart() -> Option<(u32, String)> {
    let text = std::env::var(RESTART).ok()?;
    Some((text.split(' ').next()?.parse().ok()?, format!("restart {text}")))
}

/// Runs this command in a child, again and again until it ends for good or `--restarts` are used up. Returns its exit
/// code.
pub fn supervise(args: &TrainArgs, run: &Path) -> Result<i32> {
    let stop = Stop::on_signals()?;
    let (mut restarts, mut pause, mut newest) = (0, 0, newest_step(run));
    let mut again = None;
    loop {
        let status = wait(start(args, run, again.as_deref())?, &stop)?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        if !may_pass(status) || stop.asked().is_some() || restarts == args.restarts {
            return Ok(code);
        }
        restarts += 1;
        again = Some(format!("{restarts} of {}, after {status}", args.restarts));
        let step = newest_step(run);
        pause = if step > newest { 0 } else { (2 * pause).clamp(1, MOST_SECONDS) };
        newest = step;
        let from = step.map_or("its beginning".into(), |step| format!("step {step}"));
        errln!("the run ended ({status}); restart {restarts} of {} from {from} in {pause} s", args.restarts);
        let until = Instant::now() + Duration::from_secs(pause);
        while Instant::now() < until {
            if let Some(signal) = stop.asked() {
                errln!("ended by {signal} before the restart; go on with --resume {}", run.display());
                return Ok(128 + signal as i32);
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The same command line, with the directory that the run has.
fn start(args: &TrainArgs, run: &Path, again: Option<&str>) -> Result<Child> {
    let failed = |error: std::io::Error| Error::Device(format!("cannot start the run's process: {error}"));
    let mut line: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.resume.is_none() && args.out.is_none() {
        line.extend(["--out".into(), run.into()]);
    }
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(line).env(PARENT, std::process::id().to_string());
    // A process group of its own: Ctrl-C comes to this process, which passes it on, once.
    command.process_group(0);
    command.env_remove(RESTART);
    if let Some(again) = again {
        command.env(RESTART, again);
        // A fault that a test has asked for strikes once.
        command.env_remove("ALEXNET_SPLIT_FAULT");
    }
    command.spawn().map_err(failed)
}

/// Waits for the child's end and passes signals on.
fn wait(mut child: Child, stop: &Stop) -> Result<ExitStatus> {
    let failed = |error: std::io::Error| Error::Device(format!("cannot wait for the run's process: {error}"));
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        if let (Some(signal), false, Some(pid)) = (stop.asked(), told, Pid::from_raw(child.id() as i32)) {
            let signal = if signal == Signal::Int { UnixSignal::INT } else { UnixSignal::TERM };
            told = kill_process(pid, signal).is_ok();
        }
        std::thread::sleep(POLL);
    }
}

/// Whether what ended the run may be over the next time: a signal, a panic, a file or a GPU that failed. Wrong flags and
/// data, a diverged loss and a full disk are there again.
fn may_pass(status: ExitStatus) -> bool {
    const FILE: i32 = 1;
    const STREAM: i32 = 8;
    const PANIC: i32 = 101;
    let gpus = [GpuTrouble::OutOfMemory, GpuTrouble::Failed, GpuTrouble::Exchange, GpuTrouble::Process];
    match status.code() {
        Some(code) => [FILE, STREAM, PANIC].contains(&code) || gpus.iter().any(|trouble| *trouble as i32 == code),
        None => true,
    }
}

fn newest_step(run: &Path) -> Option<u64> {
    checkpoint::list(run).ok()?.last().map(|generation| generation.step)
}
