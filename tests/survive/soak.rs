//! Days in minutes: runs that are killed, stopped, starved of disk, damaged and resumed at random, by a seed, and in the
//! end have the bits of one that was left alone.
//!
//! `ALEXNET_SPLIT_SOAK_SECONDS` (20) says how long, `ALEXNET_SPLIT_SOAK_SEED` (1) what happens.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::place::{Place, checkpoint, metrics, succeeded};
use alexnet_split::rng::{Philox, Purpose};
use serde_json::Value;

/// Four epochs with everything that is drawn at random, checkpoints within and after them, and a step whose loss makes
/// the run go back.
#[rustfmt::skip]
const RUN: [&str; 19] = [
    "--out", "run", "--epochs", "4", "--keep", "3", "--set", "input.resize=72", "--set", "input.crop=random",
    "--set", "input.flip=true", "--set", "train.checkpoint_steps=2", "--set", "schedule.drops=2", "--json", "--on-nan", "rollback",
];
const BAD_LOSS: &str = "nan@10";

/// Faults that the program is asked for.
const FAULT: &str = "ALEXNET_SPLIT_FAULT";

/// The run's length, and about how many operations on the disk belong to a step of it.
const STEPS: u32 = 20;
const OPERATIONS_PER_STEP: u32 = 6;

/// A sequence of random numbers.
struct Dice(Philox, u32);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.1 += 1;
        self.0.below([self.1, 0, 0, 0], bound)
    }
}

/// The number of times that each thing was done, by its name.
type Counts = BTreeMap<&'static str, u32>;

/// The names there are: resumes, damages, three signals and five other faults.
const KINDS: usize = 10;

#[test]
fn whatever_happens_the_bits_are_those_of_a_run_left_alone() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seconds, seed) = (number("ALEXNET_SPLIT_SOAK_SECONDS", 20), number("ALEXNET_SPLIT_SOAK_SEED", 1));
    let alone = Place::new();
    succeeded(alone.train_command(&RUN).env(FAULT, BAD_LOSS).output().unwrap());
    let (expected, losses) = (checkpoint(&alone.path("run")), losses(&alone));
    assert_eq!(losses.len(), STEPS as usize - 1);

    let (mut dice, mut counts) = (Dice(Philox::new(seed, Purpose::Check, 9), 0), Counts::new());
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut runs = 0;
    while runs == 0 || Instant::now() < until {
        let place = Place::new();
        disturbed_run(&place, &mut dice, &mut counts);
        // Their bytes would fill the screen.
        assert!(checkpoint(&place.path("run")) == expected, "other bits: seed {seed}, run {runs}: {counts:?}");
        assert_eq!(self::losses(&place), losses, "seed {seed}, run {runs}: {counts:?}");
        place.ok(&["checkpoint", "verify", "run"]);
        runs += 1;
    }
    let faults: u32 = counts.iter().filter(|(what, _)| **what != "resumes").map(|(_, count)| count).sum();
    // Past the test harness, which keeps what tests print to itself.
    let report =
        format!("soak: {runs} runs in {seconds} s, seed {seed}, {faults} faults ({counts:?}), all bits equal\n");
    std::io::stderr().write_all(report.as_bytes()).unwrap();
    assert!(faults > 3 * runs && counts["resumes"] > runs, "too quiet to prove anything: {report}");
    let kinds = counts.values().filter(|count| **count > 0).count();
    assert!(runs < 20 || kinds == KINDS, "{kinds} of {KINDS} kinds: {report}");
}

fn losses(place: &Place) -> Vec<(u64, f64)> {
    let rows = metrics(&place.path("run"));
    let steps = rows.iter().filter(|row| row["kind"] == "step");
    steps.map(|row| (row["step"].as_u64().unwrap(), row["loss"].as_f64().unwrap())).collect()
}

/// Trains to the end, whatever comes in between.
fn disturbed_run(place: &Place, dice: &mut Dice, counts: &mut Counts) {
    // Every run meets enough faults; then it is left undisturbed, so that it ends.
    for disturbance in 0.. {
        let resumed = place.path("run/recipe.toml").exists();
        let threads = (1 + dice.below(3)).to_string();
        let mut command = match resumed {
            true => place.command(&["--resume", "run", "--keep", "3", "--json", "--threads", &threads]),
            false => place.train_command(&[&RUN[..], &["--threads", &threads]].concat()),
        };
        *counts.entry("resumes").or_default() += u32::from(resumed);
        if disturbance >= 6 {
            succeeded(command.env(FAULT, BAD_LOSS).output().unwrap());
            return;
        }
        let damaged = resumed && dice.below(4) == 0 && damage(place, dice, counts);
        let (what, output) = disturb(&mut command, place, dice);
        let (error, status) = (String::from_utf8_lossy(&output.stderr), output.status);
        // A signal may come before its handler is set, and then ends the process.
        let by_signal = [2, 9, 15].map(Some).contains(&status.signal());
        let fine = status.success() || by_signal || [8, 20, 130, 143].map(Some).contains(&status.code());
        let asked_for = what == "streams that fail";
        assert!(
            fine && (asked_for || !error.contains("internal error")),
            "{what}, damaged {damaged}: {status}\n{error}"
        );
        // A fault may be due after the run's end.
        *counts.entry(what).or_default() += u32::from(!status.success());
        assert!(!damaged || error.contains("the checkpoint before it") || !status.success(), "silent: {error}");
    }
}

/// Starts it and causes a fault within the first half of its remaining time: a run meets as many faults on a fast
/// machine as on a slow one.
fn disturb(command: &mut Command, place: &Place, dice: &mut Dice) -> (&'static str, Output) {
    let done = steps_done(place).min(STEPS);
    let steps = 1 + dice.below(1 + (STEPS - done) / 2);
    let (step, operation) = ((done + steps).min(STEPS), 1 + dice.below(steps * OPERATIONS_PER_STEP));
    let (what, fault) = match dice.below(8) {
        0 => ("kills at an operation on the disk", format!("kill@{operation}")),
        1 => ("kills within a write", format!("tear@{operation}")),
        2 => ("full disks", format!("full@{operation}")),
        3 => ("streams that fail", format!("panic@{step}")),
        4 => ("crashes in a step", format!("crash@{step}")),
        5 => ("SIGTERM", String::new()),
        6 => ("SIGINT", String::new()),
        _ => ("SIGKILL", String::new()),
    };
    let child = command.env(FAULT, format!("{BAD_LOSS},{fault}")).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    if let Some(signal) = what.strip_prefix("SIG") {
        // One in four comes while it starts, the others within a step, an evaluation or a checkpoint.
        let (starting, delay_us) = (dice.below(4) == 0, dice.below(20_000));
        let mut ended = false;
        while !starting && !ended && steps_done(place) < step {
            std::thread::sleep(Duration::from_millis(1));
            ended = child.try_wait().unwrap().is_some();
        }
        std::thread::sleep(Duration::from_micros(delay_us.into()));
        // A process number that is free again must not be killed.
        if !ended {
            let to = child.id().to_string();
            assert!(Command::new("kill").args([&format!("-{signal}"), &to]).status().unwrap().success());
        }
    }
    (what, child.wait_with_output().unwrap())
}

/// The last step in a run's metrics, whose last line may be half of one.
fn steps_done(place: &Place) -> u32 {
    let text = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap_or_default();
    let rows = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    rows.filter_map(|row| row["step"].as_u64()).next().unwrap_or(0) as u32
}

/// Changes or shortens a file of the newest checkpoint, if there is an older one.
fn damage(place: &Place, dice: &mut Dice, counts: &mut Counts) -> bool {
    let entries = std::fs::read_dir(place.path("run/checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let mut checkpoints: Vec<PathBuf> = entries.filter(|path| path.join("checkpoint.json").exists()).collect();
    checkpoints.retain(|path| !path.extension().is_some_and(|ending| ending == "damaged" || ending == "unfinished"));
    checkpoints.sort();
    let Some(newest) = checkpoints.pop().filter(|_| !checkpoints.is_empty()) else { return false };
    let name = ["checkpoint.json", "stream0.safetensors", "stream1.safetensors"][dice.below(3) as usize];
    let mut bytes = std::fs::read(newest.join(name)).unwrap();
    let at = dice.below(bytes.len() as u32) as usize;
    if dice.below(2) == 0 {
        bytes[at] ^= 1 << dice.below(8);
    } else {
        bytes.truncate(at);
    }
    std::fs::write(newest.join(name), bytes).unwrap();
    *counts.entry("damaged checkpoints").or_default() += 1;
    true
}
