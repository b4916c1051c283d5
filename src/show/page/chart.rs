//! Line charts over training steps as SVG: axes, points, lines, marks, legend.

use std::fmt::Write;

use super::axis::{Axis, nice_step};
use super::html::escape;
use crate::text::short;

/// The drawing's size in its own units; it is scaled to the place that the page has. On a phone to about 0.62, so the
/// style sheet makes text larger there, and the margins leave room for that.
const SIZE: [f64; 2] = [560., 320.];
const LEFT: f64 = 70.;
const RIGHT: f64 = 14.;
const TOP: f64 = 38.;
const BOTTOM: f64 = 56.;
/// Baseline of the labels below the plot.
const LABELS: f64 = 25.;
/// What dots may reach beyond the plot.
const DOT: f64 = 5.;
/// Distance of the legend's lines.
const LINE: f64 = 22.;

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Light points alone.
    Points,
    /// A line.
    Line,
    /// A dashed line.
    Dashed,
    /// Dots with lines between them.
    Joined,
}

/// Values that belong together.
pub struct Series {
    /// In the legend; series of points without a name are left out of it.
    pub name: String,
    /// The style sheet's class that gives the colour.
    pub class: String,
    /// How it is drawn.
    pub style: Style,
    /// Step and value; what is not finite is left out.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// A series.
    pub fn new(name: &str, class: &str, style: Style, points: Vec<(f64, f64)>) -> Series {
        let finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let points = points.into_iter().filter(finite).collect();
        Series { name: name.into(), class: class.into(), style, points }
    }
}

/// Something that happened at a step.
pub struct Mark {
    /// The step.
    pub step: f64,
    /// Whether an update was skipped there; else the run went on there.
    pub skipped: bool,
    /// The text under the pointer.
    pub title: String,
}

/// A chart.
pub struct Chart<'a> {
    /// Unlike those of other charts of the page.
    pub id: &'a str,
    /// Above the chart.
    pub title: &'a str,
    /// The quantity and its unit: beside the title.
    pub unit: &'a str,
    /// Steps.
    pub x: Axis,
    /// Values.
    pub y: Axis,
    /// Drawn in this order.
    pub series: Vec<Series>,
    /// Steps at which an epoch ended, and how many had been made.
    pub epochs: &'a [(u64, u64)],
    /// Marked steps.
    pub marks: &'a [Mark],
    /// Whether the legend explains the marks.
    pub explains_marks: bool,
    /// Whether there is a legend.
    pub legend: bool,
}

impl Chart<'_> {
    /// The chart as a figure of the page; a sentence where there is nothing to draw.
    pub fn figure(&self) -> String {
        let head = format!(
            "<figcaption><b>{}</b> <span>{}</span> <output></output></figcaption>",
            escape(self.title),
            escape(self.unit)
        );
        if self.series.iter().all(|series| series.points.is_empty()) {
            return format!("<figure class=\"chart\">{head}<p class=\"none\">Nothing was recorded yet.</p></figure>");
        }
        format!("<figure class=\"chart\">{head}{}</figure>", self.svg())
    }

    fn svg(&self) -> String {
        let (id, [width, height]) = (self.id, SIZE);
        let [plot_width, plot_height] = plot_size();
        let mut out = format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\" data-x=\"{LEFT} {plot_width} {} {}\" \
             data-y=\"{TOP} {plot_height} {} {} {} {}\"><clipPath id=\"clip-{id}\"><rect x=\"{}\" y=\"{TOP}\" \
             width=\"{}\" height=\"{}\"/></clipPath>",
            escape(self.title),
            self.x.low,
            self.x.high,
            self.y.low,
            self.y.high,
            u8::from(self.y.log),
            u8::from(self.y.percent),
            LEFT - DOT,
            plot_width + 2. * DOT,
            plot_height + DOT,
        );
        self.draw_axes(&mut out);
        self.draw_epochs(&mut out);
        self.draw_marks(&mut out);
        let _ = write!(out, "<g clip-path=\"url(#clip-{id})\">");
        self.series.iter().for_each(|series| self.draw_series(series, &mut out));
        out += "</g>";
        self.draw_legend(&mut out);
        let _ = write!(out, "<line class=\"cursor\" y1=\"{TOP}\" y2=\"{}\" visibility=\"hidden\"/>", TOP + plot_height);
        out + "</svg>"
    }

    fn at_x(&self, step: f64) -> f64 {
        LEFT + plot_size()[0] * self.x.place(step)
    }

    fn at_y(&self, value: f64) -> f64 {
        // Far outside is far enough: the clip takes it.
        TOP + plot_size()[1] * (1. - self.y.place(value)).clamp(-2., 3.)
    }

    fn draw_axes(&self, out: &mut String) {
        let [plot_width, plot_height] = plot_size();
        let (right, bottom) = (LEFT + plot_width, TOP + plot_height);
        for (value, label) in self.y.ticks(4) {
            let y = self.at_y(value);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{}\" y=\"{y:.1}\" dy=\".35em\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.
            );
        }
        let _ = write!(out, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
        for (value, label) in self.x.whole_ticks(5) {
            let x = self.at_x(value);
            // The last label must not leave the drawing.
            let anchor = if x > right - 24. { "end" } else { "middle" };
            let text_x = if anchor == "end" { right.min(x + 14.) } else { x };
            let _ = write!(
                out,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>\
                 <text class=\"tick\" x=\"{text_x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>",
                bottom + 5.,
                bottom + LABELS
            );
        }
        let (middle, y) = (LEFT + plot_width / 2., SIZE[1] - 6.);
        let _ = write!(out, "<text class=\"tick\" x=\"{middle}\" y=\"{y}\" text-anchor=\"middle\">step</text>");
    }

    /// Thin lines where epochs end, with their number above; not more than there is room for.
    fn draw_epochs(&self, out: &mut String) {
        let most = self.epochs.iter().map(|&(_, epoch)| epoch).max().unwrap_or(0);
        let every = (nice_step(most as f64 / 8.).ceil() as u64).max(1);
        let mut shown = self.epochs.iter().filter(|(_, epoch)| epoch.is_multiple_of(every)).peekable();
        if shown.peek().is_some() {
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">epoch</text>",
                LEFT - 8.,
                TOP - 17.
            );
        }
        for &(step, epoch) in shown {
            let x = self.at_x(step as f64);
            let _ =
                write!(out, "<line class=\"epoch\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>", TOP - 10., {
                    TOP + plot_size()[1]
                });
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{epoch}</text>",
                TOP - 17.
            );
        }
    }

    fn draw_series(&self, series: &Series, out: &mut String) {
        let Series { name, class, style, points } = series;
        let at = |&(x, y): &(f64, f64)| format!("{:.1} {:.1}", self.at_x(x), self.at_y(y));
        let drawable = |point: &&(f64, f64)| !self.y.log || point.1 > 0.;
        let places: Vec<String> = points.iter().filter(drawable).map(at).collect();
        // A line of no length with round ends is a dot.
        let dots = || places.iter().map(|place| format!("M{place}h0")).collect::<String>();
        if *style == Style::Points {
            let _ = write!(out, "<path class=\"points {class}\" d=\"{}\"/>", dots());
            return;
        }
        let kind = if *style == Style::Dashed { "line dashed" } else { "line" };
        let places_text = places.join(" ");
        let name = escape(name);
        let _ = write!(out, "<polyline class=\"{kind} {class}\" data-name=\"{name}\" points=\"{places_text}\"/>");
        if *style == Style::Joined || places.len() == 1 {
            let _ = write!(out, "<path class=\"dots {class}\" d=\"{}\"/>", dots());
        }
        // Those above the drawing are told of at its edge.
        let beyond = points.iter().filter(|point| *style == Style::Joined && self.y.place(point.1) > 1. + 1e-9);
        for (step, value) in beyond {
            let (x, y, value) = (self.at_x(*step), TOP + 2., short(*value));
            let _ = write!(
                out,
                "<path class=\"beyond {class}\" d=\"M{:.1} {}l5 -8l5 8z\"><title>step {step}: {name} {value}</title></path>",
                x - 5.,
                y + 8.
            );
        }
    }

    fn draw_marks(&self, out: &mut String) {
        for mark in self.marks {
            let (x, title) = (self.at_x(mark.step), escape(&mark.title));
            let _ = match mark.skipped {
                true => write!(
                    out,
                    "<path class=\"skipped\" d=\"M{:.1} {}l8 8m0 -8l-8 8\"><title>{title}</title></path>",
                    x - 4.,
                    TOP + 3.
                ),
                false => write!(
                    out,
                    "<line class=\"restart\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{}\"><title>{title}</title></line>",
                    TOP + plot_size()[1]
                ),
            };
        }
    }

    fn draw_legend(&self, out: &mut String) {
        let mut entries: Vec<(&str, &str, &str)> = Vec::new();
        for series in self.series.iter().filter(|series| !series.name.is_empty() && !series.points.is_empty()) {
            let kind = match series.style {
                Style::Points => "points",
                Style::Line => "line",
                Style::Dashed => "line dashed",
                Style::Joined => "dots",
            };
            entries.push((&series.name, &series.class, kind));
        }
        if self.explains_marks && self.marks.iter().any(|mark| mark.skipped) {
            entries.push(("update skipped", "", "skipped"));
        }
        if self.explains_marks && self.marks.iter().any(|mark| !mark.skipped) {
            entries.push(("went on after a stop", "", "restart"));
        }
        if entries.len() < 2 || !self.legend {
            return; // the title says it, or the page
        }
        let longest = entries.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        let size = [longest as f64 * 9. + 40., entries.len() as f64 * LINE + 8.];
        let (right, top) = self.emptiest_place(size);
        let x = if right { LEFT + plot_size()[0] - 14. } else { LEFT + 14. };
        let first = top + 18.;
        let (toward, anchor) = if right { (-1., "end") } else { (1., "start") };
        for (number, (name, class, kind)) in entries.into_iter().enumerate() {
            let y = first + number as f64 * LINE;
            let (from, to) = (x + 22. * toward, x);
            let swatch = match kind {
                "skipped" => {
                    format!("<path class=\"skipped\" d=\"M{} {}l8 8m0 -8l-8 8\"/>", x + 11. * toward - 4., y - 4.)
                }
                "points" => {
                    let at = x + 11. * toward;
                    format!(
                        "<path class=\"points sample {class}\" d=\"M{} {}h0M{at} {}h0M{} {}h0\"/>",
                        at - 7.,
                        y + 2.,
                        y - 3.,
                        at + 7.,
                        y + 1.
                    )
                }
                "dots" => format!("<path class=\"{kind} {class}\" d=\"M{} {y}h0\"/>", x + 11. * toward),
                kind => format!("<path class=\"{kind} {class}\" d=\"M{from} {y}H{to}\"/>"),
            };
            let _ = write!(
                out,
                "{swatch}<text class=\"legend\" x=\"{}\" y=\"{y}\" dy=\".35em\" text-anchor=\"{anchor}\">{}</text>",
                x + 30. * toward,
                escape(name)
            );
        }
    }

    /// Where a legend of this size hides the least: whether at the right, and its upper edge.
    fn emptiest_place(&self, [width, height]: [f64; 2]) -> (bool, f64) {
        let [plot_width, plot_height] = plot_size();
        let drawn: Vec<(f64, Vec<[f64; 2]>)> = self.series.iter().map(|series| self.weighed_places(series)).collect();
        let hidden = |&(right, top): &(bool, f64)| {
            let left = if right { LEFT + plot_width - width } else { LEFT };
            let inside =
                |&&[x, y]: &&[f64; 2]| (left..left + width).contains(&x) && (top - 4. ..top + height).contains(&y);
            drawn.iter().map(|(weight, places)| weight * places.iter().filter(inside).count() as f64).sum::<f64>()
        };
        let tops = (0..5).map(|part| TOP + (plot_height - height).max(0.) * f64::from(part) / 4.);
        let places = tops.flat_map(|top| [(true, top), (false, top)]);
        places.min_by(|a, b| hidden(a).total_cmp(&hidden(b))).unwrap_or((true, TOP))
    }

    /// Places that a series covers, between its points too, and what hiding one of them weighs: a line's more than a
    /// cloud's.
    fn weighed_places(&self, series: &Series) -> (f64, Vec<[f64; 2]>) {
        let at = |&(step, value): &(f64, f64)| [self.at_x(step), self.at_y(value)];
        if series.style == Style::Points {
            let places: Vec<[f64; 2]> = series.points.iter().map(at).collect();
            return (1. / places.len().max(1) as f64, places);
        }
        let places: Vec<[f64; 2]> = series
            .points
            .windows(2)
            .flat_map(|pair| {
                let ([x0, y0], [x1, y1]) = (at(&pair[0]), at(&pair[1]));
                let pieces = ((x1 - x0).abs().max((y1 - y0).abs()) / 8.).ceil().max(1.);
                (0..=pieces as u32)
                    .map(move |i| f64::from(i) / pieces)
                    .map(move |t| [x0 + t * (x1 - x0), y0 + t * (y1 - y0)])
            })
            .collect();
        (4. / places.len().max(1) as f64, places)
    }
}

fn plot_size() -> [f64; 2] {
    [SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> String {
        let series = vec![
            Series::new("", "train", Style::Points, points.clone()),
            Series::new("a<b", "held", Style::Joined, points),
        ];
        let (x, y) = (Axis::exact(0., 100.), Axis::from_zero([0., 3.].into_iter()));
        Chart {
            id: "t",
            title: "T&T",
            unit: "",
            x,
            y,
            series,
            epochs: &[(50, 1)],
            marks: &[],
            explains_marks: false,
            legend: true,
        }
        .figure()
    }

    #[test]
    fn points_lie_where_the_axes_say() {
        let svg = chart(vec![(0., 0.), (100., 4.), (50., f64::NAN)]);
        // The corners of the plot: y ends at 4, the tick above 3.
        assert!(svg.contains("points=\"70.0 264.0 546.0 38.0\""), "{svg}");
        assert!(svg.contains("T&amp;T") && svg.contains("a&lt;b") && !svg.contains("NaN"), "{svg}");
        assert!(svg.contains("class=\"epoch\" x1=\"308.0\""), "{svg}");
    }

    #[test]
    fn a_chart_of_nothing_says_so() {
        let empty = chart(vec![(1., f64::INFINITY)]);
        assert!(empty.contains("Nothing was recorded") && !empty.contains("<svg"), "{empty}");
    }
}
