//! Pictures of the first layer's kernels.

use std::path::Path;

use super::html::{escape, png_address, png_size};
use crate::run::reader::{Run, step_of};

/// The first and the newest picture; a sentence where there is none.
pub fn section(run: &Run) -> String {
    let (first, newest) = (run.snapshots.first(), run.snapshots.last());
    let paths: Vec<&Path> = match (first, newest) {
        (Some(first), Some(newest)) if first != newest => vec![first, newest],
        (_, Some(newest)) => vec![newest],
        _ => return "<p class=\"none\">No picture of the filters has been made yet.</p>".into(),
    };
    let figures: String = paths.iter().map(|path| figure(path, "")).collect();
    let whose = if run.streams() == 1 { "" } else { ", stream 0's above stream 1's" };
    format!(
        "<p>The kernels of the first layer{whose}. One minimum and maximum for all, as in the paper's figure 3.</p>\
         <div class=\"filters\">{figures}</div>"
    )
}

/// The newest picture of each run.
pub fn of_several(runs: &[Run]) -> String {
    let figure = |run: &Run| match run.snapshots.last() {
        Some(path) => figure(path, &format!("{}, ", run.name)),
        None => format!("<figure><figcaption>{}: no picture yet</figcaption></figure>", escape(&run.name)),
    };
    format!("<div class=\"filters\">{}</div>", runs.iter().map(figure).collect::<String>())
}

fn figure(path: &Path, before: &str) -> String {
    let caption = format!("{}step {}", escape(before), step_of(path).unwrap_or(0));
    let png = std::fs::read(path).unwrap_or_default();
    match png_size(&png) {
        Some([width, height]) => format!(
            "<figure><img src=\"{}\" width=\"{width}\" height=\"{height}\" alt=\"kernels at {caption}\">\
             <figcaption>{caption}</figcaption></figure>",
            png_address(&png)
        ),
        None => format!("<figure><figcaption>{caption}: the picture cannot be read</figcaption></figure>"),
    }
}
