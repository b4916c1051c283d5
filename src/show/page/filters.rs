//! Pictures of the first layer's kernels.

use std::path::Path;

use maud::{Markup, html};

use super::png;
use crate::run::reader::{Run, step_of};

/// The first and the newest picture; a sentence where there is none.
pub fn section(run: &Run) -> Markup {
    let Some(newest) = run.snapshots.last() else {
        return html! { p.none { "No picture of the filters has been made yet." } };
    };
    let first = run.snapshots.first().filter(|first| *first != newest);
    html! {
        p {
            "The kernels of the first layer" @if run.streams() != 1 { ", stream 0's above stream 1's" }
            ". One minimum and maximum for all, as in the paper's figure 3."
        }
        div.filters { @for path in first.into_iter().chain([newest]) { (figure(path, "")) } }
    }
}

/// The newest picture of each run.
pub fn of_several(runs: &[Run]) -> Markup {
    html! {
        div.filters {
            @for run in runs {
                @if let Some(path) = run.snapshots.last() { (figure(path, &format!("{}, ", run.name))) }
                @else { figure { figcaption { (run.name) ": no picture yet" } } }
            }
        }
    }
}

fn figure(path: &Path, before: &str) -> Markup {
    let caption = format!("{before}step {}", step_of(path).unwrap_or(0));
    let file = std::fs::read(path).unwrap_or_default();
    html! {
        figure {
            @if let Some([width, height]) = png::size(&file) {
                img src=(png::address(&file)) width=(width) height=(height) alt={ "kernels at " (caption) };
                figcaption { (caption) }
            } @else { figcaption { (caption) ": the picture cannot be read" } }
        }
    }
}
