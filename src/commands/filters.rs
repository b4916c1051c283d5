//! `filters`: figure 3 of the paper from a run's newest checkpoint, and how the streams differ in colour.

use std::path::Path;

use crate::engine::first_layer::{self, Colourfulness, FirstLayerFilters};
use crate::error::Result;
use crate::net::plan::Plan;
use crate::net::spec::Net;
use crate::run::checkpoint;
use crate::run::dir;
use crate::run::rows::{Filters, Row};
use serde_json::json;

use crate::cli::FiltersArgs;

/// Gaps below it mean nothing: at the start a gap of 0.01 is usual for the paper's 48 kernels per stream.
const SLIGHT: f64 = 0.05;

/// Gaps from it on, with the streams' means on either side of 1/2, are what the paper describes.
const CLEAR: f64 = 0.2;

pub fn filters(args: &FiltersArgs) -> Result<()> {
    let (checkpoint, state) = checkpoint::find(&args.run)?;
    let step = state.step;
    let recipe = dir::load_recipe(&checkpoint::run_of(&checkpoint))?;
    let kernels = load(&checkpoint, &Plan::all(&Net::from_options(&recipe.net)?)?)?;
    let picture = kernels.picture(args.scale)?;
    first_layer::write_png(&picture, &args.picture)?;
    let (layer, counts, shape) = (kernels.layer(), kernels.counts(), kernels.shape());
    let (width, height, file) = (picture.width(), picture.height(), args.picture.display());
    let colours = kernels.colours();
    if args.json {
        let row = colours.as_ref().map(|colours| json!(Row::Filters(Filters::of(step, colours))));
        let mut row = row.unwrap_or_else(|| json!({"kind": "filters", "step": step}));
        (row["layer"], row["kernels"], row["shape"]) = (json!(layer), json!(counts), json!(shape));
        (row["picture"], row["width"], row["height"]) = (json!(file.to_string()), json!(width), json!(height));
        if let Some(colours) = &colours {
            (row["quartiles"], row["above_half"]) = (json!(colours.quartiles()), json!(colours.above_half()));
        }
        outln!("{row}");
        return Ok(());
    }
    let [c, r, s] = shape;
    let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
    outln!("step {step}: {layer}, {} kernels of {c}x{r}x{s}", counts.join(" and "));
    outln!("wrote {file}: {width} x {height} pixels{}\n", if counts.len() > 1 { ", stream 0 on top" } else { "" });
    match colours {
        Some(colours) => out!("{}", table(&colours)),
        None => outln!("A network that reads one channel has no colours to measure."),
    }
    Ok(())
}

/// Reads the first layer's kernels, and nothing else, of a checkpoint of the network that `plans` describe.
fn load(checkpoint: &Path, plans: &[Plan]) -> Result<FirstLayerFilters> {
    let (index, shape) = first_layer::locate(&plans[0])?;
    let read = |plan: &Plan| {
        let param = &plan.params[index];
        checkpoint::open(checkpoint, plan)?.values(&param.name, Some(&param.shape))
    };
    FirstLayerFilters::new(&plans[0].layers[0].name, shape, plans.iter().map(read).collect::<Result<_>>()?)
}

/// For people: the distributions side by side, and what their difference means.
fn table(colours: &Colourfulness) -> String {
    let mut out = String::from("colourfulness: the share of a kernel's energy outside the grey axis\n\n");
    let mut row = |name: &str, cells: Vec<String>| {
        out += &format!("{name:<16}");
        cells.iter().for_each(|cell| out += &format!("{cell:<28}"));
        out.truncate(out.trim_end().len());
        out.push('\n');
    };
    let quartiles = colours.quartiles();
    row("", (0..quartiles.len()).map(|stream| format!("stream {stream}")).collect());
    row("mean", colours.means().iter().map(|mean| format!("{mean:.3}")).collect());
    for (place, name) in ["lower quartile", "median", "upper quartile"].into_iter().enumerate() {
        row(name, quartiles.iter().map(|quartiles| format!("{:.3}", quartiles[place])).collect());
    }
    let counts = colours.above_half().into_iter().zip(&colours.streams);
    row("above 1/2", counts.map(|(above, all)| format!("{above} of {}", all.len())).collect());
    row("", Vec::new());
    let tenths = colours.tenths();
    let longest = tenths.iter().flatten().copied().max().unwrap_or(0).max(1);
    for tenth in 0..10 {
        let bar = |counts: &[usize; 10]| match counts[tenth] {
            0 => String::new(),
            count => format!("{} {count}", "#".repeat((count * 20).div_ceil(longest))),
        };
        let name = format!("{:.1} to {:.1}", tenth as f64 / 10., (tenth + 1) as f64 / 10.);
        row(&name, tenths.iter().map(bar).collect());
    }
    if let Some(gap) = colours.gap() {
        out +=
            &format!("\ngap {gap:+.3} (mean of stream 1 minus that of stream 0): {}\n", meaning(gap, &colours.means()));
    }
    out
}

/// The meaning of a gap between the streams, in words.
fn meaning(gap: f64, means: &[f64]) -> String {
    // NaN weights have no colours.
    if gap.is_nan() {
        return "some weights are not finite.".into();
    }
    let (colourful, grey) = if gap > 0. { (1, 0) } else { (0, 1) };
    if gap.abs() < SLIGHT {
        return "the streams do not differ in colour; random kernels have 0.667 in both.".into();
    }
    if gap.abs() >= CLEAR && means[colourful] > 0.5 && means[grey] < 0.5 {
        return format!(
            "stream {colourful} is colour-specific and stream {grey} colour-agnostic, as the paper found (6.1)."
        );
    }
    format!("stream {colourful} sees more colour than stream {grey}; the paper's own (6.1) are further apart.")
}
