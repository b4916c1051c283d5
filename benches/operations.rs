//! Each operation of one stream of the paper's network alone, on one thread: milliseconds and GFLOP/s by the count of
//! direct convolution. `cargo bench --bench operations [-- FILTER [bf16]]`; with `small` as the filter, the shapes that
//! the tests use besides.
#![allow(missing_docs)]

#[allow(dead_code)] // the tests use more of it
#[path = "../tests/support/cases.rs"]
mod cases;

use std::time::Instant;

use alexnet_split::backend::cpu::CpuBackend;
use alexnet_split::backend::{Backend, Precision};
use alexnet_split::net::plan::Op;
use alexnet_split::rng::{Philox, Purpose};

/// Images in the batch, and runs of which the median counts.
const IMAGES: usize = 32;
const RUNS: usize = 5;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let filter = args.first().cloned().unwrap_or_default();
    let precision = if args.iter().any(|arg| arg == "bf16") { Precision::Bf16 } else { Precision::Fp32 };
    let backend = CpuBackend::for_streams(1, 1, precision).expect("a CPU that can").remove(0);
    let cases = if filter == "small" { cases::small() } else { cases::of_the_paper() };
    let cores = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    println!("{:<28} {:>9} {:>9}", "batch 32, one thread", "ms", "GFLOP/s");
    for case in cases.iter().filter(|case| filter == "small" || case.name.contains(&filter)) {
        let random = |elems: usize| {
            let rng = Philox::new(1, Purpose::Check, 0);
            (0..elems as u32).map(|i| rng.normal([i, 0, 0, 0]) as f32).collect::<Vec<f32>>()
        };
        let run = |what: &str, flops: f64, mut work: Box<dyn FnMut() + Send + '_>| {
            let mut ms: Vec<f64> = (0..=RUNS)
                .map(|_| {
                    let start = Instant::now();
                    cores.install(&mut work);
                    start.elapsed().as_secs_f64() * 1e3
                })
                .collect();
            ms.remove(0);
            ms.sort_by(f64::total_cmp);
            let rate = if flops > 0. { format!("{:.0}", flops / ms[RUNS / 2] / 1e6) } else { String::new() };
            println!("{:<28} {:>9.2} {rate:>9}", format!("{} {what}", case.name), ms[RUNS / 2]);
        };
        let n = IMAGES;
        match &case.op {
            Op::Conv(s) => {
                let (ins, outs, weights) = (n * s.c * s.h * s.w, n * s.k * s.p * s.q, s.k * s.c * s.r * s.s);
                let [x, dy, w] = [ins, outs, weights].map(random);
                let (mut y, mut dx, mut dw) = (vec![0.; outs], vec![0.; ins], vec![0.; weights]);
                let flops = 2. * (outs * s.c * s.r * s.s) as f64;
                run("forward", flops, Box::new(|| backend.conv_forward(s, n, &x, &w, None, &mut y).unwrap()));
                run("backward input", flops, Box::new(|| backend.conv_backward_input(s, n, &dy, &w, &mut dx).unwrap()));
                run(
                    "backward weight",
                    flops,
                    Box::new(|| backend.conv_backward_weight(s, n, &x, &dy, &mut dw).unwrap()),
                );
            }
            Op::Dense(s) => {
                let [x, dy, w] = [n * s.inputs, n * s.outputs, s.inputs * s.outputs].map(random);
                let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
                let flops = 2. * (n * s.inputs * s.outputs) as f64;
                run("forward", flops, Box::new(|| backend.dense_forward(s, n, &x, &w, None, &mut y).unwrap()));
                run(
                    "backward input",
                    flops,
                    Box::new(|| backend.dense_backward_input(s, n, &dy, &w, &mut dx).unwrap()),
                );
                run(
                    "backward weight",
                    flops,
                    Box::new(|| backend.dense_backward_weight(s, n, &x, &dy, &mut dw).unwrap()),
                );
            }
            Op::Lrn(s) => {
                let [x, dy] = [n * s.c * s.pixels; 2].map(random);
                let (mut y, mut dx) = (x.clone(), x.clone());
                run("forward", 0., Box::new(|| backend.lrn_forward(s, n, &x, &mut y).unwrap()));
                run("backward", 0., Box::new(|| backend.lrn_backward(s, n, &x, &dy, &mut dx).unwrap()));
            }
            Op::SpatialLrn(s) => {
                let [x, dy] = [n * s.norm.c * s.norm.pixels; 2].map(random);
                let (mut y, mut dx) = (x.clone(), x.clone());
                run("forward", 0., Box::new(|| backend.spatial_lrn_forward(s, n, &x, &mut y).unwrap()));
                run("backward", 0., Box::new(|| backend.spatial_lrn_backward(s, n, &x, &dy, &mut dx).unwrap()));
            }
            Op::MaxPool(s) => {
                let [x, dy] = [n * s.c * s.h * s.w, n * s.c * s.p * s.q].map(random);
                let (mut y, mut dx) = (dy.clone(), x.clone());
                run("forward", 0., Box::new(|| backend.max_pool_forward(s, n, &x, &mut y).unwrap()));
                backend.max_pool_forward(s, n, &x, &mut y).unwrap();
                run("backward", 0., Box::new(|| backend.max_pool_backward(s, n, &x, &y, &dy, &mut dx).unwrap()));
            }
            Op::AvgPool(s) => {
                let [x, dy] = [n * s.c * s.h * s.w, n * s.c * s.p * s.q].map(random);
                let (mut y, mut dx) = (dy.clone(), x.clone());
                run("forward", 0., Box::new(|| backend.avg_pool_forward(s, n, &x, &mut y).unwrap()));
                run("backward", 0., Box::new(|| backend.avg_pool_backward(s, n, &dy, &mut dx).unwrap()));
            }
            Op::ReluLrnMaxPool(lrn, pool) => {
                let [mut x, dy] = [n * pool.c * pool.h * pool.w, n * pool.c * pool.p * pool.q].map(random);
                let mut y = dy.clone();
                run("forward", 0., Box::new(|| backend.relu_lrn_max_pool_forward(lrn, pool, n, &x, &mut y).unwrap()));
                let backward = || backend.relu_lrn_max_pool_backward(lrn, pool, n, &mut x, &y, &dy).unwrap();
                run("backward", 0., Box::new(backward));
            }
            _ => {}
        }
    }
}
