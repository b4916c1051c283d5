//! How the streams' kernels differ: one stream's turn to colour, the other's to edges (paper, 6.1).

use maud::{Markup, html};

use crate::run::rows::Filters;
use crate::text::short;
use alexnet_split_charts::axis::Axis;
use alexnet_split_charts::chart::{Chart, Series, Style};

/// Parts of the scale of 0 to 1.
const BINS: usize = 20;

/// The newest histogram and the course over training; a sentence where nothing was measured.
pub fn section(rows: &[Filters], last_step: u64) -> Markup {
    let Some(newest) = rows.last().filter(|row| row.colourfulness.iter().any(|stream| !stream.is_empty())) else {
        let none = "Colourfulness has not been measured; a network that reads one channel has none.";
        return html! { p.none { (none) } };
    };
    let mean = |stream: usize| newest.means.get(stream).map_or_else(|| "–".into(), |&mean| short(mean));
    let words = match newest.means.len() {
        2 => {
            let (gap, more) = (short(newest.gap.abs()), usize::from(newest.gap > 0.));
            let apart = format!("{} and {}, {gap} apart, stream {more} the more colourful", mean(0), mean(1));
            format!("At step {} the means are {apart}.", newest.step)
        }
        _ => format!("At step {} the mean is {}.", newest.step, mean(0)),
    };
    html! {
        p {
            @if newest.means.len() < 2 {
                "Colourfulness is 0 for a grey kernel and 1 for one without any grey; the two streams of the paper \
                 (6.1) differ in it, here there is one. "
            } @else {
                "In the paper (6.1) the kernels of one stream become grey edges and those of the other blobs of \
                 colour, in every run anew, because the streams cannot see each other before conv3; colourfulness is \
                 0 for a grey kernel and 1 for one without any grey. "
            }
            (words)
        }
        div.charts.two { (histogram(newest)) (course(rows, last_step)) }
    }
}

fn course(rows: &[Filters], last_step: u64) -> Markup {
    let streams = rows.iter().map(|row| row.means.len()).max().unwrap_or(0);
    let at = |row: &Filters| row.step as f64;
    let mut series: Vec<Series> = (0..streams)
        .map(|stream| {
            let points = rows.iter().filter_map(|row| Some((at(row), *row.means.get(stream)?))).collect();
            Series::new(&format!("stream {stream}"), &format!("stream{}", stream.min(1)), Style::Joined, points)
        })
        .collect();
    if streams > 1 {
        series.push(Series::new("gap", "ink", Style::Dashed, rows.iter().map(|row| (at(row), row.gap)).collect()));
    }
    let values = series.iter().flat_map(|series| series.points.iter().map(|point| point.1));
    let y = Axis::around_zero(values).of_shares();
    Chart::new(["colour", "Mean colourfulness", "of a stream's kernels"], last_step, y, series).figure()
}

/// Kernels by colourfulness, the streams' bars beside each other.
fn histogram(row: &Filters) -> Markup {
    let series = row.colourfulness.iter().take(2).enumerate().map(|(stream, values)| {
        let mut counts = [0u32; BINS];
        for value in values.iter().filter(|value| value.is_finite()) {
            counts[((value * BINS as f64).max(0.) as usize).min(BINS - 1)] += 1;
        }
        let bars = counts.iter().enumerate().map(|(bin, &count)| (bin as f64 / BINS as f64, f64::from(count)));
        let class = format!("stream{stream}");
        Series::new(&format!("stream {stream}"), &class, Style::Bars("kernels"), bars.collect())
    });
    let series: Vec<Series> = series.collect();
    // Some room for the legend.
    let y = Axis::from_zero(series.iter().flat_map(|series| series.points.iter().map(|point| 1.25 * point.1)));
    let (x, y, unit) = (Axis::exact(0., 1.), y.of_whole(), format!("step {}", row.step));
    let chart = Chart::new(["kernels", "Kernels by colourfulness", &unit], row.step, y, series);
    Chart { x, x_name: "colourfulness", ..chart }.figure()
}
