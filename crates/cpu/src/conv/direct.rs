//! The first layer's convolution: 11x11 windows, 4 apart, over few channels. The matrix product reads its left operand
//! where it lies in the image, so im2col is not needed: along a row of outputs the same tap lies 4 floats apart,
//! along a row of a window the taps lie side by side.
//!
//! Loop nest, forward: for each row of outputs, for two panels of filters: 11 outputs by 32 filters stay in registers
//! while the taps (row, channel, column) run; the 11 rows of the image that they read (30 KiB with three channels) stay
//! in the first cache. Weight gradient: for each row and channel of the windows: its 11 taps by 32 filters stay in
//! registers while all outputs of an image run.

use std::cell::Cell;
use std::marker::PhantomData;

use pulp::{Scalar, Simd, WithSimd};
use rayon::prelude::*;

use super::{PARTS, part_of};
use crate::operands::Operands;
use crate::panels::{
    AlongRows, Epilogue, Left, PANEL, ROWS_OF_55, Strides, from_lines, multiply, scratch_slice, to_lines,
    to_operand_lines,
};
use crate::shapes::ConvShape;

/// The window's side and the distance between windows, fixed so that addresses are known when this is compiled.
const WINDOW: usize = 11;
const STRIDE: usize = 4;

/// Rows of outputs made before they are given their places.
const OUTPUT_ROWS: usize = 5;

/// Whether the functions of this module can do a convolution.
pub fn applies(s: &ConvShape) -> bool {
    (s.r, s.s, s.stride) == (WINDOW, WINDOW, STRIDE) && s.k.is_multiple_of(PANEL)
}

/// Memory that a thread keeps between calls.
#[derive(Default)]
struct Scratch {
    padded: Vec<f32>,
    operand: Vec<f32>,
    lines: Vec<f32>,
    filters: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const {
        Cell::new(Scratch { padded: Vec::new(), operand: Vec::new(), lines: Vec::new(), filters: Vec::new() })
    };
}

/// Values of a row of the padded image: all that a row of outputs reads, the counts of outputs and of taps rounded up.
fn width(s: &ConvShape) -> usize {
    (s.q.next_multiple_of(ROWS_OF_55) - 1) * STRIDE + WINDOW + 1
}

/// An image as rows of all channels, with zeros around: H' C W'.
fn pad<'a>(s: &ConvShape, x: &[f32], padded: &'a mut Vec<f32>) -> &'a [f32] {
    let (rows, width) = ((s.p - 1) * STRIDE + WINDOW, width(s));
    let padded = scratch_slice(padded, rows * s.c * width);
    for (index, to) in padded.chunks_exact_mut(width).enumerate() {
        let (row, c) = (index / s.c, index % s.c);
        match row.checked_sub(s.pad).filter(|&row| row < s.h) {
            None => to.fill(0.),
            Some(row) => {
                let inside = s.w.min(width - s.pad);
                to[..s.pad].fill(0.);
                to[s.pad..][..inside].copy_from_slice(&x[(c * s.h + row) * s.w..][..inside]);
                to[s.pad + inside..].fill(0.);
            }
        }
    }
    padded
}

/// The offsets, in a filter C R S, of the taps of each row and channel of the windows, in the order that the padded
/// image gives them (row, channel, column).
fn window_rows(s: &ConvShape) -> impl Iterator<Item = usize> {
    (0..WINDOW * s.c).map(|row| (row % s.c * WINDOW + row / s.c) * WINDOW)
}

/// See `Backend::conv_forward`.
pub fn conv_forward<F: Operands>(s: &ConvShape, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let (taps, lines) = (s.c * WINDOW * WINDOW, s.c * WINDOW * F::words(WINDOW));
    let mut outer = SCRATCH.take();
    let filters = scratch_slice(&mut outer.filters, s.k / PANEL * lines * PANEL);
    let panels = filters.par_chunks_exact_mut(lines * PANEL).zip(w.par_chunks_exact(taps * PANEL));
    panels.for_each(|(lines, w)| F::dispatch(FilterLines::<F> { s, w, lines, operands: PhantomData }));
    let filters = &*filters;
    let images =
        y[..n * s.k * s.p * s.q].par_chunks_exact_mut(s.k * s.p * s.q).zip(x.par_chunks_exact(s.c * s.h * s.w));
    images.for_each(|(y, x)| {
        let mut scratch = SCRATCH.take();
        let image = F::one_after_another(pad(s, x, &mut scratch.padded), &mut scratch.operand);
        let lines = &mut scratch.lines;
        F::dispatch(Forward::<F> { s, image, filters, bias, lines, y, operands: PhantomData });
        SCRATCH.set(scratch);
    });
    SCRATCH.set(outer);
}

/// The taps of 16 filters, in the order that the image gives them.
struct FilterLines<'a, F> {
    s: &'a ConvShape,
    w: &'a [f32],
    lines: &'a mut [f32],
    operands: PhantomData<F>,
}

impl<F: Operands> WithSimd for FilterLines<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let FilterLines { s, w, lines, .. } = self;
        for (tap, lines) in window_rows(s).zip(lines.chunks_exact_mut(F::words(WINDOW) * PANEL)) {
            to_operand_lines::<S, F>(simd, &w[tap..], s.c * WINDOW * WINDOW, PANEL, WINDOW, lines);
        }
    }
}

struct Forward<'a, F> {
    s: &'a ConvShape,
    image: &'a [f32],
    filters: &'a [f32],
    bias: Option<&'a [f32]>,
    lines: &'a mut Vec<f32>,
    y: &'a mut [f32],
    operands: PhantomData<F>,
}

impl<F: Operands> WithSimd for Forward<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { s, image, filters, bias, lines, y, .. } = self;
        let (width, panels, mut depth) = (F::words(width(s)), s.k / PANEL, F::words(WINDOW));
        if F::DEPTHS > 1 || S::F32_LANES < PANEL {
            // Hidden from the compiler: it would unroll all of them, and keep on the stack what neighbouring depths share.
            depth = std::hint::black_box(depth);
        }
        let filter_panel = s.c * WINDOW * depth * PANEL;
        let outputs = s.q.next_multiple_of(ROWS_OF_55);
        // What the last row of outputs has too much finds room after it; that of others is overwritten by the next.
        let panel_lines = (OUTPUT_ROWS - 1) * s.q + outputs;
        let lines = scratch_slice(lines, panels * panel_lines * PANEL);
        let left = Left { chunk_stride: width, chunks: WINDOW * s.c, depth };
        assert!(filters.len() == panels * filter_panel && image.len() >= ((s.p - 1) * STRIDE + WINDOW) * s.c * width);
        for top in (0..s.p).step_by(OUTPUT_ROWS) {
            let rows = OUTPUT_ROWS.min(s.p - top);
            for row in 0..rows {
                for panel in (0..panels).step_by(2) {
                    let count = (panels - panel).min(2);
                    // SAFETY: the image's rows, the panels of filters and their lines are where the sizes asserted say.
                    unsafe {
                        let a = image.as_ptr().add((top + row) * STRIDE * s.c * width);
                        let b: [*const f32; 2] =
                            [0, 1].map(|i| filters.as_ptr().add((panel + i.min(count - 1)) * filter_panel));
                        let start = lines.as_mut_ptr();
                        let line = |i: usize| (panel + i.min(count - 1)) * panel_lines + row * s.q;
                        let c: [*mut f32; 2] = [start.add(line(0) * PANEL), start.add(line(1) * PANEL)];
                        let (b, c) = (&b[..count], &c[..count]);
                        multiply::<S, F, AlongRows<F, STRIDE>, ROWS_OF_55>(simd, outputs, left, a, b, c, false);
                    }
                }
            }
            for panel in 0..panels {
                let y = &mut y[panel * PANEL * s.p * s.q + top * s.q..];
                let epilogue = bias.map_or(Epilogue::Add, Epilogue::Bias).of_panel(panel);
                from_lines(simd, &lines[panel * panel_lines * PANEL..], PANEL, rows * s.q, y, s.p * s.q, epilogue);
            }
        }
    }
}

/// See `Backend::conv_backward_weight`. Sums are made over fixed parts of the batch first.
pub fn conv_backward_weight<F: Operands>(s: &ConvShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let taps = s.c * WINDOW * WINDOW;
    let parts = PARTS.min(n);
    let mut outer = SCRATCH.take();
    let sums = scratch_slice(&mut outer.filters, parts * s.k * taps);
    sums.par_chunks_exact_mut(s.k * taps).enumerate().for_each(|(part, sums)| {
        let mut scratch = SCRATCH.take();
        sums.fill(0.);
        for image in part_of(n, part, parts) {
            let padded = pad(s, &x[image * s.c * s.h * s.w..][..s.c * s.h * s.w], &mut scratch.padded);
            // The depth of this product is a row of outputs.
            let taps = F::overlapping(padded, STRIDE, &mut scratch.operand);
            let dy = &dy[image * s.k * s.p * s.q..][..s.k * s.p * s.q];
            let lines = &mut scratch.lines;
            F::dispatch(BackwardWeight::<F> { s, taps, dy, lines, sums, operands: PhantomData });
        }
        SCRATCH.set(scratch);
    });
    let (whole, others) = sums.split_at_mut(s.k * taps);
    whole.par_chunks_exact_mut(taps * PANEL).zip(dw.par_chunks_exact_mut(taps * PANEL)).enumerate().for_each(
        |(panel, (whole, dw))| {
            for other in others.chunks_exact(s.k * taps) {
                let other = &other[panel * taps * PANEL..];
                whole.iter_mut().zip(other).for_each(|(sum, v)| *sum += v);
            }
            for (tap, lines) in window_rows(s).zip(whole.chunks_exact(WINDOW * PANEL)) {
                from_lines(Scalar, lines, PANEL, WINDOW, &mut dw[tap..], taps, Epilogue::Set);
            }
        },
    );
    SCRATCH.set(outer);
}

/// The taps of windows along a row of outputs, from words that overlap.
struct Taps<F>(PhantomData<F>);

impl<F: Operands> Strides for Taps<F> {
    const ROW: usize = 1;
    const DEPTH: usize = STRIDE * F::DEPTHS;
}

struct BackwardWeight<'a, F> {
    s: &'a ConvShape,
    taps: &'a [f32],
    dy: &'a [f32],
    lines: &'a mut Vec<f32>,
    /// A line for each tap, panel by panel.
    sums: &'a mut [f32],
    operands: PhantomData<F>,
}

impl<F: Operands> WithSimd for BackwardWeight<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let BackwardWeight { s, taps, dy, lines, sums, .. } = self;
        let (width, panels, pixels, depth) = (width(s), s.k / PANEL, s.p * s.q, F::words(s.q));
        let (window, dy_panel) = (s.c * WINDOW * WINDOW, s.p * depth * PANEL);
        let lines = scratch_slice(lines, panels * dy_panel);
        for (dy, lines) in dy.chunks_exact(PANEL * pixels).zip(lines.chunks_exact_mut(dy_panel)) {
            if F::DEPTHS == 1 {
                to_lines(simd, dy, pixels, PANEL, pixels, lines);
                continue;
            }
            for (row, lines) in lines.chunks_exact_mut(depth * PANEL).enumerate() {
                to_operand_lines::<S, F>(simd, &dy[row * s.q..], pixels, PANEL, s.q, lines);
            }
        }
        let left = Left { chunk_stride: STRIDE * s.c * width, chunks: s.p, depth };
        assert!(sums.len() == panels * window * PANEL && taps.len() >= ((s.p - 1) * STRIDE + WINDOW) * s.c * width);
        // The last word of an odd row reads past the window, within the row.
        assert!((depth - 1) * STRIDE * F::DEPTHS + WINDOW <= width);
        for panel in (0..panels).step_by(2) {
            let count = (panels - panel).min(2);
            for row in 0..WINDOW * s.c {
                // SAFETY: as in the forward pass.
                unsafe {
                    let a = taps.as_ptr().add(row * width);
                    let b: [*const f32; 2] = [0, 1].map(|i| lines.as_ptr().add((panel + i.min(count - 1)) * dy_panel));
                    let start = sums.as_mut_ptr();
                    let line = |i: usize| (panel + i.min(count - 1)) * window + row * WINDOW;
                    let c: [*mut f32; 2] = [start.add(line(0) * PANEL), start.add(line(1) * PANEL)];
                    multiply::<S, F, Taps<F>, WINDOW>(simd, WINDOW, left, a, &b[..count], &c[..count], true);
                }
            }
        }
    }
}
