//! A run's start and its events: recipe, environment, warnings, starts and ends.

use maud::{Markup, html};

use super::{table, time};
use crate::run::reader::{Run, State};
use crate::run::rows::{Event, Start};
use crate::text::{duration, quoted};

const NO_JOURNAL: &str = "Not recorded; runs of older versions keep no journal.";

/// The recipe, folded.
pub fn recipe(run: &Run) -> Markup {
    html! {
        @match run.recipe.trim() {
            "" => p.none { "The run has no recipe.toml." },
            text => details { summary { "recipe.toml" } pre { (text) } },
        }
    }
}

/// Program, machine and command line of the newest start.
pub fn environment(run: &Run) -> Markup {
    let start = run.starts().last().cloned().unwrap_or_default();
    let Start { command, version, commit, device, host, seed, .. } = start;
    let version = if version.is_empty() { run.info.version.clone() } else { version };
    let commit = commit.or_else(|| run.info.commit.clone()).map_or_else(String::new, |commit| format!(", {commit}"));
    let version = if version.is_empty() { version } else { version + &commit };
    let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let cores = if host.cores > 0 { format!("{} cores", host.cores) } else { String::new() };
    let memory = match host.memory_bytes {
        0 => String::new(),
        bytes => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    };
    let mut host = vec![host.name, host.cpu, host.instructions, cores, memory, host.os];
    host.retain(|part| !part.is_empty());
    let mut rows = vec![
        ("command", command.join(" ")),
        ("version", version),
        ("data", run.info.data.display().to_string()),
        ("device", device),
        ("host", host.join(", ")),
        ("seed", seed.map_or_else(String::new, |seed| seed.to_string())),
    ];
    rows.retain(|(_, text)| !text.is_empty());
    if rows.is_empty() {
        return html! { p.none { (NO_JOURNAL) } };
    }
    html! { dl.facts { @for (name, text) in rows { dt { (name) } dd { (text) } } } }
}

/// Every warning.
pub fn warnings(run: &Run) -> Markup {
    let skipped = run.skipped_updates();
    if skipped == 0 && run.warnings().next().is_none() {
        return html! { p { "None." } };
    }
    html! {
        ul.warnings {
            @for (at, text) in run.warnings() { li { (time(at)) " " (text) } }
            @match skipped {
                0 => {},
                1 => li { "One update was skipped." },
                count => li { (count) " updates were skipped." },
            }
        }
    }
}

/// Starts and ends.
pub fn journal(run: &Run) -> Markup {
    const KILLED: &str = "killed: no end was recorded";
    let mut rows: Vec<(Option<f64>, &str, Option<u64>, String)> = Vec::new();
    let mut started: Option<f64> = None;
    for event in &run.journal {
        match event {
            Event::Start(start) => {
                let what = if rows.is_empty() { "started" } else { "went on" };
                if started.replace(start.unix_s).is_some() {
                    rows.push((None, KILLED, None, String::new()));
                }
                rows.push((Some(start.unix_s), what, Some(start.step), start.device.clone()));
            }
            Event::End(end) => {
                let after = started.take().map(|start| format!("after {}", duration(end.unix_s - start)));
                let code = (end.exit_code != 0).then(|| format!("exit code {}", end.exit_code));
                let message = Some(end.message.clone()).filter(|message| !message.is_empty());
                let words: Vec<String> = [after, code, message].into_iter().flatten().collect();
                rows.push((Some(end.unix_s), &end.how, end.step, words.join("; ")));
            }
            _ => {}
        }
    }
    if started.is_some() {
        let what = if run.state == State::Running { "running" } else { KILLED };
        rows.push((None, what, None, String::new()));
    }
    if rows.is_empty() {
        return html! { p.none { (NO_JOURNAL) } };
    }
    let saved = run.journal.iter().filter(|event| matches!(event, Event::Checkpoint { .. })).count();
    let cells = |(when, what, step, how): (Option<f64>, &str, Option<u64>, String)| {
        let when = when.map_or_else(|| html! { "–" }, time);
        [when, html! { (what) }, html! { @if let Some(step) = step { (step) } }, html! { (how) }]
    };
    html! {
        (table("", &["when", "what", "step", "how"], rows.into_iter().map(cells)))
        p { (saved) " checkpoint" @if saved != 1 { "s" } " written." }
    }
}
