//! The charts of alexnet-split's pages: lines over a horizontal axis, as SVG. They know nothing of training, and are
//! compiled once, whatever changes in the program.

pub mod axis;
pub mod chart;
pub mod numbers;
pub mod smooth;

/// A coordinate in a drawing: a tenth of its unit is finer than a screen shows.
pub fn tenths(value: f64) -> String {
    format!("{value:.1}")
}
