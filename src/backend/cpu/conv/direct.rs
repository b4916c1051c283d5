//! The first layer's convolution: 11x11 windows, 4 apart, over few channels. The matrix product reads its left factor
//! where it lies in the image, so no patches are unrolled: along a row of outputs the same tap lies 4 numbers apart,
//! along a row of a window the taps lie side by side.
//!
//! Loop nest, forward: for each row of outputs, for two panels of filters: 11 outputs by 32 filters stay in registers
//! while the taps (row, channel, column) run; the 11 rows of the image that they read (30 KiB with three channels) stay
//! in the first cache. Weight gradient: for each row and channel of the windows: its 11 taps by 32 filters stay in
//! registers while all outputs of an image run.

use std::cell::Cell;

use pulp::{Scalar, Simd, WithSimd};
use rayon::prelude::*;

use super::{PARTS, part_of};
use crate::backend::ConvShape;
use crate::backend::cpu::panels::{Finish, Left, PANEL, ROWS_OF_55, first, from_lines, multiply, to_lines};
use crate::backend::cpu::simd::dispatch;

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
    lines: Vec<f32>,
    filters: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> =
        const { Cell::new(Scratch { padded: Vec::new(), lines: Vec::new(), filters: Vec::new() }) };
}

/// Numbers of a row of the padded image: all that a row of outputs reads, the number of outputs rounded up.
fn width(s: &ConvShape) -> usize {
    (s.q.next_multiple_of(ROWS_OF_55) - 1) * STRIDE + WINDOW
}

/// An image as rows of all channels, with zeros around: H' C W'.
fn pad<'a>(s: &ConvShape, x: &[f32], padded: &'a mut Vec<f32>) -> &'a [f32] {
    let (rows, width) = ((s.p - 1) * STRIDE + WINDOW, width(s));
    let padded = first(padded, rows * s.c * width);
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

/// Calls `each(tap, line)` for each row and channel of the windows: where its taps begin in K C R S filters, and their
/// first line in the order that the padded image gives them (row, channel, column).
fn window_rows(s: &ConvShape, mut each: impl FnMut(usize, usize)) {
    for r in 0..WINDOW {
        for c in 0..s.c {
            each((c * WINDOW + r) * WINDOW, (r * s.c + c) * WINDOW);
        }
    }
}

/// See [`crate::backend::Backend::conv_forward`].
pub fn conv_forward(s: &ConvShape, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let taps = s.c * WINDOW * WINDOW;
    let mut outer = SCRATCH.take();
    let filters = first(&mut outer.filters, s.k * taps);
    filters.par_chunks_exact_mut(taps * PANEL).zip(w.par_chunks_exact(taps * PANEL)).for_each(|(lines, w)| {
        window_rows(s, |tap, line| to_lines(Scalar, &w[tap..], taps, PANEL, WINDOW, &mut lines[line * PANEL..]));
    });
    let filters = &*filters;
    let images =
        y[..n * s.k * s.p * s.q].par_chunks_exact_mut(s.k * s.p * s.q).zip(x.par_chunks_exact(s.c * s.h * s.w));
    images.for_each(|(y, x)| {
        let mut scratch = SCRATCH.take();
        let padded = pad(s, x, &mut scratch.padded);
        dispatch(Forward { s, padded, filters, bias, lines: &mut scratch.lines, y });
        SCRATCH.set(scratch);
    });
    SCRATCH.set(outer);
}

struct Forward<'a> {
    s: &'a ConvShape,
    padded: &'a [f32],
    filters: &'a [f32],
    bias: Option<&'a [f32]>,
    lines: &'a mut Vec<f32>,
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { s, padded, filters, bias, lines, y } = self;
        let (taps, width, panels) = (s.c * WINDOW * WINDOW, width(s), s.k / PANEL);
        let outputs = s.q.next_multiple_of(ROWS_OF_55);
        // What the last row of outputs has too much finds room after it; that of others is overwritten by the next.
        let panel_lines = (OUTPUT_ROWS - 1) * s.q + outputs;
        let lines = first(lines, panels * panel_lines * PANEL);
        let left = Left { chunk_stride: width, chunks: WINDOW * s.c, depth: WINDOW };
        assert!(filters.len() == panels * taps * PANEL && padded.len() >= ((s.p - 1) * STRIDE + WINDOW) * s.c * width);
        for top in (0..s.p).step_by(OUTPUT_ROWS) {
            let rows = OUTPUT_ROWS.min(s.p - top);
            for row in 0..rows {
                for panel in (0..panels).step_by(2) {
                    let count = (panels - panel).min(2);
                    // SAFETY: the image's rows, the panels of filters and their lines are where the sizes asserted say.
                    unsafe {
                        let a = padded.as_ptr().add((top + row) * STRIDE * s.c * width);
                        let b: [*const f32; 2] =
                            [0, 1].map(|i| filters.as_ptr().add((panel + i.min(count - 1)) * taps * PANEL));
                        let start = lines.as_mut_ptr();
                        let line = |i: usize| (panel + i.min(count - 1)) * panel_lines + row * s.q;
                        let c: [*mut f32; 2] = [start.add(line(0) * PANEL), start.add(line(1) * PANEL)];
                        multiply::<S, ROWS_OF_55, STRIDE, 1>(simd, outputs, left, a, &b[..count], &c[..count], false);
                    }
                }
            }
            for panel in 0..panels {
                let y = &mut y[panel * PANEL * s.p * s.q + top * s.q..];
                let finish = bias.map_or(Finish::Add, Finish::Bias).of_panel(panel);
                from_lines(simd, &lines[panel * panel_lines * PANEL..], PANEL, rows * s.q, y, s.p * s.q, finish);
            }
        }
    }
}

/// See [`crate::backend::Backend::conv_backward_weight`]. Sums are made over fixed parts of the batch first.
pub fn conv_backward_weight(s: &ConvShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let taps = s.c * WINDOW * WINDOW;
    let parts = PARTS.min(n);
    let mut outer = SCRATCH.take();
    let sums = first(&mut outer.filters, parts * s.k * taps);
    sums.par_chunks_exact_mut(s.k * taps).enumerate().for_each(|(part, sums)| {
        let mut scratch = SCRATCH.take();
        sums.fill(0.);
        for image in part_of(n, part, parts) {
            let padded = pad(s, &x[image * s.c * s.h * s.w..][..s.c * s.h * s.w], &mut scratch.padded);
            let dy = &dy[image * s.k * s.p * s.q..][..s.k * s.p * s.q];
            dispatch(BackwardWeight { s, padded, dy, lines: &mut scratch.lines, sums });
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
            window_rows(s, |tap, line| {
                from_lines(Scalar, &whole[line * PANEL..], PANEL, WINDOW, &mut dw[tap..], taps, Finish::Set)
            });
        },
    );
    SCRATCH.set(outer);
}

struct BackwardWeight<'a> {
    s: &'a ConvShape,
    padded: &'a [f32],
    dy: &'a [f32],
    lines: &'a mut Vec<f32>,
    /// A line for each tap, panel by panel.
    sums: &'a mut [f32],
}

impl WithSimd for BackwardWeight<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let BackwardWeight { s, padded, dy, lines, sums } = self;
        let (taps, width, panels, pixels) = (s.c * WINDOW * WINDOW, width(s), s.k / PANEL, s.p * s.q);
        let lines = first(lines, panels * pixels * PANEL);
        for (dy, lines) in dy.chunks_exact(PANEL * pixels).zip(lines.chunks_exact_mut(pixels * PANEL)) {
            to_lines(simd, dy, pixels, PANEL, pixels, lines);
        }
        let left = Left { chunk_stride: STRIDE * s.c * width, chunks: s.p, depth: s.q };
        assert!(sums.len() == panels * taps * PANEL && padded.len() >= ((s.p - 1) * STRIDE + WINDOW) * s.c * width);
        for panel in (0..panels).step_by(2) {
            let count = (panels - panel).min(2);
            for row in 0..WINDOW * s.c {
                // SAFETY: as in the forward pass.
                unsafe {
                    let a = padded.as_ptr().add(row * width);
                    let b: [*const f32; 2] =
                        [0, 1].map(|i| lines.as_ptr().add((panel + i.min(count - 1)) * pixels * PANEL));
                    let start = sums.as_mut_ptr();
                    let line = |i: usize| (panel + i.min(count - 1)) * taps + row * WINDOW;
                    let c: [*mut f32; 2] = [start.add(line(0) * PANEL), start.add(line(1) * PANEL)];
                    multiply::<S, WINDOW, 1, STRIDE>(simd, WINDOW, left, a, &b[..count], &c[..count], true);
                }
            }
        }
    }
}
