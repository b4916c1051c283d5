//! The CPU: operations parallel over the rayon pool that they are called in.
//!
//! Work is cut at points that depend on shapes alone and sums have a fixed order, so the same bits come out for any
//! number of threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alexnet_split_cpu::{augment, conv, dense, lrn, pointwise, pool, relu_lrn_max_pool, simd, softmax, update};

use super::*;
use crate::error::Error;

/// One stream's CPU. Cloning shares nothing but the permit.
#[derive(Clone, Debug, Default)]
pub struct CpuBackend {
    precision: Precision,
    /// Held during each operation where two streams share a single core (`--threads 1`).
    permit: Option<Arc<Mutex<()>>>,
}

impl CpuBackend {
    /// Backends for `streams` streams on `threads` threads. With fewer threads than streams they take turns.
    ///
    /// Fails where the processor cannot multiply in that precision, or lacks the instructions that the environment asks
    /// for ([`simd::LEVEL`]).
    pub fn for_streams(streams: usize, threads: usize, precision: Precision) -> Result<Vec<CpuBackend>> {
        let problem = match precision {
            Precision::Fp32 => None,
            Precision::Bf16 if simd::has_bf16() => None,
            Precision::Bf16 => Some("bf16 on the CPU needs AVX512_BF16, which this one lacks"),
            Precision::Tf32 => Some("tf32 is for GPUs"),
        };
        if let Some(problem) = problem {
            return Err(Error::Device(format!("--precision: {problem}; use fp32, or a GPU")));
        }
        if let Some(problem) = simd::problem() {
            return Err(Error::Device(problem));
        }
        let permit = (threads < streams).then(|| Arc::new(Mutex::new(())));
        Ok(vec![CpuBackend { precision, permit }; streams])
    }

    fn core(&self) -> Option<MutexGuard<'_, ()>> {
        // The mutex guards no data, so a panic elsewhere leaves nothing broken behind it.
        self.permit.as_ref().map(|permit| permit.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Backend for CpuBackend {
    type Buffer = Vec<f32>;
    type Mark = Instant;
    type Read = Vec<f32>;
    const QUEUES: bool = false;

    fn instructions(&self) -> String {
        simd::Level::chosen().name().into()
    }

    fn alloc(&self, elems: usize) -> Result<Vec<f32>> {
        Ok(vec![0.; elems])
    }

    fn write(&self, host: &[f32], to: &mut Vec<f32>) -> Result<()> {
        to[..host.len()].copy_from_slice(host);
        Ok(())
    }

    fn start_read(&self, from: &Vec<f32>, elems: usize) -> Result<Vec<f32>> {
        Ok(from[..elems].to_vec())
    }

    fn finish_read(&self, read: Vec<f32>) -> Result<Vec<f32>> {
        Ok(read)
    }

    fn fill_zero(&self, elems: usize, to: &mut Vec<f32>) -> Result<()> {
        to[..elems].fill(0.);
        Ok(())
    }

    fn mark(&self) -> Result<Instant> {
        Ok(Instant::now())
    }

    fn elapsed(&self, from: &Instant, to: &Instant) -> Result<Duration> {
        Ok(to.duration_since(*from))
    }

    fn augment(
        &self,
        shape: &AugmentShape,
        pixels: &[u8],
        windows: &[Window],
        mean: &Vec<f32>,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        augment::augment(shape, pixels, windows, mean, y);
        Ok(())
    }

    fn conv_forward(
        &self,
        shape: &ConvShape,
        n: usize,
        x: &Vec<f32>,
        w: &Vec<f32>,
        bias: Option<&Vec<f32>>,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        conv::conv_forward(self.precision, shape, n, x, w, bias.map(Vec::as_slice), y);
        Ok(())
    }

    fn conv_backward_input(
        &self,
        shape: &ConvShape,
        n: usize,
        dy: &Vec<f32>,
        w: &Vec<f32>,
        dx: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        conv::conv_backward_input(self.precision, shape, n, dy, w, dx);
        Ok(())
    }

    fn conv_backward_weight(
        &self,
        shape: &ConvShape,
        n: usize,
        x: &Vec<f32>,
        dy: &Vec<f32>,
        dw: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        conv::conv_backward_weight(self.precision, shape, n, x, dy, dw);
        Ok(())
    }

    fn conv_backward_bias(&self, shape: &ConvShape, n: usize, dy: &Vec<f32>, dbias: &mut Vec<f32>) -> Result<()> {
        let _core = self.core();
        conv::conv_backward_bias(shape, n, dy, dbias);
        Ok(())
    }

    fn dense_forward(
        &self,
        shape: &DenseShape,
        n: usize,
        x: &Vec<f32>,
        w: &Vec<f32>,
        bias: Option<&Vec<f32>>,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        dense::dense_forward(self.precision, shape, n, x, w, bias.map(Vec::as_slice), y);
        Ok(())
    }

    fn dense_backward_input(
        &self,
        shape: &DenseShape,
        n: usize,
        dy: &Vec<f32>,
        w: &Vec<f32>,
        dx: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        dense::dense_backward_input(self.precision, shape, n, dy, w, dx);
        Ok(())
    }

    fn dense_backward_weight(
        &self,
        shape: &DenseShape,
        n: usize,
        x: &Vec<f32>,
        dy: &Vec<f32>,
        dw: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        dense::dense_backward_weight(self.precision, shape, n, x, dy, dw);
        Ok(())
    }

    fn dense_backward_weight_update(
        &self,
        shape: &DenseShape,
        n: usize,
        x: &Vec<f32>,
        dy: &Vec<f32>,
        update: &Update,
        w: &mut Vec<f32>,
        state: &mut [Vec<f32>],
    ) -> Result<()> {
        let _core = self.core();
        dense::dense_backward_weight_update(self.precision, shape, n, x, dy, update, w, state);
        Ok(())
    }

    fn dense_backward_bias(&self, shape: &DenseShape, n: usize, dy: &Vec<f32>, dbias: &mut Vec<f32>) -> Result<()> {
        let _core = self.core();
        dense::dense_backward_bias(shape, n, dy, dbias);
        Ok(())
    }

    fn activation_forward(&self, kind: Activation, elems: usize, y: &mut Vec<f32>) -> Result<()> {
        let _core = self.core();
        pointwise::activation_forward(kind, &mut y[..elems]);
        Ok(())
    }

    fn activation_backward(&self, kind: Activation, elems: usize, y: &Vec<f32>, dy: &mut Vec<f32>) -> Result<()> {
        let _core = self.core();
        pointwise::activation_backward(kind, &y[..elems], &mut dy[..elems]);
        Ok(())
    }

    fn lrn_forward(&self, shape: &LrnShape, n: usize, x: &Vec<f32>, y: &mut Vec<f32>) -> Result<()> {
        let _core = self.core();
        lrn::lrn_forward(shape, n, x, y);
        Ok(())
    }

    fn lrn_backward(&self, shape: &LrnShape, n: usize, x: &Vec<f32>, dy: &Vec<f32>, dx: &mut Vec<f32>) -> Result<()> {
        let _core = self.core();
        lrn::lrn_backward(shape, n, x, dy, dx);
        Ok(())
    }

    fn max_pool_forward(&self, shape: &PoolShape, n: usize, x: &Vec<f32>, y: &mut Vec<f32>) -> Result<()> {
        let _core = self.core();
        pool::max_pool_forward(shape, n, x, y);
        Ok(())
    }

    fn max_pool_backward(
        &self,
        shape: &PoolShape,
        n: usize,
        x: &Vec<f32>,
        y: &Vec<f32>,
        dy: &Vec<f32>,
        dx: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        pool::max_pool_backward(shape, n, x, y, dy, dx);
        Ok(())
    }

    fn fuses(lrn: &LrnShape, pool: &PoolShape) -> bool {
        relu_lrn_max_pool::applies(lrn, pool)
    }

    fn relu_lrn_max_pool_forward(
        &self,
        lrn: &LrnShape,
        pool: &PoolShape,
        n: usize,
        x: &Vec<f32>,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        relu_lrn_max_pool::relu_lrn_max_pool_forward(lrn, pool, n, x, y);
        Ok(())
    }

    fn relu_lrn_max_pool_backward(
        &self,
        lrn: &LrnShape,
        pool: &PoolShape,
        n: usize,
        x: &mut Vec<f32>,
        y: &Vec<f32>,
        dy: &Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        relu_lrn_max_pool::relu_lrn_max_pool_backward(lrn, pool, n, x, y, dy);
        Ok(())
    }

    fn dropout_forward(
        &self,
        shape: &DropoutShape,
        n: usize,
        draw: &DropoutDraw,
        x: &Vec<f32>,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        pointwise::dropout_forward(shape, n, draw, x, y);
        Ok(())
    }

    fn dropout_backward(&self, shape: &DropoutShape, n: usize, draw: &DropoutDraw, dy: &mut Vec<f32>) -> Result<()> {
        let _core = self.core();
        pointwise::dropout_backward(shape, n, draw, dy);
        Ok(())
    }

    fn softmax_stats(
        &self,
        shape: &SoftmaxShape,
        n: usize,
        logits: &Vec<f32>,
        labels: &[u32],
        stats: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        softmax::softmax_stats(shape, n, logits, labels, stats);
        Ok(())
    }

    fn softmax_cross_entropy(
        &self,
        shape: &SoftmaxShape,
        n: usize,
        logits: &Vec<f32>,
        labels: &[u32],
        ours: &Vec<f32>,
        theirs: Option<&Vec<f32>>,
        dlogits: &mut Vec<f32>,
        scores: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        softmax::softmax_cross_entropy(shape, n, logits, labels, ours, theirs.map(Vec::as_slice), dlogits, scores);
        Ok(())
    }

    fn add(&self, elems: usize, x: &Vec<f32>, y: &mut Vec<f32>) -> Result<()> {
        let _core = self.core();
        pointwise::add(&x[..elems], &mut y[..elems]);
        Ok(())
    }

    fn update(
        &self,
        update: &Update,
        elems: usize,
        dw: &Vec<f32>,
        w: &mut Vec<f32>,
        state: &mut [Vec<f32>],
    ) -> Result<()> {
        let _core = self.core();
        update::update(update, &dw[..elems], &mut w[..elems], state);
        Ok(())
    }
}
