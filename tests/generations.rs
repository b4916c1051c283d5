//! Checkpoints as they are found: which one a run goes on from, goes back to, keeps, passes over and refuses, whatever
//! lies beside them.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::place::{Place, checkpoint, failed, metrics, output_within, succeeded};
use support::process::{PATIENCE, send, spawn, wait_for};

/// Two epochs of five steps, a checkpoint after each step, all kept.
const RUN: [&str; 8] = ["--out", "run", "--epochs", "2", "--keep", "99", "--set", "train.checkpoint_steps=1"];

fn begun() -> Place {
    let place = Place::new();
    succeeded(place.train(&RUN));
    place
}

fn generation(place: &Place, step: u32) -> PathBuf {
    place.path(&format!("run/checkpoints/step-{step:08}"))
}

/// Steps of the run's checkpoints.
fn steps(place: &Place) -> Vec<u64> {
    let list = place.ok(&["checkpoint", "list", "run", "--json"]);
    list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Lines of a kind in the run's metrics, which may be being written.
fn count(place: &Place, kind: &str) -> usize {
    let text = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.contains(&format!("\"kind\":\"{kind}\""))).count()
}

#[test]
fn one_request_to_end_may_come_as_several_signals_but_a_later_one_ends_at_once() {
    let place = Place::new();
    let child = spawn(place.train_command(&["--out", "run", "--epochs", "4000"]));
    wait_for("two steps", || count(&place, "step") >= 2);
    ["STOP", "TERM", "INT", "CONT"].iter().for_each(|signal| send(signal, &child));
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().unwrap();
    assert!([130, 143].contains(&code), "{output:?}");
    failed(output, code, &["ended by SIG", "saved", "--resume run"]);
    place.ok(&["checkpoint", "verify", "run"]);

    // A network whose steps take seconds.
    let place = Place::new();
    let mut command = place.command(&["--out", "run", "--batch-size", "256", "--gpus", "0", "--threads", "1"]);
    command.current_dir(place.path(""));
    let child = spawn(command);
    wait_for("it starts", || place.path("run/journal.jsonl").exists());
    send("TERM", &child);
    std::thread::sleep(Duration::from_millis(1300));
    send("TERM", &child);
    let since = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert!(!stderr(&output).contains("saved"), "{output:?}");
    assert_eq!(fs::read_dir(place.path("run/checkpoints")).unwrap().count(), 0);
}

#[test]
fn a_run_goes_back_past_weights_that_turn_out_to_be_bad() {
    // Every update is wild, so that every checkpoint within an epoch is of weights that give no loss.
    let wild = ["--out", "run", "--lr", "1e20", "--set", "train.checkpoint_steps=1"];
    for keep in ["1", "9"] {
        let place = Place::new();
        succeeded(place.train(&[&wild[..], &["--epochs", "3", "--keep", keep, "--on-nan", "rollback"]].concat()));
        let eval: Value = serde_json::from_str(&place.ok(&["eval", "run", "--json"])).unwrap();
        assert!(eval["loss"].as_f64().is_some_and(|loss| loss < 3.), "{eval}");
    }
    // Where there is none before, the message does not call it good.
    let place = Place::new();
    failed(
        place.train(&wild),
        6,
        &["the newest checkpoint, run/checkpoints/step-00000001, has the weights that gave it"],
    );

    // Told to end in the evaluation of such weights, and resumed: as if it had not been.
    let evaluating = |name: &str| {
        let place = Place::new();
        let count = 30_000u32;
        let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
        place.write_idx("t10k", &[count, 28, 28], &vec![90; 784 * count as usize], &labels);
        let args = ["--out", name, "--steps", "1", "--lr", "1e30", "--on-nan", "rollback"];
        let command = place.train_command(&args);
        (place, command)
    };
    let (place, command) = evaluating("run");
    let child = spawn(command);
    wait_for("a step", || count(&place, "step") == 1);
    send("TERM", &child);
    failed(child.wait_with_output().unwrap(), 143, &["after step 1"]);
    place.ok(&["--resume", "run", "--steps", "1"]);
    let (whole, mut command) = evaluating("run");
    succeeded(command.output().unwrap());
    let [found, expected] = [&place, &whole].map(|place| checkpoint(&place.path("run")));
    assert_eq!(String::from_utf8_lossy(&found[0].1), String::from_utf8_lossy(&expected[0].1));
    assert_eq!(found, expected);
}

#[test]
fn a_checkpoint_made_for_a_signal_is_none_to_go_back_to() {
    let args = ["--out", "run", "--epochs", "3", "--keep", "9", "--on-nan", "rollback"];
    let train = |place: &Place| {
        let mut command = place.train_command(&args);
        command.env("ALEXNET_SPLIT_FAULT", "nan@9");
        command
    };
    let whole = Place::new();
    succeeded(train(&whole).output().unwrap());
    // Stopped after step 6, 7 or 8, of which the undisturbed run has no checkpoint.
    let stopped = || {
        let place = Place::new();
        let child = spawn(train(&place));
        wait_for("six steps", || count(&place, "step") >= 6);
        send("TERM", &child);
        let output = child.wait_with_output().unwrap();
        let marker = |step: u32| fs::read_to_string(generation(&place, step).join("checkpoint.json")).ok();
        let made = (6..9).filter_map(marker).any(|text| text.contains("\"on_signal\": true"));
        (made && output.status.code() == Some(143)).then_some(place)
    };
    let place = (0..50).find_map(|_| stopped()).expect("the signal came too late fifty times");
    let mut resume = place.command(&["--resume", "run"]);
    succeeded(resume.env("ALEXNET_SPLIT_FAULT", "nan@9").output().unwrap());
    let skipped = |place: &Place| metrics(&place.path("run")).into_iter().find(|row| row["kind"] == "skipped");
    assert_eq!(skipped(&place), skipped(&whole));
    assert_eq!(checkpoint(&place.path("run")), checkpoint(&whole.path("run")));
}

#[test]
fn going_back_ends_after_ten_times_not_where_there_is_nothing_older() {
    let train = |place: &Place, args: &[&str], fault: &str| {
        let base = ["--out", "run", "--epochs", "4", "--on-nan", "rollback"];
        let mut command = place.train_command(&[&base[..], args].concat());
        command.env("ALEXNET_SPLIT_FAULT", fault).output().unwrap()
    };
    for fault in ["nan@1,nan@2", "nan@11,nan@12,nan@13"] {
        succeeded(train(&Place::new(), &[], fault));
    }
    let all: Vec<String> = (1..20).map(|step| format!("nan@{step}")).collect();
    let place = Place::new();
    place.write_idx("train", &[320, 28, 28], &[9; 784 * 320], &(0..320u32).map(|i| (i % 10) as u8).collect::<Vec<_>>());
    failed(train(&place, &[], &all.join(",")), 6, &["step 11", "step-00000000"]);

    // What is kept to go back to is the same after a crash.
    let args = ["--keep", "1", "--set", "train.checkpoint_steps=1", "--epochs", "3"];
    let bad = "nan@11,nan@12";
    let (whole, crashed) = (Place::new(), Place::new());
    let run = |place: &Place, args: &[&str], fault: &str| {
        let mut command = place.train_command(&[&["--out", "run", "--on-nan", "rollback"], args].concat());
        command.env("ALEXNET_SPLIT_FAULT", fault).output().unwrap()
    };
    succeeded(run(&whole, &args, bad));
    assert_eq!(run(&crashed, &args, &format!("{bad},crash@11")).status.code(), None);
    let mut resume = crashed.command(&["--resume", "run"]);
    succeeded(resume.env("ALEXNET_SPLIT_FAULT", bad).output().unwrap());
    assert_eq!(checkpoint(&crashed.path("run")), checkpoint(&whole.path("run")));
}

#[test]
fn an_evaluation_that_is_made_again_is_not_forgotten() {
    let with_much_to_evaluate = || {
        let place = Place::new();
        let count = 30_000u32;
        let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
        place.write_idx("t10k", &[count, 28, 28], &vec![90; 784 * count as usize], &labels);
        let command = place.train_command(&["--out", "run", "--steps", "1", "--lr", "1e30", "--on-nan", "rollback"]);
        (place, command)
    };
    let (place, command) = with_much_to_evaluate();
    let child = spawn(command);
    wait_for("it goes back", || count(&place, "skipped") == 1);
    send("TERM", &child);
    failed(child.wait_with_output().unwrap(), 143, &["after step 1"]);
    assert_eq!(count(&place, "eval"), 0);
    place.ok(&["--resume", "run", "--steps", "1"]);
    assert_eq!(count(&place, "eval"), 1);
    let (whole, mut command) = with_much_to_evaluate();
    succeeded(command.output().unwrap());
    assert_eq!(checkpoint(&place.path("run")), checkpoint(&whole.path("run")));
}

#[test]
fn a_checkpoint_made_for_a_signal_serves_where_there_is_no_other() {
    let place = Place::new();
    let child = spawn(place.train_command(&["--out", "run", "--epochs", "40", "--set", "train.loss_spike=0"]));
    wait_for("three steps", || count(&place, "step") >= 3);
    send("TERM", &child);
    child.wait_with_output().unwrap();
    let next = count(&place, "step") + 1;
    let mut resume = place.command(&["--resume", "run", "--on-nan", "rollback"]);
    let steps = (next + 1).to_string();
    succeeded(resume.args(["--steps", &steps]).env("ALEXNET_SPLIT_FAULT", format!("nan@{next}")).output().unwrap());
    // A converted run has a checkpoint like any other.
    place.ok(&["convert", "run", "one/"]);
    let mut resume = place.command(&["--resume", "one", "--on-nan", "rollback", "--epochs", "41"]);
    let (bad, steps) = (format!("nan@{}", next + 2), (next + 2).to_string());
    succeeded(resume.args(["--steps", &steps]).env("ALEXNET_SPLIT_FAULT", bad).output().unwrap());
    place.fails(&["convert", "run", "."], 4, &["is there already"]);
    fs::create_dir(place.path("two.unfinished")).unwrap();
    place.fails(&["convert", "run", "two"], 4, &["two.unfinished", "is in the way"]);
    assert!(place.path("two.unfinished").exists());
}

#[test]
fn bad_losses_in_a_row_are_counted_over_a_resume() {
    let faults: Vec<String> = (2..=15).map(|step| format!("nan@{step}")).collect();
    let faulty = |mut command: Command| command.env("ALEXNET_SPLIT_FAULT", faults.join(",")).output().unwrap();
    let place = Place::new();
    let args = ["--out", "run", "--epochs", "4", "--on-nan", "skip"];
    // An epoch of 20 steps.
    place.write_idx("train", &[320, 28, 28], &[9; 784 * 320], &(0..320u32).map(|i| (i % 10) as u8).collect::<Vec<_>>());
    succeeded(faulty(place.train_command(&[&args[..], &["--steps", "8"]].concat())));
    failed(faulty(place.command(&["--resume", "run"])), 6, &["step 12"]);
}

#[test]
fn a_checkpoint_without_its_marker_is_damaged() {
    let place = begun();
    fs::remove_file(generation(&place, 10).join("checkpoint.json")).unwrap();
    place.fails(&["checkpoint", "verify", "run"], 4, &["step-00000010", "checkpoint.json: No such file"]);
    let output = place.run(&["--resume", "run"]);
    assert!(
        stderr(&output).contains("step-00000010: damaged: checkpoint.json") && output.status.success(),
        "{output:?}"
    );
    assert_eq!(checkpoint(&place.path("run")), checkpoint(&begun().path("run")));
    // All of them: nothing is begun anew.
    for step in 1..=10 {
        fs::remove_file(generation(&place, step).join("checkpoint.json")).unwrap();
    }
    let before = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    place.fails(&["--resume", "run"], 4, &["only damaged checkpoints are left", "step-00000010", "--out"]);
    assert!(generation(&place, 10).join("stream0.safetensors").exists());
    assert_eq!(fs::read_to_string(place.path("run/metrics.jsonl")).unwrap(), before);
}

#[test]
fn what_lies_beside_checkpoints_ends_nothing() {
    let place = begun();
    fs::write(place.path("run/checkpoints/step-00000003.tar.gz"), "mine").unwrap();
    fs::create_dir(place.path("run/checkpoints/step-old")).unwrap();
    fs::create_dir(place.path("run/checkpoints/step-+0000077")).unwrap();
    fs::copy(
        generation(&place, 9).join("checkpoint.json"),
        place.path("run/checkpoints/step-+0000077/checkpoint.json"),
    )
    .unwrap();
    fs::create_dir(generation(&place, 2).join("notes")).unwrap();
    let output = place.run(&["--resume", "run", "--epochs", "3", "--keep", "1"]);
    assert!(stderr(&output).contains("old checkpoints are left") && output.status.success(), "{output:?}");
    for left in ["step-00000003.tar.gz", "step-old", "step-+0000077", "step-00000002/notes"] {
        assert!(place.path("run/checkpoints").join(left).exists(), "{left}");
    }
    // A copy by another name is not whole under it.
    let copy = generation(&place, 20);
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(generation(&place, 15)).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    place.fails(&["checkpoint", "verify", "run"], 4, &["step-00000020", "is of step 15"]);
    place.ok(&["checkpoint", "verify", copy.to_str().unwrap()]);
}

#[test]
fn a_marker_that_is_no_file_is_not_waited_for() {
    for stand_in in ["fifo", "/dev/zero"] {
        let place = begun();
        let marker = generation(&place, 10).join("checkpoint.json");
        fs::remove_file(&marker).unwrap();
        match stand_in {
            "fifo" => assert!(Command::new("mkfifo").arg(&marker).status().unwrap().success()),
            device => std::os::unix::fs::symlink(device, &marker).unwrap(),
        }
        let output = output_within(&mut place.command(&["--resume", "run"]), PATIENCE);
        assert!(output.status.success() && stderr(&output).contains("step-00000010: damaged"), "{output:?}");
        assert_eq!(checkpoint(&place.path("run")), checkpoint(&begun().path("run")));
    }
}

#[test]
fn what_was_asked_for_on_the_way_is_remembered() {
    let place = begun();
    place.ok(&["--resume", "run", "--epochs", "3", "--on-nan", "skip"]);
    assert_eq!(steps(&place), (1..=15).collect::<Vec<u64>>(), "as many are kept as were asked for");
    place.ok(&["--resume", "run", "--epochs", "5", "--steps", "16", "--keep", "2"]);
    assert!(steps(&place).len() <= 3, "{:?}", steps(&place));
    let text = place.ok(&["--resume", "run"]);
    assert!(text.contains("step 25: held-out"), "{text}");
    assert!(steps(&place).len() <= 3, "{:?}", steps(&place));
    // The command that began it, with a word for restarts, takes nothing back.
    succeeded(place.train(&[&RUN[..2], &RUN[6..], &["--restarts", "1"]].concat()));
    let recipe = fs::read_to_string(place.path("run/recipe.toml")).unwrap();
    assert!(recipe.contains("epochs = 5") && recipe.contains("on_bad_loss = \"skip\""), "{recipe}");
}

#[test]
fn a_run_that_goes_on_can_be_looked_at() {
    let place = Place::new();
    let child = spawn(place.train_command(&["--out", "run", "--epochs", "4000", "--keep", "1"]));
    wait_for("a checkpoint", || {
        place.path("run").exists() && Path::new(&place.path("run/checkpoints")).is_dir() && {
            let output = place.run(&["checkpoint", "list", "run"]);
            output.status.success()
        }
    });
    for _ in 0..20 {
        place.ok(&["eval", "run", "--gpus", "0"]);
    }
    send("TERM", &child);
    child.wait_with_output().unwrap();
}
