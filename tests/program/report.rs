//! Pages about runs and the list of runs: what they say of runs in every state, and that they need nothing else.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::Path;

use crate::support::place::{Place, succeeded};
use serde_json::{Value, json};

const NAME: &str = "a<b>&\"'run";

/// A run's directory with all files in all formats, and what may go wrong with them.
fn write_run(run: &Path, steps: u64, end: Option<&str>) {
    fs::create_dir_all(run.join("filters")).unwrap();
    let recipe = format!("name = \"<quick>\"\n[train]\nepochs = 4\nbatch_size = 32\n[optimizer]\nlr = 0.{steps}\n");
    fs::write(run.join("recipe.toml"), recipe).unwrap();
    let info = json!({"version": "0.1.0", "commit": "abc1234", "data": "nowhere", "classes": ["x"], "more": [1]});
    fs::write(run.join("run.json"), info.to_string()).unwrap();
    let mut rows = vec![json!({"kind": "of the future", "step": 1}), json!([1, 2])];
    for step in 1..=steps {
        let loss = 2.5 / step as f64;
        let mut row = json!({
            "kind": "step", "step": step, "epoch": (step - 1) / 100, "loss": loss, "top1_error": 0.5, "lr": 0.01,
            "images_per_s": 70.0 + (step % 7) as f64, "loader_wait_ms": 0.1, "unknown": {"a": null},
        });
        if step % 50 == 3 {
            row["loss"] = json!("NaN");
        }
        if step < 20 {
            row.as_object_mut().unwrap().remove("top1_error"); // as older versions wrote it
        }
        rows.push(row);
        if step % 100 == 0 {
            let epoch = step / 100;
            rows.push(json!({"kind": "eval", "step": step, "epoch": epoch, "loss": 0.7, "top1_error": 0.244, "top5_error": 0.012}));
            let stream = json!({"total_ms": 400.0, "compute_ms": 380.0, "exchange_ms": 8.0, "waiting_ms": 4.0, "hidden_ms": 6.0});
            rows.push(json!({"kind": "times", "step": step, "steps": 50, "streams": [stream, stream]}));
            let kernels = |first: f64| (0..48).map(|i| first + f64::from(i) / 100.).collect::<Vec<_>>();
            rows.push(json!({"kind": "filters", "step": step, "colourfulness": [kernels(0.01), kernels(0.5)], "means": [0.1, 0.6], "gap": 0.5}));
        }
    }
    rows.push(json!({"kind": "skipped", "step": 77, "loss": "NaN", "why": "the loss is <NaN>"}));
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(run.join("metrics.jsonl"), text + "{\"kind\":\"step\",\"step\":4").unwrap();
    let host =
        json!({"name": "box", "cpu": "EPYC", "cores": 2, "memory_bytes": 25_769_803_776u64, "os": "linux x86_64"});
    let start = |unix_s: f64, step: u64| {
        json!({
            "kind": "start", "unix_s": unix_s, "step": step, "command": ["alexnet-split", "--out", "my run"], "version": "0.1.0",
            "commit": "abc1234", "device": "CPU, 2 threads", "host": host, "seed": 2012, "total_steps": 400, "epochs": 4,
        })
    };
    let mut journal = vec![
        start(1_764_039_000.5, 0),
        json!({"kind": "warning", "unix_s": 1_764_039_001.0, "text": "beware \u{1b} of </section><script>alert(1)</script>"}),
        start(1_764_040_000.5, 50),
        json!({"kind": "checkpoint", "unix_s": 1_764_040_100.0, "step": 100}),
    ];
    if let Some(how) = end {
        let message = if how == "finished" { "" } else { "it <stopped>\nand said so" };
        journal.push(json!({"kind": "end", "unix_s": 1_764_040_118.5, "step": steps, "how": how, "exit_code": 6, "message": message}));
    }
    let text: String = journal.iter().map(|row| format!("{row}\n")).collect();
    fs::write(run.join("journal.jsonl"), text + "{\"kind\":\"end\",\"uni").unwrap();
    let event = |pass: &str, activity: &str, start_us: f64| json!({"layer": "conv<1>", "pass": pass, "activity": activity, "start_us": start_us, "us": 900.0});
    let events = [
        event("forward", "compute", 0.),
        event("forward", "exchange", 500.),
        event("forward", "waiting", 900.),
        event("backward", "compute", 1800.),
        event("update", "compute", 2700.),
    ];
    let timeline = json!({"step": 200, "streams": [{"stream": 0, "events": events}, {"stream": 1, "events": events}]});
    fs::write(run.join("timeline.json"), timeline.to_string()).unwrap();
    for step in [50, 100] {
        let picture = image::RgbImage::from_pixel(16, 6, image::Rgb([step, 9, 200]));
        picture.save(run.join(format!("filters/step-{step:08}.png"))).unwrap();
    }
    fs::write(run.join("filters/unfinished.tmp"), "").unwrap();
    File::create(run.join("lock")).unwrap();
}

/// The page is whole HTML, and nothing outside it is asked for.
fn check_page(html: &str) {
    assert!(!html.contains("http"), "{:?}", html.split("http").nth(1).map(|rest| &rest[..60.min(rest.len())]));
    for attribute in ["src=\"", "href=\"", "url("] {
        for value in html.split(attribute).skip(1) {
            let inside = value.starts_with("data:image/png;base64,") || value.starts_with('#');
            assert!(inside, "{attribute}{}", &value[..40.min(value.len())]);
        }
    }
    assert!(!html.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "a control character");
    assert!(!html.contains("NaN.") && !html.contains("inf "), "a place that is no number");
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').unwrap_or_else(|| panic!("a tag without an end: {}", &rest[..rest.len().min(60)]));
        let tag = &rest[..end];
        assert!(!tag.contains('<') && tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "in {open:?}");
        } else if !tag.ends_with('/') && !["meta", "img", "br"].contains(&name) {
            open.push(name);
        }
        if tag == "style" || tag == "script" {
            rest = rest.find(&format!("</{name}")).map_or("", |at| &rest[at..]);
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
}

fn page(place: &Place, file: &str) -> String {
    let html = fs::read_to_string(place.path(file)).unwrap();
    check_page(&html);
    html
}

#[test]
fn a_page_tells_everything_about_a_run_in_whatever_state_its_files_are() {
    let place = Place::new();
    let run = place.path(NAME);
    write_run(&run, 250, Some("diverged"));
    let said = place.ok(&["report", NAME]);
    assert!(said.contains("report.html"), "{said}");
    let html = page(&place, &format!("{NAME}/report.html"));
    for id in
        ["curves", "timeline", "filters", "specialization", "held-out", "recipe", "environment", "warnings", "journal"]
    {
        assert!(html.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    for part in [
        "a&lt;b&gt;&amp;&quot;'run <span class=\"state diverged\">",
        "width=device-width",
        "prefers-color-scheme: dark",
        "<dd>250<small> of 400</small></dd>",
        "<dd>24.4%</dd>",
        "it &lt;stopped&gt;\nand said so",
        "beware \u{fffd} of &lt;/section&gt;&lt;script&gt;",
        "update skipped, the loss is &lt;NaN&gt;",
        "step 50: went on, 2025-11-25 03:06:40 UTC",
        "conv&lt;1&gt;, forward, exchange: 0.900 ms, from 0.500 ms on",
        "400 ms a step: computing 380 ms (95.0%), waiting 4.00 ms (1.0%), other 16.0 ms; exchanging 8.00 ms, 75% of it hidden",
        "At step 200 the means are 0.100 and 0.600, 0.500 apart, stream 1 the more colourful.",
        "stream 0: 4 kernels of 0.00 to 0.05</title></rect>",
        "The run has no checkpoint yet",
        "name = &quot;&lt;quick&gt;&quot;",
        "alexnet-split --out 'my run'",
        "box, EPYC, 2 cores, 24.0 GiB, linux x86_64",
        "killed: no end was recorded",
        "exit code 6",
        "1 checkpoint written",
    ] {
        assert!(html.contains(part), "no {part:?}");
    }
    assert_eq!(html.matches("<polyline").count(), 2 + 3 + 1 + 1 + 1 + 3, "lines of all charts");
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 2, "the first and the newest picture");

    // All that may be missing, and files that are none.
    for file in ["journal.jsonl", "timeline.json", "run.json", "recipe.toml", "lock"] {
        fs::remove_file(run.join(file)).unwrap();
    }
    fs::write(run.join("filters/step-00000100.png"), "no picture").unwrap();
    File::options().append(true).open(run.join("metrics.jsonl")).unwrap().write_all(b"\xff\xfe\n").unwrap();
    place.ok(&["report", NAME, "--out", "bare.html", "--images", "0"]);
    let html = page(&place, "bare.html");
    for part in ["killed", "No step has been sampled", "cannot be read", "keep no journal", "no recipe.toml"] {
        assert!(html.contains(part), "no {part:?}");
    }
    assert!(!html.contains("id=\"held-out\""));
    fs::write(run.join("metrics.jsonl"), "").unwrap();
    place.ok(&["report", NAME, "--out", "empty.html"]);
    let html = page(&place, "empty.html");
    assert!(html.contains("never started") && html.contains("Nothing was recorded yet"), "{html}");

    place.fails(&["report", "nowhere"], 4, &["nowhere", "no such run"]);
    place.fails(&["report", "data"], 4, &["data", "not a run"]);
    place.fails(&["report", NAME, "--out", "data"], 4, &["data", "--out"]);
    place.fails(&["report", NAME, "--out", "no/folder.html"], 1, &["folder"]);
}

#[test]
fn several_runs_are_laid_over_each_other() {
    let place = Place::new();
    write_run(&place.path(NAME), 250, Some("finished"));
    write_run(&place.path("second"), 350, None);
    place.ok(&["report", NAME, "second"]);
    let html = page(&place, "runs-report.html");
    for id in ["numbers", "curves", "recipes", "filters"] {
        assert!(html.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    for part in
        ["optimizer.lr", "<code>0.25</code>", "<code>0.35</code>", "250 of 400", "350 of 400", "finished", "killed"]
    {
        assert!(html.contains(part), "no {part:?}");
    }
    assert!(!html.contains("train.epochs"), "the same in both");
    assert_eq!(html.matches("<polyline").count(), 6 * 2);
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 2);
}

#[test]
fn runs_of_one_name_and_many_runs_are_told_apart() {
    let place = Place::new();
    let paths: Vec<String> = ["a/run", "b/run", "c"].iter().map(|name| name.to_string()).collect();
    let many: Vec<String> = (0..9).map(|number| format!("many/run-{number}")).collect();
    paths.iter().chain(&many).for_each(|path| write_run(&place.path(path), 120, Some("finished")));
    let args = |paths: &[String]| [vec!["report".to_owned()], paths.to_vec()].concat();
    let report = |paths: &[String]| {
        place.ok(&args(paths).iter().map(String::as_str).collect::<Vec<_>>());
        page(&place, "runs-report.html")
    };
    let html = report(&paths);
    assert!(html.contains("a/run · b/run · c</p>") && html.contains("data-name=\"b/run\""), "names");
    // The same run twice is called the same, and the colours come again dashed.
    assert!(report(&[paths[0].clone(), paths[0].clone()]).contains("run · run</p>"));
    let html = report(&many);
    assert!(html.contains("class=\"line run0 round1\"") && html.contains("class=\"line run7\""), "lines");
    assert!(!html.contains("class=\"legend\""), "the key stands above");
    assert_eq!(html.matches("</svg>run-").count(), 9);
}

#[test]
fn updates_that_were_skipped_are_drawn_and_counted() {
    let place = Place::new();
    let run = place.path("run");
    write_run(&run, 120, None);
    let mut file = File::options().append(true).open(run.join("metrics.jsonl")).unwrap();
    // Back from step 124 to 118, and then from 126.
    for row in [
        json!({"kind": "skipped", "step": 124, "steps": 6, "loss": "NaN", "why": "NaN; back to the weights of step 118"}),
        json!({"kind": "step", "step": 125, "epoch": 1, "loss": 0.5}),
        json!({"kind": "skipped", "step": 126, "steps": 8, "loss": "NaN", "why": "NaN; back to the weights of step 118"}),
        json!({"kind": "eval", "step": 126, "epoch": 2, "loss": 12.5, "top1_error": 0.3, "top5_error": 0.1}),
        json!({"kind": "eval", "step": 127, "epoch": 2, "loss": 5.9e26, "top1_error": 0.3, "top5_error": 0.1}),
        json!({"kind": "filters", "step": 127, "colourfulness": [[0.6], [0.3]], "means": [0.6, 0.3], "gap": -0.3}),
    ] {
        writeln!(file, "\n{row}").unwrap();
    }
    place.ok(&["report", "run"]);
    let html = page(&place, "run/report.html");
    // One at 77, and 119 to 126.
    assert!(html.contains("9 updates were skipped."), "count");
    assert_eq!(html.matches("class=\"skipped\"").count(), 3 * 5 + 1, "marks in five charts, and in the legend");
    assert!(html.contains("<dd>127<small> of 400</small></dd>"), "the step");
    assert!(!html.contains("18,446"), "a number that is none");
    // The evaluation that would flatten the chart is marked at its edge.
    assert!(html.contains("class=\"beyond held\"") && html.contains("step 127: held-out 5.90e26"));
    assert!(html.contains("0.600 and 0.300, 0.300 apart, stream 0 the more colourful."));
    let low = |title: &str| -> f64 {
        let chart = &html[html.find(&format!("aria-label=\"{title}\"")).unwrap()..];
        let numbers = &chart[chart.find("data-y=\"").unwrap() + 8..];
        numbers.split(' ').nth(2).unwrap().parse().unwrap()
    };
    assert!(low("Mean colourfulness") <= -0.3, "the gap is inside");
    let listed: Value = serde_json::from_str(&place.ok(&["runs", ".", "--json"])).unwrap();
    assert_eq!(listed["step"], 127);
}

#[test]
fn one_stream_is_not_spoken_of_as_two() {
    let place = Place::new();
    succeeded(place.train(&["--out", "run", "--steps", "2", "--set", "net.streams=1"]));
    place.ok(&["report", "run"]);
    let html = page(&place, "run/report.html");
    for part in ["between the streams", "stream 1", "nothing was exchanged", "class=\"waiting\"></i>waiting"] {
        assert!(!html.contains(part), "{part:?}");
    }
}

#[test]
fn a_trained_run_is_looked_at_on_held_out_images() {
    let place = Place::new();
    succeeded(place.train(&["--out", "run", "--steps", "3"]));
    place.ok(&["report", "run", "--threads", "1"]);
    let html = page(&place, "run/report.html");
    assert!(html.contains("All 20 held-out images by the checkpoint of step 3"), "{html}");
    assert!(html.contains("Confusion matrix") && html.contains("finished"), "{html}");
    let eval: Value = serde_json::from_str(&place.ok(&["eval", "run", "--json"])).unwrap();
    let error = format!("top-1 error {:.1}%", 100. * eval["top1_error"].as_f64().unwrap());
    assert!(html.contains(&error), "no {error}");
    let images = html.matches("src=\"data:image/png;base64,").count();
    assert!((12..=26).contains(&images), "the worst and the best: {images}");

    place.ok(&["report", "run", "--images", "7", "--out", "few.html"]);
    assert!(page(&place, "few.html").contains("7 of 20 held-out images"));
    fs::rename(place.path("data"), place.path("gone")).unwrap();
    place.ok(&["report", "run"]);
    let html = page(&place, "run/report.html");
    assert!(html.contains("could not be run on held-out images") && html.contains("no such folder"), "{html}");
    place.ok(&["report", "run", "--data", "gone"]);
    assert!(page(&place, "run/report.html").contains("All 20"));
}

#[test]
fn runs_are_listed_with_their_states_and_left_as_they_are() {
    let place = Place::new();
    let ends = [Some("finished"), Some("interrupted"), Some("diverged"), Some("failed"), None, None];
    let names = ["finished", "interrupted", "diverged", "failed", "killed", "running"];
    for (name, end) in names.iter().zip(ends) {
        write_run(&place.path("runs").join(name), 120, end);
    }
    fs::create_dir_all(place.path("runs/no run")).unwrap();
    fs::create_dir_all(place.path("runs/never started")).unwrap();
    fs::write(place.path("runs/never started/recipe.toml"), "name = \"x\"\n").unwrap();
    fs::write(place.path("runs/file"), "").unwrap();
    let lock = File::options().write(true).open(place.path("runs/running/lock")).unwrap();
    lock.lock().unwrap();

    let lines = place.ok(&["runs", "--json"]);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 7, "{lines}");
    for row in &rows {
        assert_eq!(row["name"], row["state"], "runs are named by their states here");
    }
    let diverged = rows.iter().find(|row| row["name"] == "diverged").unwrap();
    let expected = [
        ("epoch", json!(2)),
        ("epochs", json!(4)),
        ("step", json!(120)),
        ("total_steps", json!(400)),
        ("top1_error", json!(0.244)),
        ("held_out_loss", json!(0.7)),
        ("started_unix_s", json!(1_764_039_000.5)),
        ("ended_unix_s", json!(1_764_040_118.5)),
        ("message", json!("it <stopped>\nand said so")),
    ];
    for (key, value) in expected {
        assert_eq!(diverged[key], value, "{key}");
    }
    assert!((70. ..77.).contains(&diverged["images_per_s"].as_f64().unwrap()), "{diverged}");
    assert!(rows.iter().find(|row| row["name"] == "running").unwrap()["ended_unix_s"].is_null());

    let table = place.ok(&["runs"]);
    assert_eq!(table.lines().count(), 1 + 7 + 1, "{table}");
    assert!(table.contains("2/4  120/400  24.4%") && table.contains("it <stopped> and said so"), "{table}");

    // A running one's page; its lock is as it was before, and so are the others'.
    place.ok(&["report", "runs/running"]);
    assert!(page(&place, "runs/running/report.html").contains("state running"));
    let second = File::open(place.path("runs/running/lock")).unwrap();
    assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
    lock.unlock().unwrap();
    second.try_lock().unwrap();
    File::open(place.path("runs/killed/lock")).unwrap().try_lock().unwrap();

    place.fails(&["runs", "nowhere"], 4, &["nowhere", "no such folder"]);
    assert!(place.ok(&["runs", "data"]).contains("no runs in data"));
}
