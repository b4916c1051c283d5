//! The exchange's self-test before training: values both ways, bandwidth and latency.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Exchange, Swap};
use crate::backend::Backend;
use crate::error::{Error, GpuTrouble, Result};
use crate::net::swap::Pass;

/// Values of a small and of a large swap: fc8's logits, and conv3's input at batch 128.
const SIZES: [usize; 2] = [256, 128 * 128 * 13 * 13];

/// Swaps of each size; the fastest counts.
const ROUNDS: u64 = 4;

/// The result of the self-test at one end.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SelfTest {
    /// Time of a swap of a few values.
    pub latency: Duration,
    /// Bytes per second each way in a large one.
    pub bytes_per_s: f64,
}

impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency_us = self.latency.as_secs_f64() * 1e6;
        write!(f, "{:.1} GB/s each way, {latency_us:.0} us at least", self.bytes_per_s / 1e9)
    }
}

/// Swaps values that each end can check; both ends call it.
///
/// Fails where they do not come, or come wrong.
pub fn self_test<B: Backend>(backend: &B, exchange: &mut dyn Exchange<B>, stream: usize) -> Result<SelfTest> {
    let value = |stream: usize, round: u64, index: usize| (index % 8191 * 8 + round as usize * 2 + stream) as f32;
    let mut fastest = [Duration::MAX; 2];
    for (elems, fastest) in SIZES.into_iter().zip(&mut fastest) {
        let (mut give, mut take) = (backend.alloc(elems)?, backend.alloc(elems)?);
        for round in 0..ROUNDS {
            let swap = Swap { layer: Arc::from("self-test"), pass: Pass::Forward, step: Some(round), elems };
            backend.write(&(0..elems).map(|i| value(stream, round, i)).collect::<Vec<_>>(), &mut give)?;
            exchange.start_swap(backend, &swap, Some(&give), Some(&mut take))?;
            let (started, done) = exchange.finish_swap(backend, &swap, Some(&mut take))?;
            let found = backend.read(&take, elems)?;
            if let Some(index) = (0..elems).find(|&i| found[i] != value(1 - stream, round, i)) {
                let text = format!(
                    "stream {stream}: the exchange's self-test found {} where the other stream sent {} (value {index} of {elems}): the GPUs \
                     do not reach each other rightly; try NCCL_P2P_DISABLE=1",
                    found[index],
                    value(1 - stream, round, index)
                );
                return Err(Error::gpu(GpuTrouble::Exchange, text));
            }
            *fastest = backend.elapsed(&started, &done)?.min(*fastest);
        }
    }
    let bytes = (SIZES[1] * size_of::<f32>()) as f64;
    Ok(SelfTest { latency: fastest[0], bytes_per_s: bytes / fastest[1].as_secs_f64().max(1e-9) })
}
