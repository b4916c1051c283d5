//! Checkpoints in a run's folder: which one a run resumes from, keeps, skips and refuses, whatever other files there
//! are.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::place::{Place, checkpoint, checkpoint_folder, count, failed, output_within, succeeded};
use crate::support::process::{PATIENCE, send, spawn, wait_for};
use serde_json::Value;

/// Two epochs of five steps, a checkpoint after each step, all kept.
const RUN: [&str; 8] = ["--out", "run", "--epochs", "2", "--keep", "99", "--set", "train.checkpoint_steps=1"];

fn begun() -> Place {
    let place = Place::new();
    succeeded(place.train(&RUN));
    place
}

/// Steps of the run's checkpoints.
fn steps(place: &Place) -> Vec<u64> {
    let list = place.ok(&["checkpoint", "list", "run", "--json"]);
    list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
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
fn a_checkpoint_without_its_marker_is_damaged() {
    let place = begun();
    fs::remove_file(checkpoint_folder(&place, 10).join("checkpoint.json")).unwrap();
    place.fails(&["checkpoint", "verify", "run"], 4, &["step-00000010", "checkpoint.json: No such file"]);
    let output = place.run(&["--resume", "run"]);
    assert!(
        stderr(&output).contains("step-00000010: damaged: checkpoint.json") && output.status.success(),
        "{output:?}"
    );
    assert_eq!(checkpoint(&place.path("run")), checkpoint(&begun().path("run")));
    // All of them: nothing is begun anew.
    for step in 1..=10 {
        fs::remove_file(checkpoint_folder(&place, step).join("checkpoint.json")).unwrap();
    }
    let before = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    place.fails(&["--resume", "run"], 4, &["only damaged checkpoints", "step-00000010", "--out"]);
    assert!(checkpoint_folder(&place, 10).join("stream0.safetensors").exists());
    assert_eq!(fs::read_to_string(place.path("run/metrics.jsonl")).unwrap(), before);
}

#[test]
fn what_lies_beside_checkpoints_ends_nothing() {
    let place = begun();
    fs::write(place.path("run/checkpoints/step-00000003.tar.gz"), "mine").unwrap();
    fs::create_dir(place.path("run/checkpoints/step-old")).unwrap();
    fs::create_dir(place.path("run/checkpoints/step-+0000077")).unwrap();
    fs::copy(
        checkpoint_folder(&place, 9).join("checkpoint.json"),
        place.path("run/checkpoints/step-+0000077/checkpoint.json"),
    )
    .unwrap();
    fs::create_dir(checkpoint_folder(&place, 2).join("notes")).unwrap();
    let output = place.run(&["--resume", "run", "--epochs", "3", "--keep", "1"]);
    assert!(stderr(&output).contains("old checkpoints could not be removed") && output.status.success(), "{output:?}");
    for left in ["step-00000003.tar.gz", "step-old", "step-+0000077", "step-00000002/notes"] {
        assert!(place.path("run/checkpoints").join(left).exists(), "{left}");
    }
    // A copy by another name is not whole under it.
    let copy = checkpoint_folder(&place, 20);
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(checkpoint_folder(&place, 15)).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    place.fails(&["checkpoint", "verify", "run"], 4, &["step-00000020", "is of step 15"]);
    place.ok(&["checkpoint", "verify", copy.to_str().unwrap()]);
}

#[test]
fn a_marker_that_is_no_file_is_not_waited_for() {
    for stand_in in ["fifo", "/dev/zero"] {
        let place = begun();
        let marker = checkpoint_folder(&place, 10).join("checkpoint.json");
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
    // The command that began it, given again, takes nothing back.
    succeeded(place.train(&[&RUN[..2], &RUN[6..], &["--continue"]].concat()));
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
