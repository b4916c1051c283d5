//! One step of training in time, a lane a stream; and the streams' means.

use std::fmt::Write;

use super::html::escape;
use crate::engine::timeline::{Event, Timeline};
use crate::engine::times::Activity;
use crate::net::swap::Pass;
use crate::run::rows::{StreamMeans, Times};
use crate::text::short;

/// Heights, in the drawing's units, which are about the screen's pixels.
const LANE: f64 = 44.;
const THIN: f64 = 11.;
const GAP: f64 = 20.;
const TOP: f64 = 8.;
/// Room for a lane's name on a wide screen; on a phone it stands above the lane.
const NAMES: f64 = 78.;

/// The newest sampled step and the means; each says so where it is missing.
pub fn section(timeline: Option<&Timeline>, times: &[Times]) -> String {
    let drawing = match timeline.filter(|timeline| timeline.streams.iter().any(|lane| !lane.events.is_empty())) {
        None => "<p class=\"none\">No step has been sampled yet.</p>".to_owned(),
        Some(timeline) => {
            let step = timeline.step;
            let (thin, key) = match timeline.streams.len() {
                1 => ("", [KEY, ""]),
                _ => (" The thin lane is what was on its way between the streams.", [KEY, EXCHANGE_KEY]),
            };
            let key = key.concat();
            format!(
                "<p>Step {step}, from its beginning.{thin}</p><p class=\"key\">{key}</p><div class=\"wide\">{}</div><div class=\"narrow\">{}</div>",
                drawing(timeline, "w", 1080., NAMES),
                drawing(timeline, "n", 358., 0.)
            )
        }
    };
    format!("{drawing}{}", means(times))
}

const KEY: &str = "<span><i class=\"forward\"></i>forward</span><span><i class=\"backward\"></i>backward</span>\
<span><i class=\"update\"></i>update</span>";
const EXCHANGE_KEY: &str =
    "<span><i class=\"exchange\"></i>exchange</span><span><i class=\"waiting\"></i>waiting</span>";

fn drawing(timeline: &Timeline, id: &str, width: f64, names: f64) -> String {
    let all = || timeline.streams.iter().flat_map(|lane| &lane.events);
    let end_us = all().map(|span| span.start_us + span.us).filter(|us| us.is_finite()).fold(1., f64::max);
    let scale = (width - names) / end_us;
    let name_height = if names == 0. { 18. } else { 0. };
    let lane_height = name_height + LANE + 3. + THIN + GAP;
    let bottom = TOP + timeline.streams.len() as f64 * lane_height - GAP + 8.;
    let height = bottom + 26.;
    let mut out = format!(
        "<svg class=\"timeline\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"One step in time\">\
         <pattern id=\"hatch-{id}\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" class=\"hatch-ground\"/>\
         <rect width=\"2\" height=\"6\" class=\"hatch-line\"/></pattern>"
    );
    let axis = super::axis::Axis::exact(0., end_us / 1e3);
    for (ms, label) in axis.ticks(if names == 0. { 4 } else { 9 }) {
        let x = names + ms * 1e3 * scale;
        let anchor = match x {
            x if x > width - 30. => "end",
            x if x < 12. => "start",
            _ => "middle",
        };
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{label}{}</text>",
            x.min(width - 1.),
            bottom + 17.,
            if ms == 0. { " ms" } else { "" }
        );
    }
    for (number, lane) in timeline.streams.iter().enumerate() {
        let top = TOP + number as f64 * lane_height;
        let (name_y, top) = if names == 0. { (top + 12., top + name_height) } else { (top + LANE / 2. + 5., top) };
        let _ = write!(
            out,
            "<text class=\"lane stream{}\" x=\"0\" y=\"{name_y}\">stream {}</text>",
            lane.stream.min(1),
            lane.stream
        );
        let spans = lane.events.iter().filter(|span| span.start_us.is_finite() && span.us > 0.);
        for span in spans {
            draw_span(span, id, [names + span.start_us * scale, span.us * scale], top, &mut out);
        }
    }
    out + "</svg>"
}

fn draw_span(span: &Event, id: &str, [x, width]: [f64; 2], top: f64, out: &mut String) {
    let (y, height) = if span.activity == Activity::Exchange { (top + LANE + 3., THIN) } else { (top, LANE) };
    let (fill, class) = match (span.activity, span.pass) {
        (Activity::Waiting, _) => (format!(" fill=\"url(#hatch-{id})\""), "waits"),
        (Activity::Exchange, _) => (String::new(), "exchange"),
        (_, Pass::Forward) => (String::new(), "forward"),
        (_, Pass::Backward) => (String::new(), "backward"),
        (_, Pass::Update) => (String::new(), "update"),
    };
    let (layer, pass, activity) = (escape(&span.layer), span.pass, span.activity);
    let (ms, from) = (short(span.us / 1e3), short(span.start_us / 1e3));
    // A hair of room between neighbours, as long as they are wider than that.
    let drawn = if width > 3. { width - 0.6 } else { width.max(0.4) };
    let _ = write!(
        out,
        "<g><title>{layer}, {pass}, {activity}: {ms} ms, from {from} ms on</title>\
         <rect class=\"span {class}\"{fill} x=\"{x:.2}\" y=\"{y:.1}\" width=\"{drawn:.2}\" height=\"{height}\"/>"
    );
    let (middle_x, middle_y, long) = (x + width / 2., y + LANE / 2., span.layer.chars().count() as f64 * 7. + 6.);
    if height == LANE && long < width {
        let _ =
            write!(out, "<text class=\"inside {class}\" x=\"{middle_x:.1}\" y=\"{:.1}\">{layer}</text>", middle_y + 4.);
    } else if height == LANE && long < LANE && width > 13. {
        // Upwards.
        let _ = write!(
            out,
            "<text class=\"inside {class}\" transform=\"translate({:.1} {middle_y:.1}) rotate(-90)\">{layer}</text>",
            middle_x + 4.
        );
    }
    *out += "</g>";
}

/// The streams' times, averaged over all that was measured.
fn means(times: &[Times]) -> String {
    let streams = times.iter().map(|row| row.streams.len()).max().unwrap_or(0);
    let steps: u64 = times.iter().map(|row| row.steps).sum();
    if streams == 0 || steps == 0 {
        return "<p class=\"none\">The streams' times have not been measured yet.</p>".into();
    }
    let mut body = String::new();
    for stream in 0..streams {
        let mean = |of: fn(&StreamMeans) -> f64| {
            let rows =
                times.iter().filter_map(|row| row.streams.get(stream).map(|means| (row.steps as f64, of(means))));
            let (weight, sum) = rows.fold((0., 0.), |(weight, sum), (steps, ms)| (weight + steps, sum + steps * ms));
            if weight > 0. { sum / weight } else { 0. }
        };
        let (total, compute, waiting) = (mean(|m| m.total_ms), mean(|m| m.compute_ms), mean(|m| m.waiting_ms));
        let (exchange, hidden) = (mean(|m| m.exchange_ms), mean(|m| m.hidden_ms));
        let share = |part: f64, whole: f64| if whole > 0. { 100. * (part / whole).clamp(0., 1.) } else { 0. };
        let waits = format!("waiting {} ms ({:.1}%), ", short(waiting), share(waiting, total));
        let (waits, hides) = match exchange > 0. {
            true => {
                let hides = share(hidden, exchange);
                (waits, format!("; exchanging {} ms, {hides:.0}% of it hidden behind computing", short(exchange)))
            }
            false => (String::new(), String::new()),
        };
        let _ = write!(
            body,
            "<div class=\"means\"><b class=\"stream{class}\">stream {stream}</b>\
             <div class=\"bar\"><i class=\"stream{class}\" style=\"width:{:.1}%\"></i><i class=\"waiting\" style=\"width:{:.1}%\"></i></div>\
             <p>{} ms a step: computing {} ms ({:.1}%), {waits}other {} ms{hides}.</p></div>",
            share(compute, total),
            share(waiting, total),
            short(total),
            short(compute),
            share(compute, total),
            short((total - compute - waiting).max(0.)),
            class = stream.min(1),
        );
    }
    format!("<h3>Means over {steps} steps</h3>{body}")
}
