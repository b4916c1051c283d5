//! A run's start and its events: recipe, environment, warnings, starts and ends.

use super::html::{escape, table, time};
use crate::run::reader::{Run, State};
use crate::run::rows::{Event, Start};
use crate::text::{duration, quoted};

/// The recipe, folded.
pub fn recipe(run: &Run) -> String {
    match run.recipe.trim() {
        "" => "<p class=\"none\">The run has no recipe.toml.</p>".into(),
        text => format!("<details><summary>recipe.toml</summary><pre>{}</pre></details>", escape(text)),
    }
}

/// Program, machine and command line of the newest start.
pub fn environment(run: &Run) -> String {
    let start = run.starts().last().cloned().unwrap_or_default();
    let Start { command, version, commit, device, host, seed, .. } = start;
    let version = if version.is_empty() { run.info.version.clone() } else { version };
    let commit = commit.or_else(|| run.info.commit.clone()).map_or_else(String::new, |commit| format!(", {commit}"));
    let mut rows: Vec<(&str, String)> = Vec::new();
    let mut row = |name, text: String| {
        if !text.is_empty() {
            rows.push((name, text));
        }
    };
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    row("command", words.join(" "));
    row("version", if version.is_empty() { String::new() } else { format!("{version}{commit}") });
    row("data", run.info.data.display().to_string());
    row("device", device);
    let cores = if host.cores > 0 { format!("{} cores", host.cores) } else { String::new() };
    let memory = match host.memory_bytes {
        0 => String::new(),
        bytes => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    };
    let parts = [host.name, host.cpu, host.instructions, cores, memory, host.os];
    row("host", parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "));
    row("seed", seed.map_or_else(String::new, |seed| seed.to_string()));
    if rows.is_empty() {
        return "<p class=\"none\">Not recorded; runs of older versions keep no journal.</p>".into();
    }
    let cells: String = rows.iter().map(|(name, text)| format!("<dt>{name}</dt><dd>{}</dd>", escape(text))).collect();
    format!("<dl class=\"facts\">{cells}</dl>")
}

/// Every warning.
pub fn warnings(run: &Run) -> String {
    let items: String = run.warnings().map(|(at, text)| format!("<li>{} {}</li>", time(at), escape(text))).collect();
    let skipped = match run.skipped_updates() {
        0 => String::new(),
        1 => "<li>One update was skipped.</li>".into(),
        count => format!("<li>{count} updates were skipped.</li>"),
    };
    match items.len() + skipped.len() {
        0 => "<p>None.</p>".into(),
        _ => format!("<ul class=\"warnings\">{items}{skipped}</ul>"),
    }
}

/// Starts and ends.
pub fn journal(run: &Run) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut started: Option<f64> = None;
    let mut first = true;
    for event in &run.journal {
        match event {
            Event::Start(start) => {
                if let Some(_before) = started.replace(start.unix_s) {
                    rows.push(silent("killed: no end was recorded"));
                }
                let what = if first { "started" } else { "went on" };
                first = false;
                let seats = escape(&start.device);
                rows.push(vec![time(start.unix_s), what.into(), start.step.to_string(), seats]);
            }
            Event::End(end) => {
                let after =
                    started.take().map_or_else(String::new, |start| format!("after {}", duration(end.unix_s - start)));
                let code = if end.exit_code == 0 { String::new() } else { format!("exit code {}", end.exit_code) };
                let parts = [after, code, escape(&end.message)];
                let words = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
                rows.push(vec![
                    time(end.unix_s),
                    escape(&end.how),
                    end.step.map_or_else(String::new, |step| step.to_string()),
                    words,
                ]);
            }
            _ => {}
        }
    }
    if started.is_some() {
        rows.push(silent(if run.state == State::Running { "running" } else { "killed: no end was recorded" }));
    }
    let saved = run.journal.iter().filter(|event| matches!(event, Event::Checkpoint { .. })).count();
    match rows.is_empty() {
        true => "<p class=\"none\">Not recorded; runs of older versions keep no journal.</p>".into(),
        false => {
            let saved = format!("<p>{saved} checkpoint{} written.</p>", if saved == 1 { "" } else { "s" });
            format!("{}{saved}", table(&["when", "what", "step", "how"], &rows, false))
        }
    }
}

fn silent(what: &str) -> Vec<String> {
    vec!["–".into(), what.into(), String::new(), String::new()]
}
