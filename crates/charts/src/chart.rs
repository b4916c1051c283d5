//! Charts as SVG: axes, points, lines, bars, marks, legend.

use maud::{Markup, html};

use crate::axis::{Axis, Scale, nice_step};
use crate::numbers::short;
use crate::tenths;

/// The drawing's size in its own units; it is scaled to the place that the page has. On a phone to about 0.62, so the
/// style sheet makes text larger there, and the margins leave room for that.
const SIZE: [f64; 2] = [560., 320.];
/// Edges of the plot.
const LEFT: f64 = 70.;
const RIGHT: f64 = SIZE[0] - 14.;
const TOP: f64 = 38.;
const BOTTOM: f64 = SIZE[1] - 56.;
const WIDTH: f64 = RIGHT - LEFT;
const HEIGHT: f64 = BOTTOM - TOP;
/// Baseline of the labels below the plot.
const LABELS: f64 = BOTTOM + 25.;
/// Room for dots beyond the plot.
const DOT: f64 = 5.;
/// Distance of the legend's lines.
const LINE: f64 = 22.;

/// The way in which values are drawn.
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
    /// Bars beside those of the other series, and the name of the things that they count.
    Bars(&'static str),
}

/// Values that belong together.
pub struct Series {
    /// In the legend; series of points without a name are left out of it.
    pub name: String,
    /// The style sheet's class that gives the colour.
    pub class: String,
    /// The way in which it is drawn.
    pub style: Style,
    /// Step and value; what is not finite is left out. For bars their left edge, at equal distances, and height.
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
    /// True where an update was skipped, false where the run went on.
    pub skipped: bool,
    /// The text under the pointer.
    pub title: String,
}

/// A chart.
pub struct Chart<'a> {
    /// An id, unlike those of the page's other charts; the title; beside it the quantity and its unit.
    pub head: [&'a str; 3],
    /// Steps, if nothing else.
    pub x: Axis,
    /// The quantity on the x axis, named below the chart.
    pub x_name: &'a str,
    /// Values.
    pub y: Axis,
    /// Drawn in this order.
    pub series: Vec<Series>,
    /// Steps at which an epoch ended, and how many had been made.
    pub epochs: &'a [(u64, u64)],
    /// Marked steps.
    pub marks: &'a [Mark],
    /// True where the legend explains the marks.
    pub explains_marks: bool,
    /// False for a chart without a legend.
    pub legend: bool,
}

impl<'a> Chart<'a> {
    /// A chart over the steps up to `last_step`, without epochs and marks.
    pub fn new(head: [&'a str; 3], last_step: u64, y: Axis, series: Vec<Series>) -> Chart<'a> {
        let x = Axis::exact(0., last_step.max(1) as f64).of_whole();
        let (epochs, marks, explains_marks, legend) = (&[], &[], false, true);
        Chart { head, x, x_name: "step", y, series, epochs, marks, explains_marks, legend }
    }

    /// The chart as a figure of the page; a sentence where there is nothing to draw.
    pub fn figure(&self) -> Markup {
        let [_, title, unit] = self.head;
        html! {
            figure.chart {
                figcaption { b { (title) } " " span { (unit) } " " output {} }
                @if self.series.iter().all(|series| series.points.is_empty()) {
                    p.none { "Nothing was recorded yet." }
                } @else {
                    (self.svg())
                }
            }
        }
    }

    fn svg(&self) -> Markup {
        let (Chart { head: [id, title, _], x, y, .. }, [width, height]) = (self, SIZE);
        // The script reads values off lines.
        let lines = self.series.iter().any(|series| !matches!(series.style, Style::Points | Style::Bars(_)));
        let (log, percent) = (u8::from(y.scale == Scale::Logarithmic), u8::from(y.scale == Scale::Percent));
        let x_scale = lines.then(|| format!("{LEFT} {WIDTH} {} {}", x.low, x.high));
        let y_scale = lines.then(|| format!("{TOP} {HEIGHT} {} {} {log} {percent}", y.low, y.high));
        html! {
            svg viewBox={ "0 0 " (width) " " (height) } role="img" aria-label=(title) data-x=[x_scale]
                data-y=[y_scale] {
                clipPath id={ "clip-" (id) } {
                    rect x=(LEFT - DOT) y=(TOP) width=(WIDTH + 2. * DOT) height=(HEIGHT + DOT) {}
                }
                (self.drawn_axes())
                (self.drawn_epochs())
                (self.drawn_marks())
                g clip-path={ "url(#clip-" (id) ")" } {
                    @for number in 0..self.series.len() { (self.drawn_series(number)) }
                }
                (self.drawn_legend())
                @if lines { line.cursor y1=(TOP) y2=(BOTTOM) visibility="hidden" {} }
            }
        }
    }

    fn at_x(&self, step: f64) -> f64 {
        LEFT + WIDTH * self.x.place(step)
    }

    fn at_y(&self, value: f64) -> f64 {
        // Far outside is far enough: the clip takes it.
        TOP + HEIGHT * (1. - self.y.place(value)).clamp(-2., 3.)
    }

    fn drawn_axes(&self) -> Markup {
        html! {
            @for (value, label) in self.y.ticks(4) {
                @let y = tenths(self.at_y(value));
                line.grid x1=(LEFT) x2=(RIGHT) y1=(y) y2=(y) {}
                text.tick x=(LEFT - 8.) y=(y) dy=".35em" text-anchor="end" { (label) }
            }
            line.axis x1=(LEFT) x2=(RIGHT) y1=(BOTTOM) y2=(BOTTOM) {}
            @for (value, label) in self.x.ticks(5) {
                @let x = self.at_x(value);
                // The last label must not leave the drawing.
                @let (anchor, text_x) = if x > RIGHT - 24. { ("end", RIGHT.min(x + 14.)) } else { ("middle", x) };
                line.axis x1=(tenths(x)) x2=(tenths(x)) y1=(BOTTOM) y2=(BOTTOM + 5.) {}
                text.tick x=(tenths(text_x)) y=(LABELS) text-anchor=(anchor) { (label) }
            }
            text.tick x=(LEFT + WIDTH / 2.) y=(SIZE[1] - 6.) text-anchor="middle" { (self.x_name) }
        }
    }

    /// Thin lines where epochs end, with their number above; not more than there is room for.
    fn drawn_epochs(&self) -> Markup {
        let most = self.epochs.iter().map(|&(_, epoch)| epoch).max().unwrap_or(0);
        let every = (nice_step(most as f64 / 8.).ceil() as u64).max(1);
        let shown: Vec<_> = self.epochs.iter().filter(|(_, epoch)| epoch.is_multiple_of(every)).collect();
        html! {
            @if !shown.is_empty() { text.tick x=(LEFT - 8.) y=(TOP - 17.) text-anchor="end" { "epoch" } }
            @for &(step, epoch) in shown {
                @let x = tenths(self.at_x(step as f64));
                line.epoch x1=(x) x2=(x) y1=(TOP - 10.) y2=(BOTTOM) {}
                text.tick x=(x) y=(TOP - 17.) text-anchor="middle" { (epoch) }
            }
        }
    }

    fn drawn_marks(&self) -> Markup {
        html! {
            @for mark in self.marks {
                @let x = self.at_x(mark.step);
                @if mark.skipped {
                    path.skipped d=(sample("skipped", x, TOP + 7.)) { title { (mark.title) } }
                } @else {
                    line.restart x1=(tenths(x)) x2=(tenths(x)) y1=(TOP) y2=(BOTTOM) { title { (mark.title) } }
                }
            }
        }
    }

    fn drawn_series(&self, number: usize) -> Markup {
        let Series { name, class, style, points } = &self.series[number];
        if let Style::Bars(what) = style {
            return self.drawn_bars(number, what);
        }
        let at = |&(x, y): &(f64, f64)| format!("{:.1} {:.1}", self.at_x(x), self.at_y(y));
        let drawable = |point: &&(f64, f64)| self.y.scale != Scale::Logarithmic || point.1 > 0.;
        let places: Vec<String> = points.iter().filter(drawable).map(at).collect();
        // A line of no length with round ends is a dot.
        let dots = || places.iter().map(|place| format!("M{place}h0")).collect::<String>();
        if *style == Style::Points {
            return html! { path class={ "points " (class) } d=(dots()) {} };
        }
        let kind = if *style == Style::Dashed { "line dashed " } else { "line " };
        // Those above the drawing are told of at its edge.
        let beyond = points.iter().filter(|point| *style == Style::Joined && self.y.place(point.1) > 1. + 1e-9);
        html! {
            polyline class={ (kind) (class) } data-name=(name) points=(places.join(" ")) {}
            @if *style == Style::Joined || places.len() == 1 { path class={ "dots " (class) } d=(dots()) {} }
            @for &(step, value) in beyond {
                path class={ "beyond " (class) }
                    d=(format_args!("M{:.1} {}l5 -8l5 8z", self.at_x(step) - 5., TOP + 10.)) {
                    title { "step " (step) ": " (name) " " (short(value)) }
                }
            }
        }
    }

    fn drawn_bars(&self, number: usize, what: &str) -> Markup {
        let Series { name, class, points, .. } = &self.series[number];
        let part = (self.x.high - self.x.low) / points.len() as f64;
        let width = (WIDTH / points.len() as f64 - 4.) / self.series.len() as f64;
        html! {
            @for &(from, count) in points.iter().filter(|point| point.1 > 0.) {
                @let (x, y) = (self.at_x(from) + 2. + number as f64 * width, self.at_y(count).max(TOP));
                rect class={ "column " (class) } x=(tenths(x)) y=(tenths(y)) width=(tenths(width))
                    height=(tenths(BOTTOM - y)) {
                    title { (name) ": " (count) " " (what) (format_args!(" of {from:.2} to {:.2}", from + part)) }
                }
            }
        }
    }

    fn drawn_legend(&self) -> Markup {
        let named = self.series.iter().filter(|series| !series.name.is_empty() && !series.points.is_empty());
        let mut entries: Vec<(&str, &str, &str)> = named
            .map(|series| {
                let kind = match series.style {
                    Style::Points => "points sample",
                    Style::Line => "line",
                    Style::Dashed => "line dashed",
                    Style::Joined | Style::Bars(_) => "dots",
                };
                (series.name.as_str(), series.class.as_str(), kind)
            })
            .collect();
        if self.explains_marks && self.marks.iter().any(|mark| mark.skipped) {
            entries.push(("update skipped", "", "skipped"));
        }
        if self.explains_marks && self.marks.iter().any(|mark| !mark.skipped) {
            entries.push(("went on after a stop", "", "restart"));
        }
        if entries.len() < 2 || !self.legend {
            return Markup::default(); // the title says it, or the page
        }
        let longest = entries.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        let size = [longest as f64 * 9. + 40., entries.len() as f64 * LINE + 8.];
        let (right, top) = self.emptiest_place(size);
        // From the plot's edge inwards.
        let (edge, inwards, anchor) = if right { (RIGHT - 14., -1., "end") } else { (LEFT + 14., 1., "start") };
        html! {
            @for (number, (name, class, kind)) in entries.into_iter().enumerate() {
                @let y = top + 18. + number as f64 * LINE;
                path class={ (kind) @if !class.is_empty() { " " (class) } } d=(sample(kind, edge + 11. * inwards, y)) {}
                text.legend x=(edge + 30. * inwards) y=(y) dy=".35em" text-anchor=(anchor) { (name) }
            }
        }
    }

    /// The place where a legend of this size hides the least: true for the right side, and its upper edge.
    fn emptiest_place(&self, [width, height]: [f64; 2]) -> (bool, f64) {
        let drawn: Vec<(f64, Vec<[f64; 2]>)> = self.series.iter().map(|series| self.weighed_places(series)).collect();
        let hidden = |&(right, top): &(bool, f64)| {
            let left = if right { RIGHT - width } else { LEFT };
            let inside =
                |&&[x, y]: &&[f64; 2]| (left..left + width).contains(&x) && (top - 4. ..top + height).contains(&y);
            drawn.iter().map(|(weight, places)| weight * places.iter().filter(inside).count() as f64).sum::<f64>()
        };
        let tops = (0..5).map(|part| TOP + (HEIGHT - height).max(0.) * f64::from(part) / 4.);
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
        let pairs: Vec<[(f64, f64); 2]> = match series.style {
            Style::Bars(_) => series.points.iter().map(|&(x, y)| [(x, 0.), (x, y)]).collect(),
            _ => series.points.windows(2).map(|pair| [pair[0], pair[1]]).collect(),
        };
        let places: Vec<[f64; 2]> = pairs
            .iter()
            .flat_map(|[from, to]| {
                let ([x0, y0], [x1, y1]) = (at(from), at(to));
                let pieces = ((x1 - x0).abs().max((y1 - y0).abs()) / 8.).ceil().max(1.);
                (0..=pieces as u32)
                    .map(move |i| f64::from(i) / pieces)
                    .map(move |t| [x0 + t * (x1 - x0), y0 + t * (y1 - y0)])
            })
            .collect();
        (4. / places.len().max(1) as f64, places)
    }
}

/// A legend's sample of a kind of series or mark, `x` and `y` its middle.
fn sample(kind: &str, x: f64, y: f64) -> String {
    match kind {
        "skipped" => format!("M{:.1} {}l8 8m0 -8l-8 8", x - 4., y - 4.),
        "points sample" => format!("M{} {}h0M{x} {}h0M{} {}h0", x - 7., y + 2., y - 3., x + 7., y + 1.),
        "dots" => format!("M{x} {y}h0"),
        _ => format!("M{} {y}h22", x - 11.),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> String {
        let series = vec![
            Series::new("", "train", Style::Points, points.clone()),
            Series::new("a<b", "held", Style::Joined, points),
        ];
        let y = Axis::from_zero([0., 3.].into_iter());
        Chart { epochs: &[(50, 1)], ..Chart::new(["t", "T&T", ""], 100, y, series) }.figure().into_string()
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
    fn bars_stand_on_the_axis_beside_each_other() {
        let bars = |name, counts: [f64; 2]| {
            Series::new(name, "ink", Style::Bars("kernels"), vec![(0., counts[0]), (0.5, counts[1])])
        };
        let (x, y) = (Axis::exact(0., 1.), Axis::exact(0., 4.).of_whole());
        let series = vec![bars("a", [1., 0.]), bars("b", [4., 2.])];
        let svg = Chart { x, ..Chart::new(["t", "T", ""], 1, y, series) }.figure().into_string();
        // Half of the plot for each part, less some room, for the two; heights of 1, 4 and 2 of 4.
        for (bar, title) in [
            ("x=\"72.0\" y=\"207.5\" width=\"117.0\" height=\"56.5\"", "a: 1 kernels of 0.00 to 0.50"),
            ("x=\"189.0\" y=\"38.0\" width=\"117.0\" height=\"226.0\"", "b: 4 kernels of 0.00 to 0.50"),
            ("x=\"427.0\" y=\"151.0\" width=\"117.0\" height=\"113.0\"", "b: 2 kernels of 0.50 to 1.00"),
        ] {
            assert!(svg.contains(&format!("<rect class=\"column ink\" {bar}><title>{title}</title>")), "{svg}");
        }
        assert_eq!(svg.matches("class=\"column").count(), 3, "nothing counted, nothing drawn");
        assert!(!svg.contains("data-x"), "the script reads lines alone");
    }

    #[test]
    fn a_chart_of_nothing_says_so() {
        let empty = chart(vec![(1., f64::INFINITY)]);
        assert!(empty.contains("Nothing was recorded") && !empty.contains("<svg"), "{empty}");
    }
}
