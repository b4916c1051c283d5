//! One HTML page about a run, or about several: nothing outside the file is needed to read it.

mod claims;
mod curves;
mod filters;
pub mod heldout;
mod journal;
mod png;
mod several;
mod specialization;
mod timeline;

pub use self::claims::{Finding, page as of_claims};
pub use self::several::page as of_several;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::heldout::HeldOut;
use crate::run::reader::{Run, State};
use crate::text::{duration, percent, short, utc};

/// The page's part about held-out images.
pub enum HeldOutPart {
    /// Nobody asked for it.
    LeftOut,
    /// The reason why there is nothing.
    Missing(String),
    /// The network's answers for them.
    Seen(Box<HeldOut>),
}

/// A part of a page: its id, its title and what it says.
type Section = (&'static str, &'static str, Markup);

/// The page about one run.
pub fn of_one(run: &Run, held_out: &HeldOutPart) -> String {
    let mut sections = vec![
        ("curves", "Course of training", curves::of_one(run)),
        ("timeline", "One step in time", timeline::section(run.timeline.as_ref(), &run.times)),
        ("filters", "First layer", filters::section(run)),
        ("specialization", "Specialization", specialization::section(&run.filters, run.step())),
    ];
    match held_out {
        HeldOutPart::LeftOut => {}
        HeldOutPart::Missing(why) => sections.push(("held-out", "Held-out images", html! { p.none { (why) } })),
        HeldOutPart::Seen(seen) => sections.push(("held-out", "Held-out images", seen.section())),
    }
    sections.extend([
        ("recipe", "Recipe", journal::recipe(run)),
        ("environment", "Environment", journal::environment(run)),
        ("warnings", "Warnings", journal::warnings(run)),
        ("journal", "Journal", journal::journal(run)),
    ]);
    page(&run.name, &header(run), &sections)
}

fn header(run: &Run) -> Markup {
    let of = |done: u64, total: Option<u64>| {
        html! { (done) @if let Some(total) = total { small { " of " (total) } } }
    };
    let value = |text: String| html! { (text) };
    let mut facts = vec![("epoch", of(run.epoch(), run.epochs())), ("step", of(run.step(), run.total_steps()))];
    if let Some(eval) = run.evals.last() {
        facts.push(("held-out error", value(percent(eval.top1_error))));
        facts.push(("held-out top-5 error", value(percent(eval.top5_error))));
        facts.push(("held-out loss", value(short(eval.loss))));
    } else if let Some(loss) = run.training_loss() {
        facts.push(("training loss", value(short(loss))));
    }
    facts.extend(run.images_per_s().map(|speed| ("images/s", value(short(speed)))));
    let took = if run.state == State::Running { "so far" } else { "took" };
    facts.extend(run.took_s().map(|seconds| (took, value(duration(seconds)))));
    html! {
        h1 { (run.name) " " (state_chip(run.state)) }
        p.sub {
            @if let Some(start) = run.starts().next() { "started " (time(start.unix_s)) ", " }
            "read " (time(run.read_unix_s))
        }
        @if !run.last_words().is_empty() { p.words { (run.last_words()) } }
        @if let Some(done) = run.progress().map(|share| 100. * share) {
            div.progress role="progressbar" aria-valuenow=(format_args!("{done:.0}")) aria-valuemin="0"
                aria-valuemax="100" { i style=(format_args!("width:{done:.1}%")) {} }
        }
        dl.numbers { @for (name, value) in &facts { div { dt { (name) } dd { (value) } } } }
    }
}

fn state_chip(state: State) -> Markup {
    html! { span class={ "state " (state.name().replace(' ', "-")) } { (state.name()) } }
}

/// A moment that the reader's browser shows in their own time zone, and UTC where it runs no scripts.
fn time(unix_s: f64) -> Markup {
    let text = utc(unix_s);
    html! { time datetime={ (text.replace(' ', "T")) "Z" } { (text) " UTC" } }
}

/// A table; `class` is "numbers" where its columns are, but for the first one.
fn table<Row: IntoIterator<Item = Markup>>(class: &str, heads: &[&str], rows: impl IntoIterator<Item = Row>) -> Markup {
    html! {
        div.scroll {
            table class=(class) {
                thead { tr { @for head in heads { th { (head) } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            }
        }
    }
}

fn page(title: &str, header: &Markup, sections: &[Section]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – alexnet-split" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    header { (header) }
                    nav { @for (id, title, _) in sections { a href={ "#" (id) } { (title) } " " } }
                    @for (id, title, section) in sections { section id=(id) { h2 { (title) } (section) } }
                    footer { "alexnet-split " (env!("CARGO_PKG_VERSION")) }
                }
                script { (PreEscaped(include_str!("script.js"))) }
            }
        }
    };
    // HTML has no way to write control characters.
    page.into_string().replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}")
}
