//! The CPU: operations parallel over the rayon pool that they are called in.
//!
//! Work is cut at points that depend on shapes alone and sums have a fixed order, so the same bits come out for any
//! number of threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alexnet_split_cpu::simd::{self, Level};
use alexnet_split_cpu::{augment, conv, dense, lrn, pointwise, pool, relu_lrn_max_pool, softmax, spatial_lrn, update};

use super::*;
use crate::error::Error;

/// The CPU backend of one stream. Clones share the permit only.
#[derive(Clone, Debug, Default)]
pub struct CpuBackend {
    precision: Precision,
    /// Held during each operation where two streams share a single core (`--threads 1`).
    permit: Option<Arc<Mutex<()>>>,
    /// Whether operations are those of the [`reference`](mod@super::reference).
    is_reference: bool,
}

impl CpuBackend {
    /// The backends of `streams` streams on `threads` threads. With fewer threads than streams the streams take turns.
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
        Ok(vec![CpuBackend { precision, permit, is_reference: false }; streams])
    }

    /// The same, but its operations are those of the [`reference`](mod@super::reference), in fp32.
    pub fn as_reference(self) -> CpuBackend {
        CpuBackend { is_reference: true, precision: Precision::Fp32, ..self }
    }

    fn core(&self) -> Option<MutexGuard<'_, ()>> {
        // The mutex guards no data, so a panic elsewhere leaves nothing broken behind it.
        self.permit.as_ref().map(|permit| permit.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Operations of the CPU's crate, each on this stream's core: a signature of the trait without `&self` and its result,
/// and the call; in the [`reference`](mod@super::reference) each has its own name and the same arguments.
macro_rules! operations {
    ($me:ident => $(fn $name:ident($($arg:ident: $kind:ty),*) => $call:expr;)*) => {
        $(fn $name(&$me, $($arg: $kind),*) -> Result<()> {
            let _core = $me.core();
            if $me.is_reference {
                reference::$name($($arg),*);
            } else {
                $call;
            }
            Ok(())
        })*
    };
}

/// The instructions that compute in a precision: tiles multiply bf16 alone.
pub fn level(precision: Precision) -> Level {
    match Level::chosen() {
        Level::Amx if precision != Precision::Bf16 => Level::Avx512,
        level => level,
    }
}

impl Backend for CpuBackend {
    type Buffer = Vec<f32>;
    type Mark = Instant;
    type Read = Vec<f32>;
    const QUEUES: bool = false;

    fn instructions(&self) -> String {
        if self.is_reference { "reference".into() } else { level(self.precision).name().into() }
    }

    fn alloc(&self, shape: impl Into<TensorShape>) -> Result<Vec<f32>> {
        let elems = shape.into().elems();
        // An allocation that fails would abort the process: whether it can be made is asked first.
        let mut asked = Vec::<f32>::new();
        if asked.try_reserve_exact(elems).is_err() {
            let gib = (elems * size_of::<f32>()) as f64 / f64::from(1 << 30);
            let text = format!("out of memory: {gib:.1} GiB more needed; use a smaller --batch-size or network");
            return Err(Error::Device(text));
        }
        drop(asked);
        Ok(vec![0.; elems])
    }

    fn write(&self, host: &[f32], _: impl Into<TensorShape>, to: &mut Vec<f32>) -> Result<()> {
        to[..host.len()].copy_from_slice(host);
        Ok(())
    }

    fn start_read(&self, from: &Vec<f32>, shape: impl Into<TensorShape>) -> Result<Vec<f32>> {
        Ok(from[..shape.into().elems()].to_vec())
    }

    fn finish_read(&self, read: Vec<f32>) -> Result<Vec<f32>> {
        Ok(read)
    }

    fn fill_zero(&self, shape: impl Into<TensorShape>, to: &mut Vec<f32>) -> Result<()> {
        to[..shape.into().elems()].fill(0.);
        Ok(())
    }

    fn mark(&self) -> Result<Instant> {
        Ok(Instant::now())
    }

    fn elapsed(&self, from: &Instant, to: &Instant) -> Result<Duration> {
        Ok(to.duration_since(*from))
    }

    fn fuses(&self, lrn: &LrnShape, pool: &PoolShape) -> bool {
        relu_lrn_max_pool::applies(lrn, pool)
    }

    fn augment(
        &self,
        shape: &AugmentShape,
        pixels: &[u8],
        windows: &[Window],
        mean: &Vec<f32>,
        _: impl Into<TensorShape>,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        let _core = self.core();
        match self.is_reference {
            true => reference::augment(shape, pixels, windows, mean, y),
            false => augment::augment(shape, pixels, windows, mean, y),
        }
        Ok(())
    }

    operations! {
        self =>
        fn conv_forward(
            shape: &ConvShape, n: usize, x: &Vec<f32>, w: &Vec<f32>, bias: Option<&Vec<f32>>, y: &mut Vec<f32>
        ) =>
            conv::conv_forward(self.precision, shape, n, x, w, bias.map(Vec::as_slice), y);
        fn conv_backward_input(shape: &ConvShape, n: usize, dy: &Vec<f32>, w: &Vec<f32>, dx: &mut Vec<f32>) =>
            conv::conv_backward_input(self.precision, shape, n, dy, w, dx);
        fn conv_backward_weight(shape: &ConvShape, n: usize, x: &Vec<f32>, dy: &Vec<f32>, dw: &mut Vec<f32>) =>
            conv::conv_backward_weight(self.precision, shape, n, x, dy, dw);
        fn conv_backward_bias(shape: &ConvShape, n: usize, dy: &Vec<f32>, dbias: &mut Vec<f32>) =>
            conv::conv_backward_bias(shape, n, dy, dbias);
        fn dense_forward(
            shape: &DenseShape, n: usize, x: &Vec<f32>, w: &Vec<f32>, bias: Option<&Vec<f32>>, y: &mut Vec<f32>
        ) =>
            dense::dense_forward(self.precision, shape, n, x, w, bias.map(Vec::as_slice), y);
        fn dense_backward_input(shape: &DenseShape, n: usize, dy: &Vec<f32>, w: &Vec<f32>, dx: &mut Vec<f32>) =>
            dense::dense_backward_input(self.precision, shape, n, dy, w, dx);
        fn dense_backward_weight(shape: &DenseShape, n: usize, x: &Vec<f32>, dy: &Vec<f32>, dw: &mut Vec<f32>) =>
            dense::dense_backward_weight(self.precision, shape, n, x, dy, dw);
        fn dense_backward_weight_update(
            shape: &DenseShape, n: usize, x: &Vec<f32>, dy: &Vec<f32>, update: &Update, w: &mut Vec<f32>,
            state: &mut [Vec<f32>]
        ) =>
            dense::dense_backward_weight_update(self.precision, shape, n, x, dy, update, w, state);
        fn dense_backward_bias(shape: &DenseShape, n: usize, dy: &Vec<f32>, dbias: &mut Vec<f32>) =>
            dense::dense_backward_bias(shape, n, dy, dbias);
        fn activation_forward(kind: Activation, shape: impl Into<TensorShape>, y: &mut Vec<f32>) =>
            pointwise::activation_forward(kind, &mut y[..shape.into().elems()]);
        fn activation_backward(kind: Activation, shape: impl Into<TensorShape>, y: &Vec<f32>, dy: &mut Vec<f32>) =>
            pointwise::activation_backward(kind, y, &mut dy[..shape.into().elems()]);
        fn lrn_forward(shape: &LrnShape, n: usize, x: &Vec<f32>, y: &mut Vec<f32>) =>
            lrn::lrn_forward(shape, n, x, y);
        fn lrn_backward(shape: &LrnShape, n: usize, x: &Vec<f32>, dy: &Vec<f32>, dx: &mut Vec<f32>) =>
            lrn::lrn_backward(shape, n, x, dy, dx);
        fn spatial_lrn_forward(shape: &SpatialLrnShape, n: usize, x: &Vec<f32>, y: &mut Vec<f32>) =>
            spatial_lrn::spatial_lrn_forward(shape, n, x, y);
        fn spatial_lrn_backward(
            shape: &SpatialLrnShape, n: usize, x: &Vec<f32>, dy: &Vec<f32>, dx: &mut Vec<f32>
        ) =>
            spatial_lrn::spatial_lrn_backward(shape, n, x, dy, dx);
        fn max_pool_forward(shape: &PoolShape, n: usize, x: &Vec<f32>, y: &mut Vec<f32>) =>
            pool::max_pool_forward(shape, n, x, y);
        fn max_pool_backward(
            shape: &PoolShape, n: usize, x: &Vec<f32>, y: &Vec<f32>, dy: &Vec<f32>, dx: &mut Vec<f32>
        ) =>
            pool::max_pool_backward(shape, n, x, y, dy, dx);
        fn avg_pool_forward(shape: &PoolShape, n: usize, x: &Vec<f32>, y: &mut Vec<f32>) =>
            pool::avg_pool_forward(shape, n, x, y);
        fn avg_pool_backward(shape: &PoolShape, n: usize, dy: &Vec<f32>, dx: &mut Vec<f32>) =>
            pool::avg_pool_backward(shape, n, dy, dx);
        fn relu_lrn_max_pool_forward(lrn: &LrnShape, pool: &PoolShape, n: usize, x: &Vec<f32>, y: &mut Vec<f32>) =>
            relu_lrn_max_pool::relu_lrn_max_pool_forward(lrn, pool, n, x, y);
        fn relu_lrn_max_pool_backward(
            lrn: &LrnShape, pool: &PoolShape, n: usize, x: &mut Vec<f32>, y: &Vec<f32>, dy: &Vec<f32>
        ) =>
            relu_lrn_max_pool::relu_lrn_max_pool_backward(lrn, pool, n, x, y, dy);
        fn dropout_forward(shape: &DropoutShape, n: usize, draw: &DropoutDraw, x: &Vec<f32>, y: &mut Vec<f32>) =>
            pointwise::dropout_forward(shape, n, draw, x, y);
        fn dropout_backward(shape: &DropoutShape, n: usize, draw: &DropoutDraw, dy: &mut Vec<f32>) =>
            pointwise::dropout_backward(shape, n, draw, dy);
        fn softmax_stats(shape: &SoftmaxShape, n: usize, logits: &Vec<f32>, labels: &[u32], stats: &mut Vec<f32>) =>
            softmax::softmax_stats(shape, n, logits, labels, stats);
        fn softmax_cross_entropy(
            shape: &SoftmaxShape, n: usize, logits: &Vec<f32>, labels: &[u32], ours: &Vec<f32>,
            theirs: Option<&Vec<f32>>, dlogits: &mut Vec<f32>, scores: &mut Vec<f32>
        ) =>
            softmax::softmax_cross_entropy(shape, n, logits, labels, ours, theirs.map(Vec::as_slice), dlogits, scores);
        fn add(shape: impl Into<TensorShape>, x: &Vec<f32>, y: &mut Vec<f32>) =>
            pointwise::add(x, &mut y[..shape.into().elems()]);
        fn update(
            update: &Update, shape: impl Into<TensorShape>, dw: &Vec<f32>, w: &mut Vec<f32>, state: &mut [Vec<f32>]
        ) =>
            update::update(update, dw, &mut w[..shape.into().elems()], state);
    }
}
