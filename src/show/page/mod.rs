//! One HTML page about a run, or about several: nothing outside the file is needed to read it.

mod axis;
mod chart;
mod curves;
mod filters;
pub mod heldout;
mod html;
mod journal;
mod several;
mod smooth;
mod specialization;
mod timeline;

use std::fmt::Write;

use self::heldout::HeldOut;
use self::html::{escape, time};
use crate::run::reader::{Run, State};
use crate::text::{duration, percent, short};

/// The page's part about held-out images.
pub enum HeldOutPart {
    /// Nobody asked for it.
    LeftOut,
    /// Why there is nothing.
    Missing(String),
    /// What the network made of them.
    Seen(Box<HeldOut>),
}

/// The page about one run.
pub fn of_one(run: &Run, held_out: &HeldOutPart) -> String {
    let mut page = Page::new(&run.name);
    page.header(&header(run));
    page.section("curves", "Course of training", &curves::of_one(run));
    page.section("timeline", "One step in time", &timeline::section(run.timeline.as_ref(), &run.times));
    page.section("filters", "First layer", &filters::section(run));
    page.section("specialization", "Specialization", &specialization::section(&run.filters, run.step()));
    match held_out {
        HeldOutPart::LeftOut => {}
        HeldOutPart::Missing(why) => {
            page.section("held-out", "Held-out images", &format!("<p class=\"none\">{}</p>", escape(why)));
        }
        HeldOutPart::Seen(seen) => page.section("held-out", "Held-out images", &seen.section()),
    }
    page.section("recipe", "Recipe", &journal::recipe(run));
    page.section("environment", "Environment", &journal::environment(run));
    page.section("warnings", "Warnings", &journal::warnings(run));
    page.section("journal", "Journal", &journal::journal(run));
    page.finish()
}

/// The page about several runs.
pub fn of_several(runs: &[Run]) -> String {
    several::page(runs)
}

fn header(run: &Run) -> String {
    let words = match run.last_words() {
        "" => String::new(),
        words => format!("<p class=\"words\">{}</p>", escape(words)),
    };
    let began = run.starts().next().map_or_else(String::new, |start| format!("started {}, ", time(start.unix_s)));
    let of = |total: Option<u64>| total.map_or_else(String::new, |total| format!("<small> of {total}</small>"));
    let mut facts = vec![
        ("epoch", format!("{}{}", run.epoch(), of(run.epochs()))),
        ("step", format!("{}{}", run.step(), of(run.total_steps()))),
    ];
    if let Some(eval) = run.evals.last() {
        facts.push(("held-out error", percent(eval.top1_error)));
        facts.push(("held-out top-5", percent(eval.top5_error)));
        facts.push(("held-out loss", short(eval.loss)));
    } else if let Some(loss) = run.training_loss() {
        facts.push(("training loss", short(loss)));
    }
    facts.extend(run.images_per_s().map(|speed| ("images/s", short(speed))));
    facts.extend(
        run.took_s().map(|seconds| (if run.state == State::Running { "so far" } else { "took" }, duration(seconds))),
    );
    let facts: String =
        facts.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>")).collect();
    let progress = run.progress().map_or_else(String::new, |share| {
        format!(
            "<div class=\"progress\" role=\"progressbar\" aria-valuenow=\"{0:.0}\" aria-valuemin=\"0\" \
             aria-valuemax=\"100\"><i style=\"width:{0:.1}%\"></i></div>",
            100. * share
        )
    });
    format!(
        "<h1>{} {}</h1><p class=\"sub\">{began}read {}</p>{words}{progress}<dl class=\"numbers\">{facts}</dl>",
        escape(&run.name),
        state_chip(run.state),
        time(run.read_unix_s)
    )
}

fn state_chip(state: State) -> String {
    let class = state.name().replace(' ', "-");
    format!("<span class=\"state {class}\">{}</span>", state.name())
}

/// A page in the making.
struct Page {
    html: String,
    contents: String,
    body: String,
}

impl Page {
    fn new(title: &str) -> Page {
        let html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>{} – alexnet-split</title>\n<style>\n{}</style></head>\n<body><main>\n",
            escape(title),
            include_str!("style.css")
        );
        Page { html, contents: String::new(), body: String::new() }
    }

    fn header(&mut self, html: &str) {
        let _ = writeln!(self.html, "<header>{html}</header>");
    }

    fn section(&mut self, id: &str, title: &str, html: &str) {
        let _ = write!(self.contents, "<a href=\"#{id}\">{title}</a> ");
        let _ = writeln!(self.body, "<section id=\"{id}\"><h2>{title}</h2>{html}</section>");
    }

    fn finish(self) -> String {
        let Page { html, contents, body } = self;
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "{html}<nav>{contents}</nav>\n{body}<footer>alexnet-split {version}</footer>\n</main>\n<script>\n{}</script>\n</body></html>\n",
            include_str!("script.js")
        )
    }
}
