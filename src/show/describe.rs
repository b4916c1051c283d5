//! The table in numbers: shapes, parameters, work, exchanged bytes and memory.

use std::fmt::Write;

use serde::Serialize;

use crate::error::Result;
use crate::net::plan::Plan;
use crate::net::spec::Net;
use crate::text::{counted, grouped};

/// One layer in one stream.
#[derive(Clone, Debug, Serialize)]
pub struct LayerFacts {
    /// The layer's name.
    pub name: String,
    /// `image`, `own` or `both`; empty for layers without weights.
    pub reads: &'static str,
    /// Channels, height, width of the output in this stream.
    pub output: [usize; 3],
    /// Weights and biases in this stream.
    pub parameters: u64,
    /// Multiply-adds of the forward pass for one image in this stream.
    pub multiply_adds: u64,
    /// Bytes per image that this stream sends before the layer in the forward pass.
    pub sent_bytes: u64,
}

/// The whole network.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// Channels, height, width of the image.
    pub image: [usize; 3],
    /// Classes.
    pub classes: usize,
    /// By stream, then by layer.
    pub streams: Vec<Vec<LayerFacts>>,
    /// Weights and biases of all streams.
    pub parameters: u64,
    /// Multiply-adds of the forward pass for one image, all streams.
    pub multiply_adds: u64,
    /// Activation bytes per image exchanged in the forward pass, all streams, softmax statistics not counted. The
    /// backward pass sends as many gradients back.
    pub exchanged_bytes: u64,
    /// Bytes per image of softmax statistics exchanged where fc8 is split.
    pub softmax_bytes: u64,
    /// Batch that the memory is estimated for.
    pub batch_size: usize,
    /// Estimated bytes of one stream's weights, gradients and optimizer state.
    pub parameter_memory_bytes: Vec<u64>,
    /// Estimated bytes of one stream's activations and gradient buffers at that batch.
    pub activation_memory_bytes: Vec<u64>,
}

/// Describes `net` when trained at `batch_size` with `states` optimizer tensors per parameter.
///
/// Fails as [`Plan::new`] does.
pub fn describe(net: &Net, batch_size: usize, states: usize) -> Result<Description> {
    let plans = Plan::all(net)?;
    let streams: Vec<Vec<LayerFacts>> = plans.iter().map(layer_facts).collect();
    let all = || streams.iter().flatten();
    let softmax_bytes = all().filter(|layer| &*layer.name == "loss").map(|layer| layer.sent_bytes).sum();
    let parameters = |plan: &Plan| plan.params.iter().map(|param| param.elems() as u64).sum::<u64>();
    let buffers = |plan: &Plan| {
        plan.slots.iter().flat_map(|shape| shape.iter().copied().reduce(|a, b| a * b)).sum::<usize>()
            + 2 * plan.largest_gradient()
            + 2 * plan.largest_exchange()
    };
    Ok(Description {
        image: net.image,
        classes: net.classes(),
        parameters: plans.iter().map(parameters).sum(),
        multiply_adds: all().map(|layer| layer.multiply_adds).sum(),
        exchanged_bytes: all().map(|layer| layer.sent_bytes).sum::<u64>() - softmax_bytes,
        softmax_bytes,
        batch_size,
        parameter_memory_bytes: plans.iter().map(|plan| 4 * (2 + states as u64) * parameters(plan)).collect(),
        activation_memory_bytes: plans.iter().map(|plan| 4 * (batch_size * buffers(plan)) as u64).collect(),
        streams,
    })
}

fn layer_facts(plan: &Plan) -> Vec<LayerFacts> {
    let facts = plan.layers.iter().map(|layer| {
        let params = layer.params.map(|p| [Some(p.own), p.theirs, Some(p.bias)]);
        let has_weights = layer.params.is_some() || layer.exchange_point.is_some();
        LayerFacts {
            name: layer.name.to_string(),
            reads: match (layer.x, layer.exchange_point) {
                _ if !has_weights => "",
                (0, _) => "image",
                (_, Some(_)) => "both",
                (_, None) => "own",
            },
            output: layer.out_shape,
            parameters: params.iter().flatten().flatten().map(|&index| plan.params[index].elems() as u64).sum(),
            multiply_adds: layer.macs(),
            sent_bytes: layer.sent_bytes(),
        }
    });
    facts.collect()
}

/// The description as a table for people.
pub fn render(facts: &Description) -> String {
    let mut out = String::new();
    let [c, h, w] = facts.image;
    let streams = facts.streams.len();
    let _ = writeln!(
        out,
        "{c}x{h}x{w} image, {}, {}\n",
        counted(facts.classes, "class[es]"),
        counted(streams, "stream[s]")
    );
    let _ = write!(out, "{:<8}", "");
    for stream in 0..streams {
        let _ = write!(out, "| {:<52}", format!("stream {stream}"));
    }
    let _ = write!(out, "\n{:<8}", "layer");
    for _ in 0..streams {
        let _ = write!(
            out,
            "| {:<5} {:>9} {:>11} {:>12} {:>11} ",
            "reads", "output", "parameters", "mult-adds", "sends bytes"
        );
    }
    out.push('\n');
    for layer in 0..facts.streams[0].len() {
        let _ = write!(out, "{:<8}", facts.streams[0][layer].name);
        for stream in &facts.streams {
            let row = &stream[layer];
            let shape = shape(row.output);
            let (parameters, macs, sent) = (number(row.parameters), number(row.multiply_adds), number(row.sent_bytes));
            let _ = write!(out, "| {:<5} {shape:>9} {parameters:>11} {macs:>12} {sent:>11} ", row.reads);
        }
        out.push('\n');
    }
    write_totals(facts, &mut out);
    out
}

fn shape(output: [usize; 3]) -> String {
    match output {
        [0, _, _] => "-".into(),
        [k, 1, 1] => k.to_string(),
        [k, p, q] => format!("{k}x{p}x{q}"),
    }
}

fn number(value: u64) -> String {
    if value == 0 { String::new() } else { grouped(value) }
}

/// The layers of the whole network: both streams' channels, parameters and work together.
fn whole(facts: &Description) -> Vec<LayerFacts> {
    let layer = |index: usize| {
        let mut all = facts.streams.iter().map(|stream| stream[index].clone());
        let first = all.next()?;
        Some(all.fold(first, |sum, row| LayerFacts {
            output: [sum.output[0] + row.output[0], sum.output[1].max(row.output[1]), sum.output[2].max(row.output[2])],
            parameters: sum.parameters + row.parameters,
            multiply_adds: sum.multiply_adds + row.multiply_adds,
            sent_bytes: sum.sent_bytes + row.sent_bytes,
            ..sum
        }))
    };
    (0..facts.streams[0].len()).filter_map(layer).collect()
}

/// Networks beside each other, by their names: the layers in their order, streams added up, and the sums.
pub fn render_beside(networks: &[(String, Description)]) -> String {
    let mut out = String::new();
    let columns: Vec<Vec<LayerFacts>> = networks.iter().map(|(_, facts)| whole(facts)).collect();
    for (name, facts) in networks {
        let [c, h, w] = facts.image;
        let head = format!("{name}: {c}x{h}x{w}, {}", counted(facts.streams.len(), "stream[s]"));
        let _ = write!(out, "| {head:<46}");
    }
    out.push('\n');
    for _ in networks {
        let _ = write!(out, "| {:<8} {:>10} {:>11} {:>13} ", "layer", "output", "parameters", "mult-adds");
    }
    out.push('\n');
    for row in 0..columns.iter().map(Vec::len).max().unwrap_or(0) {
        for column in &columns {
            let _ = match column.get(row) {
                Some(layer) => write!(
                    out,
                    "| {:<8} {:>10} {:>11} {:>13} ",
                    layer.name,
                    shape(layer.output),
                    number(layer.parameters),
                    number(layer.multiply_adds)
                ),
                None => write!(out, "| {:<46}", ""),
            };
        }
        out.push('\n');
    }
    let mib = |bytes: &[u64]| format!("{:.0} MiB", bytes.iter().sum::<u64>() as f64 / f64::from(1 << 20));
    type Total<'a> = (&'a str, &'a dyn Fn(&Description) -> String);
    let totals: [Total; 4] = [
        ("parameters", &|facts| grouped(facts.parameters)),
        ("multiply-adds an image, forward", &|facts| grouped(facts.multiply_adds)),
        ("weights, gradients, optimizer", &|facts| mib(&facts.parameter_memory_bytes)),
        ("activations of a batch", &|facts| mib(&facts.activation_memory_bytes)),
    ];
    for (what, total) in totals {
        for (_, facts) in networks {
            let _ = write!(out, "| {what:<31} {:>13} ", total(facts));
        }
        out.push('\n');
    }
    out
}

/// Each layer's output as courses print it: images, channels, rows, columns.
pub fn render_shapes(facts: &Description) -> String {
    let line = |layer: &LayerFacts| match layer.output {
        [0, _, _] => String::new(),
        [k, 1, 1] => format!("{:<12} output shape: (1, {k})\n", layer.name),
        [k, p, q] => format!("{:<12} output shape: (1, {k}, {p}, {q})\n", layer.name),
    };
    whole(facts).iter().map(line).collect()
}

/// The sums over all layers.
fn write_totals(facts: &Description, out: &mut String) {
    let exchanges: Vec<&str> =
        facts.streams[0].iter().filter(|layer| layer.reads == "both").map(|layer| layer.name.as_str()).collect();
    let _ = writeln!(out, "\nparameters          {:>14}", grouped(facts.parameters));
    let _ = writeln!(out, "multiply-adds       {:>14} an image, forward", grouped(facts.multiply_adds));
    if !exchanges.is_empty() {
        let _ = writeln!(
            out,
            "exchanged           {:>14} bytes an image, forward, before {}; as much backward",
            grouped(facts.exchanged_bytes),
            exchanges.join(", ")
        );
    }
    if facts.softmax_bytes > 0 {
        let _ = writeln!(out, "softmax statistics  {:>14} bytes an image, forward", grouped(facts.softmax_bytes));
    }
    for stream in 0..facts.streams.len() {
        let (parameters, activations) = (facts.parameter_memory_bytes[stream], facts.activation_memory_bytes[stream]);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            out,
            "memory, stream {stream}    {:>14.0} MiB: {:.0} for weights, gradients and optimizer, {:.0} for activations at batch {}",
            mib(parameters + activations),
            mib(parameters),
            mib(activations),
            facts.batch_size
        );
    }
}
