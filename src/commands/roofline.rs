//! How long a training step of the paper's network takes on a GPU, by layer and pass, from counts alone:
//!
//! - roofline: a lower bound, which no kernel reaches. Multiply-adds at the tensor cores' peak, or each tensor read or
//!   written once at the memory's peak, whichever takes longer.
//! - model: the kernels as they are. The instructions around each tensor-core instruction, as counted in the machine
//!   code (kernels/costs.txt), go through four schedulers a multiprocessor; blocks of threads run in waves. It knows no
//!   caches, and nobody has compared it with a GPU.

use std::collections::HashMap;

use crate::backend::cuda::bf16::{self, DEPTH, Division, divide};
use crate::config::Recipe;
use crate::error::Result;
use crate::net::plan::Plan;
use crate::net::spec::Net;

use super::step_work::{self, Kernel, Work};

/// A kind of GPU; peaks are those of its data sheet.
struct Gpu {
    name: &'static str,
    /// Multiply-adds a second of bf16 with fp32 sums, dense.
    macs: f64,
    /// Bytes a second of its memory.
    bytes: f64,
    multiprocessors: usize,
    /// Cycles a second.
    clock: f64,
    /// Cycles of a tensor core for one `mma.sync` of 16 x 8 x 16. Hopper's peak would be 4, which only `wgmma` reaches.
    mma_cycles: f64,
}

const GPUS: [Gpu; 2] = [
    Gpu { name: "H100", macs: 989e12 / 2., bytes: 3.35e12, multiprocessors: 132, clock: 1.755e9, mma_cycles: 6.35 },
    Gpu { name: "RTX 4090", macs: 165e12 / 2., bytes: 1.01e12, multiprocessors: 128, clock: 2.52e9, mma_cycles: 32. },
];

/// Images of a step: the paper's.
const BATCH: usize = 128;

/// Warps that a multiprocessor issues an instruction of in each cycle, at most; a matrix product's block has as many.
const SCHEDULERS: usize = 4;

/// The model's instructions a cycle and scheduler: loops with few warps wait for memory and for each other.
const ISSUED: f64 = 0.6;

/// The model's share of the memory's peak that kernels without products reach.
const STREAMED: f64 = 0.83;

/// The model's time between two kernels of a stream.
const LAUNCH: f64 = 2.5e-6;

/// Multiply-adds of one tensor-core instruction.
const MMA: usize = 16 * 8 * 16;

/// The counts of kernels/costs.txt.
pub struct Costs(Vec<Counts>);

/// A line of them.
struct Counts {
    precision: String,
    kernel: String,
    by_key: HashMap<String, String>,
}

impl Costs {
    /// Those of the program's own kernels.
    pub fn own() -> Costs {
        Costs::read(include_str!("../../kernels/costs.txt"))
    }

    fn read(text: &str) -> Costs {
        let line = |line: &str| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let (precision, kernel) = (words.next()?, words.next()?);
            let count = |word: String| word.split_once('=').map(|(key, value)| (key.into(), value.into()));
            Some(Counts { precision, kernel, by_key: words.filter_map(count).collect() })
        };
        Costs(text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect())
    }

    /// What is counted as `key` of a kernel in `precision`.
    fn get(&self, precision: &str, kernel: &str, key: &str) -> Option<f64> {
        self.0.iter().find(|counts| counts.precision == precision && counts.kernel == kernel)?.get(key)
    }

    /// The hottest loops as a table.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "The hottest loop of each matrix product, the most of sm_80, sm_90, sm_100 and sm_120, as counted in the\n\
             machine code of NVRTC 13.0: instructions for each tensor-core instruction (fp32: for each multiply-add), and\n\
             loads by their bits.\n\n",
        );
        for counts in &self.0 {
            let Counts { precision, kernel, by_key } = counts;
            if let Some((all, products)) = counts.get("instructions").zip(counts.get("products")) {
                let (each, loads) = (all / products, by_key.get("loads").map_or("", String::as_str));
                text += &format!("{precision:<5} {kernel:<22} {all:>5} for {products:>4}: {each:>5.2}  {loads}\n");
            }
        }
        text
    }
}

impl Counts {
    fn get(&self, key: &str) -> Option<f64> {
        self.by_key.get(key)?.parse().ok()
    }
}

impl Gpu {
    /// The least time, and whether multiply-adds or bytes take it.
    fn roofline(&self, work: &Work) -> (f64, &'static str) {
        let (computing, moving) = (work.macs as f64 / self.macs, work.bytes as f64 / self.bytes);
        if computing > moving { (computing, "adds") } else { (moving, "bytes") }
    }

    fn modelled(&self, kernel: &Kernel, costs: &Costs) -> f64 {
        let per_cycle = ISSUED * SCHEDULERS as f64;
        let streaming = |bytes: f64| bytes / (STREAMED * self.bytes);
        let Some(product) = kernel.product else {
            let executed = costs.get("bf16", &kernel.name, "executed").unwrap_or(0.);
            let warps = kernel.threads.div_ceil(32) as f64;
            let issuing = warps * executed / (per_cycle * self.multiprocessors as f64 * self.clock);
            return issuing.max(streaming(kernel.bytes as f64)) + LAUNCH;
        };
        let Division { tile: [rows, columns], tiles, parts, depth } = divide(product.sizes, product.tiles);
        let waves = (tiles[0] * tiles[1] * parts).div_ceil(self.multiprocessors);
        let count = |key: &str| costs.get("bf16", &kernel.name, key);
        let instructions = count("instructions").zip(count("products")).map(|(all, products)| all / products);
        let mmas = depth / DEPTH * (rows * columns * DEPTH / MMA / SCHEDULERS);
        // Without a count there is no time.
        let mma_cycles = instructions.map_or(f64::INFINITY, |count| (count / ISSUED).max(self.mma_cycles));
        let multiplying = (waves * mmas) as f64 * mma_cycles / self.clock;
        // Parts of sums are written, read and added by one more kernel.
        let sums = (size_of::<f32>() * product.sizes[0] * product.sizes[1]) as f64;
        let adding = if parts > 1 { streaming((2 * parts + 1) as f64 * sums) + LAUNCH } else { 0. };
        multiplying.max(streaming(kernel.bytes as f64)) + adding + LAUNCH
    }
}

/// The table of a step of both streams, and its sums.
pub fn table(costs: &Costs) -> Result<String> {
    let work = both_streams()?;
    let mut text = format!(
        "A training step of recipe paper: bf16, {BATCH} images, both streams on one GPU; times in us.\n\
         roofline: a lower bound that no kernel reaches: multiply-adds or bytes, whichever takes longer, at the peak of\n\
         an H100 SXM (989 TFLOP/s, 3.35 TB/s) or RTX 4090 (165 TFLOP/s, 1.01 TB/s).\n\
         model: these kernels, by the instructions of their loops; it has not been compared with a GPU.\n\n"
    );
    text += &format!("{:<8} {:<16} {:>8} {:>8}", "layer", "pass", "G adds", "MB");
    text += &GPUS.map(|gpu| format!(" | {:>9} {:>8} {:<5} {:>7}", gpu.name, "roofline", "", "model")).concat();
    text.push('\n');
    let mut sums = [[0.; 2]; GPUS.len()];
    for part in &work {
        let (adds, bytes) = (part.macs as f64 / 1e9, part.bytes as f64 / 1e6);
        text += &format!("{:<8} {:<16} {adds:>8.1} {bytes:>8.1}", part.layer, part.pass);
        for (gpu, sums) in GPUS.iter().zip(&mut sums) {
            let (least, by) = gpu.roofline(part);
            let model = part.kernels.iter().map(|kernel| gpu.modelled(kernel, costs)).sum::<f64>();
            *sums = [sums[0] + least, sums[1] + model];
            text += &format!(" | {:>9} {:>8.1} {by:<5} {:>7.1}", "", least * 1e6, model * 1e6);
        }
        text.push('\n');
    }
    text += &format!("{:<42}", "a step, ms");
    for [least, model] in sums {
        text += &format!(" | {:>9} {:>8.2} {:<5} {:>7.2}", "", least * 1e3, "", model * 1e3);
    }
    text.push('\n');
    Ok(text)
}

/// A step's work, the streams' parts of each layer and pass together.
fn both_streams() -> Result<Vec<Work>> {
    let recipe = Recipe::find("paper")?;
    let net = Net::from_options(&recipe.net)?;
    let pixels = net.image.iter().product();
    let mut all: Vec<Work> = Vec::new();
    for part in Plan::all(&net)?.into_iter().flat_map(|plan| step_work::step(&plan.fused(bf16::fuses), BATCH, pixels)) {
        match all.iter_mut().find(|work| work.layer == part.layer && work.pass == part.pass) {
            Some(work) => {
                work.macs += part.macs;
                work.bytes += part.bytes;
                work.kernels.extend(part.kernels);
            }
            None => all.push(part),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use crate::backend::cuda::bf16::FORWARD_TILES;

    use super::*;
    use crate::commands::step_work::Product;

    const H100: &Gpu = &GPUS[0];

    #[test]
    fn the_roofline_is_the_longer_of_two_peaks() {
        let work = |macs, bytes| Work { layer: String::new(), pass: "", macs, bytes, kernels: Vec::new() };
        // 494.5e12 multiply-adds a second, 3.35e12 bytes a second.
        assert_eq!(H100.roofline(&work(494_500_000, 3_349_999)), (1e-6, "adds"));
        assert_eq!(H100.roofline(&work(494_499_999, 3_350_000)), (1e-6, "bytes"));
    }

    #[test]
    fn the_model_counts_waves_and_instructions() {
        let product = Product { sizes: [128 * 169, 192, 1728], tiles: &FORWARD_TILES };
        let conv4 = Kernel { name: "conv_forward_96".into(), product: Some(product), threads: 0, bytes: 0 };
        let costs =
            Costs::read("# a comment\nbf16 conv_forward_96 registers=168 instructions=630 products=48 loads=LDS:24");
        // 169 x 2 tiles in 3 waves of 132, 54 stages of 48 tensor-core instructions a warp, 630 / 48 each at 0.6 a cycle.
        let time = H100.modelled(&conv4, &costs);
        assert!((time - (3. * 54. * 630. / 0.6 / 1.755e9 + LAUNCH)).abs() < 1e-9, "{time}");
        // Where instructions are few, the tensor core is what takes the time.
        let costs = Costs::read("bf16 conv_forward_96 instructions=48 products=48");
        let time = H100.modelled(&conv4, &costs);
        assert!((time - (3. * 54. * 48. * 6.35 / 1.755e9 + LAUNCH)).abs() < 1e-9, "{time}");
    }

    #[test]
    fn every_product_of_a_step_is_counted_and_no_kernel_is_faster_than_its_roofline() {
        let costs = Costs::own();
        for work in both_streams().unwrap() {
            for gpu in &GPUS {
                let model: f64 = work.kernels.iter().map(|kernel| gpu.modelled(kernel, &costs)).sum();
                let (least, _) = gpu.roofline(&work);
                assert!(
                    model >= least && model.is_finite(),
                    "{work:?}: {model} s by the model, {least} s at least on {}",
                    gpu.name
                );
            }
        }
    }
}
