//! How the streams' kernels differ: one stream's turn to colour, the other's to edges (paper, 6.1).

use std::fmt::Write;

use super::axis::Axis;
use super::chart::{Chart, Series, Style};
use crate::run::rows::Filters;
use crate::text::short;

/// Parts of the scale of 0 to 1.
const BINS: usize = 20;

/// The newest histogram and the course over training; a sentence where nothing was measured.
pub fn section(rows: &[Filters], last_step: u64) -> String {
    let Some(newest) = rows.last().filter(|row| row.colourfulness.iter().any(|stream| !stream.is_empty())) else {
        return "<p class=\"none\">Colourfulness has not been measured; a network that reads one channel has none.</p>"
            .into();
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
    let one = newest.means.len() < 2;
    let shown = format!("<div class=\"charts two\">{}{}</div>", histogram(newest), course(rows, last_step));
    if one {
        return format!(
            "<p>Colourfulness is 0 for a grey kernel and 1 for one without any grey; the two streams of the paper (6.1) \
             differ in it, here there is one. {words}</p>{shown}"
        );
    }
    format!(
        "<p>In the paper (6.1) the kernels of one stream become grey edges and those of the other blobs of colour, in \
         every run anew, because the streams cannot see each other before conv3; colourfulness is 0 for a grey kernel \
         and 1 for one without any grey. {words}</p>{shown}"
    )
}

fn course(rows: &[Filters], last_step: u64) -> String {
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
    let x = Axis::exact(0., last_step.max(1) as f64);
    let (title, unit) = ("Mean colourfulness", "of a stream's kernels");
    Chart { id: "colour", title, unit, x, y, series, epochs: &[], marks: &[], explains_marks: false, legend: true }
        .figure()
}

/// Kernels by colourfulness, the streams' bars beside each other.
fn histogram(row: &Filters) -> String {
    // The same frame as the charts have.
    let ([left, top], [width, height]) = ([70., 38.], [476., 226.]);
    let streams = row.colourfulness.len().clamp(1, 2);
    let counts = |values: &[f64]| {
        let mut counts = [0u32; BINS];
        for value in values.iter().filter(|value| value.is_finite()) {
            counts[((value * BINS as f64).max(0.) as usize).min(BINS - 1)] += 1;
        }
        counts
    };
    let counts: Vec<[u32; BINS]> = row.colourfulness.iter().take(2).map(|values| counts(values)).collect();
    // Some room for the legend.
    let y = Axis::from_zero(counts.iter().map(|counts| 1.25 * f64::from(counts.iter().copied().max().unwrap_or(0))));
    let mut out = format!(
        "<figure class=\"chart\"><figcaption><b>Kernels by colourfulness</b> <span>step {}</span></figcaption>\
         <svg viewBox=\"0 0 560 320\" role=\"img\" aria-label=\"Kernels by colourfulness\">",
        row.step
    );
    let bottom = top + height;
    for (value, label) in y.whole_ticks(4) {
        let y = bottom - height * y.place(value);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{y:.1}\" dy=\".35em\" text-anchor=\"end\">{label}</text>",
            left + width,
            left - 8.
        );
    }
    let bin = width / BINS as f64;
    let bar = (bin - 4.) / streams as f64;
    for (stream, counts) in counts.iter().enumerate() {
        for (number, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let bar_height = height * y.place(f64::from(count)).min(1.);
            let x = left + number as f64 * bin + 2. + stream as f64 * bar;
            let (from, to) = (number as f64 / BINS as f64, (number + 1) as f64 / BINS as f64);
            let _ = write!(
                out,
                "<rect class=\"column stream{stream}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{bar_height:.1}\">\
                 <title>stream {stream}: {count} kernels of {from:.2} to {to:.2}</title></rect>",
                bottom - bar_height
            );
        }
    }
    let _ = write!(out, "<line class=\"axis\" x1=\"{left}\" x2=\"{}\" y1=\"{bottom}\" y2=\"{bottom}\"/>", left + width);
    for (value, label) in Axis::exact(0., 1.).ticks(5) {
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            left + width * value,
            bottom + 25.
        );
    }
    let _ = write!(
        out,
        "<text class=\"tick\" x=\"{}\" y=\"314\" text-anchor=\"middle\">colourfulness</text>",
        left + width / 2.
    );
    if streams == 2 {
        for stream in 0..2 {
            let y = top + 20. + f64::from(stream) * 22.;
            let _ = write!(
                out,
                "<path class=\"dots stream{stream}\" d=\"M{} {y}h0\"/>\
                 <text class=\"legend\" x=\"{}\" y=\"{y}\" dy=\".35em\" text-anchor=\"end\">stream {stream}</text>",
                left + width - 18.,
                left + width - 32.
            );
        }
    }
    out + "</svg></figure>"
}
