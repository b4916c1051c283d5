//! The machine's peaks: the figures that speeds are compared with.

#![allow(clippy::needless_range_loop)] // see the loop's own comment

use std::hint::black_box;
use std::marker::PhantomData;
use std::time::Instant;

use pulp::{Simd, WithSimd};

#[cfg(target_arch = "x86_64")]
use super::bf16::Bf16;
use super::operands::{Fp32, Operands};
#[cfg(target_arch = "x86_64")]
use super::tiles::{self, Amx, Unit};
use crate::shapes::Precision;
use crate::simd;

/// Measures the multiply-add rate of `threads` threads in GFLOP/s (a multiply-add counts as two): the best of several
/// short runs of independent register-only chains.
///
/// Panics where the CPU cannot multiply in that precision.
pub fn measure_peak_gflops(threads: usize, precision: Precision) -> f64 {
    let chains = || match precision {
        #[cfg(target_arch = "x86_64")]
        Precision::Bf16 if Bf16::in_tiles() => tile_chains(),
        #[cfg(target_arch = "x86_64")]
        Precision::Bf16 => Bf16::dispatch(Chains::<Bf16>(PhantomData)),
        _ => Fp32::dispatch(Chains::<Fp32>(PhantomData)),
    };
    let run = || {
        let start = Instant::now();
        let flops: f64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(chains)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or(0.)).sum()
        });
        flops / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| run()).fold(0., f64::max)
}

/// Measures how fast `threads` threads change memory that no cache holds in place, in GB/s, bytes read and bytes
/// written both counted.
pub fn measure_peak_gb_per_s(threads: usize) -> f64 {
    const ELEMS: usize = 1 << 25;
    let mut memory: Vec<_> = (0..threads).map(|_| vec![1f32; ELEMS]).collect();
    let mut run = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for values in &mut memory {
                scope.spawn(|| simd::dispatch(|| black_box(values).iter_mut().for_each(|v| *v *= 0.5)));
            }
        });
        (2 * threads * ELEMS * size_of::<f32>()) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| run()).fold(0., f64::max)
}

/// Four tiles of sums, as in the products. (Operands are 0: the rate does not depend on them.)
#[cfg(target_arch = "x86_64")]
fn tile_chains() -> f64 {
    const STEPS: usize = 1_000_000;
    let unit = &mut Amx;
    unit.shape(tiles::SIDE, tiles::SIDE);
    unit.zero::<4>();
    unit.zero::<5>();
    unit.zero::<6>();
    unit.zero::<7>();
    for _ in 0..STEPS {
        unit.multiply_add::<0, 4, 6>();
        unit.multiply_add::<2, 5, 6>();
        unit.multiply_add::<1, 4, 7>();
        unit.multiply_add::<3, 5, 7>();
    }
    (STEPS * 4 * 2 * 2 * tiles::SIDE.pow(3)) as f64
}

/// Twelve chains of dependent multiply-adds: enough to fill two pipes of four to six cycles' latency.
struct Chains<F>(PhantomData<F>);

impl<F: Operands> WithSimd for Chains<F> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        const CHAINS: usize = 12;
        const STEPS: usize = 4_000_000;
        let factor = simd.splat_f32s(black_box(0.999_999));
        let term = simd.splat_f32s(black_box(1e-6));
        let mut chains = [simd.splat_f32s(black_box(1.)); CHAINS];
        for _ in 0..STEPS {
            // By index, and used through a sum alone: an array whose address is taken stays in memory, and with a store and
            // a load between two multiply-adds AVX2 reaches 60% of its rate.
            for i in 0..CHAINS {
                chains[i] = F::multiply_add(simd, factor, term, chains[i]);
            }
        }
        let mut sum = chains[0];
        for i in 1..CHAINS {
            sum = simd.add_f32s(sum, chains[i]);
        }
        black_box(simd.reduce_sum_f32s(sum));
        (2 * CHAINS * STEPS * S::F32_LANES * F::DEPTHS) as f64
    }
}
