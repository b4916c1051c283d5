//! Everyday handling of runs: two commands on one run, several at once, relative paths, names that are not UTF-8, files
//! that are not regular files, killed conversions.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::support::place::{Place, TINY, checkpoint, failed, metrics, output_within, succeeded};
use crate::support::process::{PATIENCE, send, spawn, wait_for};
use alexnet_split::disk::Lock;
use serde_json::Value;

/// A run of five steps, an epoch.
const RUN: [&str; 4] = ["--out", "run", "--steps", "5"];

#[test]
fn of_two_processes_on_one_run_the_second_is_refused_before_it_looks() {
    let place = Place::new();
    succeeded(place.train(&RUN));
    // Many images to evaluate, which take a while to read.
    fs::create_dir(place.path("slow")).unwrap();
    for name in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"] {
        fs::copy(place.path("data").join(name), place.path("slow").join(name)).unwrap();
    }
    let count = 300_000u32;
    let gz = |name: &str, sizes: &[u32], bytes: u32| {
        let file = fs::File::create(place.path("slow").join(name)).unwrap();
        let mut file = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        sizes.iter().for_each(|size| file.write_all(&size.to_be_bytes()).unwrap());
        std::io::copy(&mut std::io::repeat(0).take(bytes.into()), &mut file).unwrap();
        file.finish().unwrap();
    };
    gz("t10k-images-idx3-ubyte.gz", &[0x803, count, 28, 28], 784 * count);
    gz("t10k-labels-idx1-ubyte.gz", &[0x801, count], count);

    let first = spawn(place.command(&["--resume", "run", "--steps", "5", "--data", "slow"]));
    let files = format!("/proc/{}/fd", first.id());
    wait_for("it reads the data", || {
        let open = fs::read_dir(&files).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|file| file.ends_with("t10k-images-idx3-ubyte.gz"))
    });
    send("STOP", &first);
    let second = place.run(&["--resume", "run", "--steps", "8"]);
    send("CONT", &first);
    succeeded(first.wait_with_output().unwrap());
    failed(second, 4, &["in use by another run"]);
    place.ok(&["--resume", "run", "--steps", "8"]);
    let names: Vec<OsString> =
        fs::read_dir(place.path("run/checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("damaged")), "{names:?}");
}

#[test]
fn what_is_left_of_damaged_checkpoints_is_not_trained_over() {
    let place = Place::new();
    succeeded(place.train(&RUN));
    let newest = place.path("run/checkpoints/step-00000005");
    fs::rename(&newest, newest.with_extension("damaged")).unwrap();
    place.fails(&["--resume", "run"], 4, &["only damaged checkpoints", "step-00000005.damaged", "--out"]);
    assert!(newest.with_extension("damaged").exists());
}

#[test]
fn runs_that_start_together_get_a_folder_each() {
    let place = Place::new();
    let children: Vec<Child> = (0..4).map(|_| spawn(place.train_command(&["--steps", "1"]))).collect();
    // Looking at them all the while disturbs none.
    let look = || drop(place.run(&["runs"]));
    (0..20).for_each(|_| look());
    for child in children {
        succeeded(child.wait_with_output().unwrap());
    }
    let listed = place.ok(&["runs", "--json"]);
    let mut rows: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["name"].to_string());
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["quick-1", "quick-2", "quick-3", "quick-4"]);
    assert!(rows.iter().all(|row| row["state"] == "finished"), "{listed}");
}

#[test]
fn a_look_at_a_run_does_not_keep_it_from_starting() {
    let place = Place::new();
    succeeded(place.train(&RUN));
    // As `runs` and `report` do, for as long as a busy machine may take.
    let lock = fs::File::open(place.path("run/lock")).unwrap();
    lock.lock_shared().unwrap();
    let child = spawn(place.command(&["--resume", "run", "--steps", "6"]));
    std::thread::sleep(Duration::from_millis(200));
    lock.unlock().unwrap();
    succeeded(child.wait_with_output().unwrap());
}

#[test]
fn a_lock_ends_although_a_process_begun_meanwhile_has_its_file_open() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = || fs::File::open(file.path()).unwrap();
    let first = open();
    // What a child has from its fork to its exec.
    let child = first.try_clone().unwrap();
    let lock = Lock::wait(first).unwrap().unwrap();
    assert!(Lock::wait(open()).unwrap().is_none());
    drop(lock);
    assert!(Lock::wait(open()).unwrap().is_some());
    drop(child);
}

#[test]
fn checkpoints_are_understood_from_wherever_the_user_stands() {
    let place = Place::new();
    succeeded(place.train(&RUN));
    symlink(place.path("run/checkpoints/step-00000005"), place.path("link")).unwrap();
    let from = |folder: &str, path: &str| {
        let mut command = place.command(&["eval", path, "--gpus", "0"]);
        succeeded(command.current_dir(place.path(folder)).output().unwrap())
    };
    let expected = place.ok(&["eval", "run", "--gpus", "0"]);
    for (folder, path) in [
        (".", "run/checkpoints/step-00000005"),
        (".", "link"),
        ("run", "checkpoints/step-00000005"),
        ("run/checkpoints", "step-00000005"),
        ("run/checkpoints/step-00000005", "."),
        ("run/checkpoints/step-00000005", "../step-00000005/"),
    ] {
        assert_eq!(from(folder, path), expected, "{path} from {folder}");
    }
    let mut command = place.command(&["--resume", "step-00000005"]);
    let output = command.current_dir(place.path("run/checkpoints")).output().unwrap();
    failed(output, 4, &["is a checkpoint", "--resume", "/run"]);
}

#[test]
fn names_that_are_not_utf_8_end_nothing() {
    let place = Place::new();
    let odd = OsStr::from_bytes(b"r\xffn");
    let command = |before: &[&str], after: &[&str]| {
        let mut command = place.command(before);
        command.arg(odd).args(after);
        command.output().unwrap()
    };
    let mut train = place.train_command(&["--steps", "1"]);
    succeeded(train.arg("--out").arg(odd).output().unwrap());
    for (before, after) in [
        (&["checkpoint", "list"][..], &["--json"][..]),
        (&["checkpoint", "verify"], &["--json"]),
        (&["filters", "--json"], &["out.png"]),
        (&["eval"], &["--json"]),
        (&["report"], &[]),
    ] {
        let text = succeeded(command(before, after));
        let rows = text.lines().filter(|_| after == ["--json"] || before.contains(&"--json"));
        rows.for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
    }
    let listed: Value = serde_json::from_str(&place.ok(&["runs", ".", "--json"])).unwrap();
    assert_eq!(listed["name"], "r\u{fffd}n");

    // The data's name is in run.json, which has to be readable again.
    fs::rename(place.path("data"), place.path("").join(odd).join("data")).unwrap();
    let mut train = place.command(&[&TINY[..], &["--steps", "1", "--out", "run"]].concat());
    let data = Path::new(odd).join("data");
    failed(train.arg("--data").arg(&data).output().unwrap(), 3, &["not UTF-8", "link"]);
    assert!(!place.path("run/recipe.toml").exists());
    // A folder above it may have any name if the data's path does not need it.
    let mut train = place.train_command(&["--steps", "1", "--out", "run"]);
    let folder = place.path("").join(odd);
    succeeded(train.current_dir(&folder).output().unwrap());
    let mut eval = place.command(&["eval", "run", "--gpus", "0"]);
    succeeded(eval.current_dir(&folder).output().unwrap());
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    for name in ["metrics.jsonl", "journal.jsonl", "run.json", "timeline.json"] {
        let place = Place::new();
        succeeded(place.train(&RUN));
        let file = place.path("run").join(name);
        fs::remove_file(&file).unwrap();
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        let within = |args: &[&str]| output_within(&mut place.command(args), PATIENCE);
        failed(within(&["report", "run"]), 4, &[name, "is not a file"]);
        let output = within(&["runs", "."]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && error.contains(name) && error.contains("is not a file"), "{output:?}");
        if name != "timeline.json" {
            failed(within(&["--resume", "run", "--steps", "6"]), 4, &[name, "is not a file"]);
        }
    }
}

#[test]
fn files_of_a_run_that_are_broken_are_named_as_such() {
    let place = Place::new();
    succeeded(place.train(&RUN));
    for name in ["run.json", "recipe.toml"] {
        let file = place.path("run").join(name);
        let whole = fs::read(&file).unwrap();
        for broken in [&b""[..], &whole[..whole.len() / 2]] {
            fs::write(&file, broken).unwrap();
            place.fails(&["--resume", "run", "--steps", "6"], 4, &[name, "damaged"]);
            place.fails(&["eval", "run"], 4, &[name, "damaged"]);
        }
        if name == "run.json" {
            fs::remove_file(&file).unwrap();
            place.fails(&["--resume", "run", "--steps", "6"], 4, &[name, "is missing"]);
        }
        fs::write(&file, whole).unwrap();
    }
    // A file in the page's place, because root may write into every folder.
    fs::create_dir(place.path("run/report.html.tmp")).unwrap();
    place.fails(&["report", "run"], 4, &["report.html", "--out FILE"]);
}

#[test]
fn a_run_goes_on_with_its_own_data_only() {
    let place = Place::new();
    succeeded(place.train(&RUN));
    fs::rename(place.path("data"), place.path("moved")).unwrap();
    place.ok(&["--resume", "run", "--steps", "6", "--data", "moved"]);
    let labels: Vec<u8> = (0..96u32).map(|i| (i % 10) as u8).collect();
    fs::rename(place.path("moved"), place.path("data")).unwrap();
    place.write_idx("train", &[96, 28, 28], &[9; 784 * 96], &labels);
    let args = ["--resume", "run", "--steps", "7", "--data", "data"];
    place.fails(&args, 3, &["data", "96 training images", "begun with 80"]);
    place.write_idx("train", &[80, 28, 28], &[9; 784 * 80], &labels[..80]);
    fs::write(place.path("data/classes.txt"), (0..12).map(|n| format!("class {n}\n")).collect::<String>()).unwrap();
    place.fails(&args, 3, &["12 classes", "trained on 10"]);
    // A class of the run's by another number: its labels would be wrong.
    let names = |order: [u32; 10]| order.map(|n| format!("class {n}\n")).concat();
    fs::write(place.path("data/classes.txt"), names([1, 0, 2, 3, 4, 5, 6, 7, 8, 9])).unwrap();
    let words = ["\"class 1\" has number 0", "in the run it has 1", "--classes"];
    place.fails(&args, 3, &words);
    place.fails(&["eval", "run", "--data", "data"], 3, &words);
    // Other names for all: they may be the same classes.
    fs::write(place.path("data/classes.txt"), "abcdefghij".split("").skip(1).take(10).collect::<Vec<_>>().join("\n"))
        .unwrap();
    place.ok(&["eval", "run", "--data", "data"]);
}

#[test]
fn numbers_without_bound_are_taken_as_such() {
    let place = Place::new();
    let most = u64::MAX.to_string();
    succeeded(place.train(&["--out", "run", "--epochs", &most, "--steps", "6"]));
    failed(place.train(&["--out", "many", "--keep", &usize::MAX.to_string()]), 20, &["checkpoints", "--keep 1"]);
}

#[test]
fn a_conversion_is_whole_or_no_run() {
    let place = Place::new();
    succeeded(place.train(&RUN));
    let mut finished = 0;
    for at in 1.. {
        let out = format!("one-{at}");
        let mut command = place.command(&["convert", "run", &out]);
        let output = command.env("ALEXNET_SPLIT_FAULT", format!("kill@{at}")).output().unwrap();
        if output.status.success() {
            finished += 1;
        }
        if place.path(&out).join("recipe.toml").exists() {
            place.ok(&["checkpoint", "verify", &out]);
            assert!(checkpoint(&place.path(&out)).len() == 2, "kill@{at}");
        }
        if finished == 1 {
            let listed = place.ok(&["runs", ".", "--json"]);
            let rows: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let row = rows.iter().find(|row| row["name"] == out.as_str()).unwrap();
            assert_eq!((&row["state"], &row["step"]), (&"finished".into(), &5.into()), "{row}");
            let message = row["message"].as_str().unwrap();
            assert!(message.contains("one stream of step 5, converted from run"), "{message}");
            place.ok(&["--resume", &out, "--steps", "6"]);
            break;
        }
    }
}

#[test]
fn an_evaluation_is_written_once() {
    // Told to end in an evaluation, then killed at every operation of the process that makes up for it.
    let place = Place::with_much_to_evaluate();
    let child = spawn(place.train_command(&RUN));
    let steps = |kind: &str| {
        let text = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap_or_default();
        text.lines().filter(|line| line.contains(&format!("\"kind\":\"{kind}\""))).count()
    };
    wait_for("five steps", || steps("step") == 5);
    send("TERM", &child);
    failed(child.wait_with_output().unwrap(), 143, &["SIGTERM"]);
    assert_eq!(steps("eval"), 0);
    for at in 3..10 {
        let mut command = place.command(&["--resume", "run"]);
        let output = command.env("ALEXNET_SPLIT_FAULT", format!("kill@{at}")).output().unwrap();
        if output.status.success() {
            break;
        }
    }
    place.ok(&["--resume", "run", "--steps", "5"]);
    assert_eq!(metrics(&place.path("run")).iter().filter(|row| row["kind"] == "eval").count(), 1);
}

#[test]
fn a_run_that_ends_before_its_first_step_by_a_mistake_leaves_nothing() {
    let place = Place::new();
    let small = ["--set", "input.resize=60"];
    for out in [&[][..], &["--out", "run"], &["--out", "a/run"]] {
        failed(place.train(&[&small[..], out].concat()), 2, &["input.resize", "60"]);
    }
    assert!(!place.path("runs").exists() && !place.path("run").exists() && !place.path("a/run").exists());
    // A folder that was there, and files of others, stay.
    fs::create_dir(place.path("mine")).unwrap();
    failed(place.train(&[&small[..], &["--out", "mine"]].concat()), 2, &["input.resize"]);
    assert!(place.path("mine/journal.jsonl").is_file());
    // A run that has made a step stays, whatever ends it.
    succeeded(place.train(&RUN));
    let before = fs::read(place.path("run/metrics.jsonl")).unwrap();
    failed(place.train(&[&small[..], &RUN, &["--continue"]].concat()), 4, &["run", "another recipe"]);
    assert_eq!(fs::read(place.path("run/metrics.jsonl")).unwrap(), before);
    // Without the mistake the same command begins the run.
    succeeded(place.train(&["--out", "a/run", "--steps", "1"]));
}
