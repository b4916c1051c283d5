//! The exchange's self-test before training: values both ways, bandwidth and latency.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Exchange, Swap, Transfer};
use crate::backend::Backend;
use crate::error::{Error, GpuTrouble, Result};
use crate::net::swap::Pass;

/// Values of a small and of a large swap: fc8's logits, and the bytes of conv3's input in bf16 at batch 128.
const SIZES: [usize; 2] = [256, 128 * 128 * 13 * 13 / 2];

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

/// What one end of the self-test gives and takes. It comes in three parts, each for all ends before the next: memory is
/// allocated, and read, only while no exchange waits for the other stream.
pub struct Trial<B: Backend> {
    stream: usize,
    /// By size and round.
    swaps: Vec<(Swap, B::Buffer, B::Buffer)>,
    transfers: Vec<Transfer<B>>,
}

impl<B: Backend> Trial<B> {
    /// Allocates, and fills with values that the other end can check.
    pub fn new(backend: &B, stream: usize) -> Result<Trial<B>> {
        let mut swaps = Vec::new();
        for elems in SIZES {
            for round in 0..ROUNDS {
                let (mut give, take) = (backend.alloc(elems)?, backend.alloc(elems)?);
                backend.write(&(0..elems).map(|i| value(stream, round, i)).collect::<Vec<_>>(), elems, &mut give)?;
                let (layer, pass, step) = (Arc::from("self-test"), Pass::Forward, Some(round));
                let bytes = backend.bytes(elems);
                swaps.push((Swap { layer, pass, step, elems, bytes }, give, take));
            }
        }
        Ok(Trial { stream, swaps, transfers: Vec::new() })
    }

    /// Swaps; both ends call it at once.
    pub fn swap(&mut self, backend: &B, exchange: &mut dyn Exchange<B>) -> Result<()> {
        for (swap, give, take) in &mut self.swaps {
            exchange.start_swap(backend, swap, Some(give), Some(take))?;
            self.transfers.push(exchange.finish_swap(backend, swap, Some(take))?);
        }
        Ok(())
    }

    /// Fails where values did not come, or came wrong.
    pub fn check(&self, backend: &B) -> Result<SelfTest> {
        let mut fastest = [Duration::MAX; 2];
        for ((swap, _, take), (started, done)) in self.swaps.iter().zip(&self.transfers) {
            let (elems, round, theirs) = (swap.elems, swap.step.unwrap_or(0), 1 - self.stream);
            let found = backend.read(take, elems)?;
            if let Some(index) = (0..elems).find(|&i| found[i] != value(theirs, round, i)) {
                let text = format!(
                    "stream {}: the exchange's self-test found {} where the other stream sent {} (value {index} of {elems}): the GPUs \
                     do not reach each other rightly; try NCCL_P2P_DISABLE=1",
                    self.stream,
                    found[index],
                    value(theirs, round, index)
                );
                return Err(Error::gpu(GpuTrouble::Exchange, text));
            }
            let fastest = &mut fastest[usize::from(elems == SIZES[1])];
            *fastest = backend.elapsed(started, done)?.min(*fastest);
        }
        let bytes = (SIZES[1] * size_of::<f32>()) as f64;
        Ok(SelfTest { latency: fastest[0], bytes_per_s: bytes / fastest[1].as_secs_f64().max(1e-9) })
    }
}

fn value(stream: usize, round: u64, index: usize) -> f32 {
    (index % 8191 * 8 + round as usize * 2 + stream) as f32
}
