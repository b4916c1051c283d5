//! Filters to the N x N matrices of their values at the points, and the filters' gradients back.

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use super::points::{Evaluate, Interpolate, Sink, Tile, transform_2d};
use crate::operands::Operands;
use crate::panels::{Epilogue, PANEL, from_lines, to_lines};
use crate::simd::store;

/// Filters as a matrix of outputs and inputs, each R x R, wherever they lie.
#[derive(Clone, Copy)]
pub struct Filters<'a> {
    pub w: &'a [f32],
    pub inputs: usize,
    pub outputs: usize,
    /// Floats from one output to the next, and from one input to the next.
    pub lane_stride: usize,
    pub row_stride: usize,
    /// By half a turn.
    pub turned: bool,
}

/// U = G w G^T for 16 filters: N x N matrices whose depth is the input channels.
pub struct TransformFilters<'a, F, const N: usize, const R: usize> {
    pub filters: Filters<'a>,
    pub panel: usize,
    pub u: &'a mut [f32],
    pub operands: PhantomData<F>,
}

impl<F: Operands, const N: usize, const R: usize> WithSimd for TransformFilters<'_, F, N, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let TransformFilters { filters: f, panel, u, .. } = self;
        let matrix = F::words(f.inputs) * PANEL;
        let mut lines = [0f32; 25 * PANEL];
        for input in 0..f.inputs {
            to_lines(
                simd,
                &f.w[panel * PANEL * f.lane_stride + input * f.row_stride..],
                f.lane_stride,
                PANEL,
                R * R,
                &mut lines,
            );
            for lane in (0..PANEL).step_by(S::F32_LANES) {
                let tap = |tap: usize| lines[tap * PANEL + lane..].as_ptr();
                let (rows, columns) = ((R * PANEL) as isize, PANEL as isize);
                let taps = match f.turned {
                    false => Tile { start: tap(0), rows, columns },
                    true => Tile { start: tap(R * R - 1), rows: -rows, columns: -columns },
                };
                let mut sink = Matrices::<F, N> { u: &mut u[lane..], matrix, input, operands: PhantomData };
                // SAFETY: there are lines of R x R taps.
                unsafe { transform_2d::<S, Evaluate<true>, R, N>(simd, taps, &mut sink) };
            }
        }
    }
}

/// The N x N matrices, and the input whose values they get.
struct Matrices<'a, F, const N: usize> {
    u: &'a mut [f32],
    matrix: usize,
    input: usize,
    operands: PhantomData<F>,
}

impl<S: Simd, F: Operands, const N: usize> Sink<S> for Matrices<'_, F, N> {
    #[inline(always)]
    fn put(&mut self, simd: S, i: usize, j: usize, value: S::f32s) {
        F::put(simd, value, self.input, PANEL, &mut self.u[(i * N + j) * self.matrix..]);
    }
}

/// dw = G^T dU G for 16 filters: the transpose of [`TransformFilters`].
pub struct FilterGradients<'a, const N: usize, const R: usize> {
    /// From the panel's first line on.
    pub du: &'a [f32],
    /// Numbers from one pair of points to the next.
    pub du_pair: usize,
    pub channels: usize,
    pub lines: &'a mut [f32],
    pub dw: &'a mut [f32],
}

impl<const N: usize, const R: usize> WithSimd for FilterGradients<'_, N, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let FilterGradients { du, du_pair, channels, lines, dw } = self;
        for channel in 0..channels {
            for lane in (0..PANEL).step_by(S::F32_LANES) {
                let (rows, columns) = ((N * du_pair) as isize, du_pair as isize);
                assert!(du.len() >= (N * N - 1) * du_pair + channels * PANEL);
                let start = du[channel * PANEL + lane..].as_ptr();
                let mut sink = Taps::<R>(&mut lines[channel * R * R * PANEL + lane..]);
                let values = Tile { start, rows, columns };
                // SAFETY: every one of the matrices has the channel's line.
                unsafe { transform_2d::<S, Interpolate<true>, N, R>(simd, values, &mut sink) };
            }
        }
        let plane = channels * R * R;
        from_lines(simd, lines, PANEL, plane, dw, plane, Epilogue::Set);
    }
}

/// The lines of a channel's taps.
struct Taps<'a, const R: usize>(&'a mut [f32]);

impl<S: Simd, const R: usize> Sink<S> for Taps<'_, R> {
    #[inline(always)]
    fn put(&mut self, simd: S, i: usize, j: usize, value: S::f32s) {
        store(simd, &mut self.0[(i * R + j) * PANEL..], value);
    }
}
