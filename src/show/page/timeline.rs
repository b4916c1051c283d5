//! One step of training in time, a lane a stream; and the streams' means.

use maud::{Markup, html};

use crate::engine::timeline::{Event, Timeline};
use crate::engine::times::Activity;
use crate::run::rows::{StreamMeans, Times};
use crate::text::short;
use alexnet_split_charts::axis::Axis;
use alexnet_split_charts::tenths;

/// Heights, in the drawing's units, which are about the screen's pixels.
const LANE: f64 = 44.;
const THIN: f64 = 11.;
const GAP: f64 = 20.;
const TOP: f64 = 8.;
/// Room for a lane's name on a wide screen; on a phone it stands above the lane.
const NAMES: f64 = 78.;

/// The newest sampled step and the means; each says so where it is missing.
pub fn section(timeline: Option<&Timeline>, times: &[Times]) -> Markup {
    const KEY: [&str; 5] = ["forward", "backward", "update", "exchange", "waiting"];
    let timeline = timeline.filter(|timeline| timeline.streams.iter().any(|lane| !lane.events.is_empty()));
    html! {
        @if let Some(timeline) = timeline {
            @let one = timeline.streams.len() == 1;
            p {
                "Step " (timeline.step) ", from its beginning."
                @if !one { " The thin lane is what was on its way between the streams." }
            }
            p.key { @for kind in KEY.iter().take(if one { 3 } else { 5 }) { span { i class=(kind) {} (kind) } } }
            div.wide { (drawing(timeline, "w", 1080., NAMES)) }
            div.narrow { (drawing(timeline, "n", 358., 0.)) }
        } @else {
            p.none { "No step has been sampled yet." }
        }
        (means(times))
    }
}

fn drawing(timeline: &Timeline, id: &str, width: f64, names: f64) -> Markup {
    let all = || timeline.streams.iter().flat_map(|lane| &lane.events);
    let end_us = all().map(|span| span.start_us + span.us).filter(|us| us.is_finite()).fold(1., f64::max);
    let scale = (width - names) / end_us;
    let name_height = if names == 0. { 18. } else { 0. };
    let lane_height = name_height + LANE + 3. + THIN + GAP;
    let bottom = TOP + timeline.streams.len() as f64 * lane_height - GAP + 8.;
    let ticks = Axis::exact(0., end_us / 1e3).ticks(if names == 0. { 4 } else { 9 });
    html! {
        svg.timeline viewBox={ "0 0 " (width) " " (bottom + 26.) } role="img" aria-label="One step in time" {
            pattern id={ "hatch-" (id) } width="6" height="6" patternUnits="userSpaceOnUse"
                patternTransform="rotate(45)" {
                rect.hatch-ground width="6" height="6" {}
                rect.hatch-line width="2" height="6" {}
            }
            @for (ms, label) in ticks {
                @let x = names + ms * 1e3 * scale;
                @let anchor = if x > width - 30. { "end" } else if x < 12. { "start" } else { "middle" };
                line.grid x1=(tenths(x)) x2=(tenths(x)) y1=(TOP) y2=(bottom) {}
                text.tick x=(tenths(x.min(width - 1.))) y=(bottom + 17.) text-anchor=(anchor) {
                    (label) @if ms == 0. { " ms" }
                }
            }
            @for (number, lane) in timeline.streams.iter().enumerate() {
                @let top = TOP + number as f64 * lane_height;
                @let name_y = top + if names == 0. { 12. } else { LANE / 2. + 5. };
                text class={ "lane stream" (lane.stream.min(1)) } x="0" y=(name_y) { "stream " (lane.stream) }
                @for span in lane.events.iter().filter(|span| span.start_us.is_finite() && span.us > 0.) {
                    (drawn_span(span, id, [names + span.start_us * scale, span.us * scale], top + name_height))
                }
            }
        }
    }
}

fn drawn_span(span: &Event, id: &str, [x, width]: [f64; 2], top: f64) -> Markup {
    let Event { layer, pass, activity, .. } = span;
    let in_lane = *activity != Activity::Exchange;
    let (y, height) = if in_lane { (top, LANE) } else { (top + LANE + 3., THIN) };
    let class = match activity {
        Activity::Waiting => "waits".into(),
        Activity::Exchange => "exchange".into(),
        Activity::Compute => pass.to_string(),
    };
    let fill = (*activity == Activity::Waiting).then(|| format!("url(#hatch-{id})"));
    let (ms, from) = (short(span.us / 1e3), short(span.start_us / 1e3));
    // A hair of room between neighbours, as long as they are wider than that.
    let drawn = if width > 3. { width - 0.6 } else { width.max(0.4) };
    let (middle_x, middle_y, long) = (x + width / 2., top + LANE / 2., layer.chars().count() as f64 * 7. + 6.);
    html! {
        g {
            title { (layer) (format_args!(", {pass}, {activity}: {ms} ms, from {from} ms on")) }
            rect class={ "span " (class) } fill=[fill] x=(format_args!("{x:.2}")) y=(tenths(y))
                width=(format_args!("{drawn:.2}")) height=(height) {}
            @if in_lane && long < width {
                text class={ "inside " (class) } x=(tenths(middle_x)) y=(tenths(middle_y + 4.)) { (layer) }
            } @else if in_lane && long < LANE && width > 13. {
                // Upwards.
                @let place = format!("translate({:.1} {middle_y:.1}) rotate(-90)", middle_x + 4.);
                text class={ "inside " (class) } transform=(place) { (layer) }
            }
        }
    }
}

/// The streams' times, averaged over all that was measured.
fn means(times: &[Times]) -> Markup {
    let streams = times.iter().map(|row| row.streams.len()).max().unwrap_or(0);
    let steps: u64 = times.iter().map(|row| row.steps).sum();
    html! {
        @if streams == 0 || steps == 0 {
            p.none { "The streams' times have not been measured yet." }
        } @else {
            h3 { "Means over " (steps) " steps" }
            @for stream in 0..streams { (means_of(stream, times)) }
        }
    }
}

fn means_of(stream: usize, times: &[Times]) -> Markup {
    let mean = |of: fn(&StreamMeans) -> f64| {
        let rows = times.iter().filter_map(|row| row.streams.get(stream).map(|means| (row.steps as f64, of(means))));
        let (weight, sum) = rows.fold((0., 0.), |(weight, sum), (steps, ms)| (weight + steps, sum + steps * ms));
        if weight > 0. { sum / weight } else { 0. }
    };
    let (total, compute, waiting) = (mean(|m| m.total_ms), mean(|m| m.compute_ms), mean(|m| m.waiting_ms));
    let (exchange, hidden) = (mean(|m| m.exchange_ms), mean(|m| m.hidden_ms));
    let share = |part: f64, whole: f64| if whole > 0. { 100. * (part / whole).clamp(0., 1.) } else { 0. };
    let (computes, waits, hides) = (share(compute, total), share(waiting, total), share(hidden, exchange));
    let class = format!("stream{}", stream.min(1));
    html! {
        div.means {
            b class=(class) { "stream " (stream) }
            div.bar {
                i class=(class) style=(format_args!("width:{computes:.1}%")) {}
                i.waiting style=(format_args!("width:{waits:.1}%")) {}
            }
            p {
                (short(total)) " ms a step: computing " (short(compute)) (format_args!(" ms ({computes:.1}%), "))
                @if exchange > 0. { "waiting " (short(waiting)) (format_args!(" ms ({waits:.1}%), ")) }
                "other " (short((total - compute - waiting).max(0.))) " ms"
                @if exchange > 0. {
                    "; exchanging " (short(exchange)) (format_args!(" ms, {hides:.0}% of it hidden behind computing"))
                }
                "."
            }
        }
    }
}
