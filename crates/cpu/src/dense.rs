//! Dense layers as products of panels (see panels.rs). Weights are read or written once a pass, in square pieces that
//! are copied side by side: their rows lie thousands of floats apart, often so that they all fall into the same sets
//! of the caches.
//!
//! Loop nest of the forward pass and the input gradient: for each block of 128 units (or inputs), for each 128 deep:
//! the piece of weights (64 KiB) is copied; for each two panels of 16 images (16 KiB, the first cache), for each 8
//! units: 8 x 32 sums stay in registers while the depth runs. The weight gradient has the images as its depth: for each
//! block of 128 units, for each 16 panels of inputs: the sums (128 KiB, the second cache) are made 8 x 32 at a time and
//! written to their rows.

use std::cell::Cell;
use std::marker::PhantomData;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::panels::{
    AcrossRows, AlongRows, Epilogue, Left, PANEL, ROWS, from_lines, multiply, scratch_slice, to_operand_lines,
};
use crate::operands::{Operands, in_precision};
use crate::shapes::{DenseShape, Precision, Update};
use crate::update::{Prepared, WeightPart};

/// Rows of a block of weights, and its depth.
const BLOCK: usize = 128;

/// Values of an image that a thread brings to panels at a time.
const COPIED: usize = 512;

/// Panels of inputs whose weight gradients are made before they are written.
const INPUT_PANELS: usize = 16;

/// Rows of a block that threads take: [`BLOCK`] at most, chosen so that all threads get the same number of blocks. Each
/// row is a separate sum, so this changes no bits.
fn block_height(rows: usize) -> usize {
    let threads = rayon::current_num_threads();
    let rounds = rows.div_ceil(BLOCK * threads).max(1);
    rows.div_ceil(rounds * threads).next_multiple_of(PANEL).clamp(2 * PANEL, BLOCK)
}

/// Memory that a thread keeps between calls.
#[derive(Default)]
struct Scratch {
    /// The operand that all blocks share, in panels; another one; sums.
    shared: Vec<f32>,
    piece: Vec<f32>,
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> =
        const { Cell::new(Scratch { shared: Vec::new(), piece: Vec::new(), sums: Vec::new() }) };
}

/// See `Backend::dense_forward`.
pub fn dense_forward(
    precision: Precision,
    s: &DenseShape,
    n: usize,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    in_precision!(precision, forward(s, n, x, w, bias, y))
}

fn forward<F: Operands>(s: &DenseShape, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let y = Rows::new(y, n, s.outputs);
    by_images::<F, false>(x, [n, s.inputs], w, [s.outputs, s.inputs], bias, bias.is_none(), y);
}

/// See `Backend::dense_backward_input`.
pub fn dense_backward_input(precision: Precision, s: &DenseShape, n: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    in_precision!(precision, backward_input(s, n, dy, w, dx))
}

fn backward_input<F: Operands>(s: &DenseShape, n: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let dx = Rows::new(dx, n, s.inputs);
    by_images::<F, true>(dy, [n, s.outputs], w, [s.inputs, s.inputs], None, false, dx);
}

/// A matrix of N rows whose columns several threads write, each its own.
#[derive(Clone, Copy)]
struct Rows {
    start: *mut f32,
    n: usize,
    columns: usize,
}

// SAFETY: threads write different columns.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Rows {
    fn new(values: &mut [f32], n: usize, columns: usize) -> Self {
        assert!(values.len() >= n * columns);
        Rows { start: values.as_mut_ptr(), n, columns }
    }

    /// The columns from `first` on of the rows from `row` on.
    ///
    /// # Safety
    /// Nobody else may use `columns` of them meanwhile.
    unsafe fn part<'a>(self, row: usize, first: usize, columns: usize) -> &'a mut [f32] {
        let at = row * self.columns + first;
        assert!(row < self.n && first + columns <= self.columns);
        // SAFETY: from there to the end of those columns in the last row, of which only the columns are used.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), (self.n - 1 - row) * self.columns + columns) }
    }
}

/// to[n][row] = the sum over depth of from[n][depth] * w, where w is at `row * stride + depth` or, `ACROSS`, at
/// `depth * stride + row`.
fn by_images<F: Operands, const ACROSS: bool>(
    from: &[f32],
    [n, depth]: [usize; 2],
    w: &[f32],
    [rows, stride]: [usize; 2],
    bias: Option<&[f32]>,
    adds: bool,
    to: Rows,
) {
    let mut outer = SCRATCH.take();
    let panel_elems = F::words(depth) * PANEL;
    let images = scratch_slice(&mut outer.shared, n.div_ceil(PANEL) * panel_elems);
    let panels = images.par_chunks_exact_mut(panel_elems).enumerate();
    let parts = panels.flat_map(|(panel, lines)| {
        lines
            .par_chunks_mut(F::words(COPIED) * PANEL)
            .enumerate()
            .map(move |(part, lines)| (panel, part * COPIED, lines))
    });
    parts.for_each(|(panel, first, lines)| {
        let (images, count) = ((n - panel * PANEL).min(PANEL), COPIED.min(depth - first));
        let from = &from[panel * PANEL * depth + first..];
        F::dispatch(PanelOfImages::<F> { from, stride: depth, images, count, lines, operands: PhantomData });
    });
    let images = &*images;
    let height = block_height(rows);
    (0..rows.div_ceil(height)).into_par_iter().for_each(|block| {
        let mut kept = SCRATCH.take();
        let rows = block * height..rows.min((block + 1) * height);
        let (scratch, operands) = (&mut kept, PhantomData);
        F::dispatch(BlockOfRows::<F, ACROSS> { images, depth, w, stride, rows, bias, adds, to, scratch, operands });
        SCRATCH.set(kept);
    });
    SCRATCH.set(outer);
}

/// A part of the depth of up to 16 images, as columns.
struct PanelOfImages<'a, F> {
    from: &'a [f32],
    stride: usize,
    images: usize,
    count: usize,
    lines: &'a mut [f32],
    operands: PhantomData<F>,
}

impl<F: Operands> WithSimd for PanelOfImages<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        to_operand_lines::<S, F>(simd, self.from, self.stride, self.images, self.count, self.lines);
    }
}

/// Some rows of [`by_images`].
struct BlockOfRows<'a, F, const ACROSS: bool> {
    images: &'a [f32],
    depth: usize,
    w: &'a [f32],
    stride: usize,
    rows: std::ops::Range<usize>,
    bias: Option<&'a [f32]>,
    adds: bool,
    to: Rows,
    scratch: &'a mut Scratch,
    operands: PhantomData<F>,
}

impl<F: Operands, const ACROSS: bool> WithSimd for BlockOfRows<'_, F, ACROSS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let BlockOfRows { images, depth, w, stride, rows, bias, adds, to, scratch, .. } = self;
        let panels = to.n.div_ceil(PANEL);
        let sums = scratch_slice(&mut scratch.sums, panels * BLOCK * PANEL);
        for sums in sums.chunks_exact_mut(BLOCK * PANEL) {
            for (row, line) in rows.clone().zip(sums.chunks_exact_mut(PANEL)) {
                line.fill(bias.map_or(0., |bias| bias[row]));
            }
        }
        let piece = scratch_slice(&mut scratch.piece, BLOCK * BLOCK);
        let count = rows.len().next_multiple_of(ROWS);
        for from in (0..depth).step_by(BLOCK) {
            let deep = BLOCK.min(depth - from);
            if ACROSS {
                for at in 0..deep {
                    F::put_row(simd, &w[(from + at) * stride + rows.start..][..rows.len()], at, BLOCK, piece);
                }
            } else {
                for (row, to) in rows.clone().zip(piece.chunks_exact_mut(BLOCK / F::DEPTHS)) {
                    F::put_row_of_depths(simd, &w[row * stride + from..][..deep], to);
                }
            }
            let left = Left { chunk_stride: 0, chunks: 1, depth: F::words(deep) };
            for panel in (0..panels).step_by(2) {
                let two = (panels - panel).min(2);
                let (a, b, c) = (piece.as_ptr(), images.as_ptr(), sums.as_mut_ptr());
                // SAFETY: the panels' lines from `from` on, the piece, and the panels' sums, whose number of rows is
                // rounded up.
                unsafe {
                    let at = |i: usize| (panel + i.min(two - 1)) * F::words(depth) + from / F::DEPTHS;
                    let b = [b.add(at(0) * PANEL), b.add(at(1) * PANEL)];
                    let c = [0, 1].map(|i| c.wrapping_add((panel + i.min(two - 1)) * BLOCK * PANEL));
                    let (b, c) = (&b[..two], &c[..two]);
                    if ACROSS {
                        multiply::<S, F, AcrossRows<BLOCK>, ROWS>(simd, count, left, a, b, c, true);
                    } else {
                        multiply::<S, F, AlongRows<F, BLOCK>, ROWS>(simd, count, left, a, b, c, true);
                    }
                }
            }
        }
        for (panel, sums) in sums.chunks_exact(BLOCK * PANEL).enumerate() {
            // SAFETY: these columns are this block's.
            let part = unsafe { to.part(panel * PANEL, rows.start, rows.len()) };
            let epilogue = if adds { Epilogue::Add } else { Epilogue::Set };
            from_lines(simd, sums, (to.n - panel * PANEL).min(PANEL), rows.len(), part, to.columns, epilogue);
        }
    }
}

/// See `Backend::dense_backward_weight`.
pub fn dense_backward_weight(precision: Precision, s: &DenseShape, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let height = block_height(s.outputs);
    let blocks = dw[..s.outputs * s.inputs].chunks_mut(height * s.inputs).map(To::Gradient).collect();
    in_precision!(precision, backward_weight(s, n, x, dy, height, blocks))
}

/// See `Backend::dense_backward_weight_update`.
#[allow(clippy::too_many_arguments)]
pub fn dense_backward_weight_update(
    precision: Precision,
    s: &DenseShape,
    n: usize,
    x: &[f32],
    dy: &[f32],
    update: &Update,
    w: &mut [f32],
    state: &mut [Vec<f32>],
) {
    let (height, update) = (block_height(s.outputs), Prepared::new(update));
    let parts = WeightPart::cut(height * s.inputs, &mut w[..s.outputs * s.inputs], state);
    let blocks = parts.into_iter().map(|part| To::Weights(part, update)).collect();
    in_precision!(precision, backward_weight(s, n, x, dy, height, blocks))
}

/// The destination of the gradients of a block of units: rows of inputs.
enum To<'a> {
    Gradient(&'a mut [f32]),
    /// Into the weights, at once.
    Weights(WeightPart<'a>, Prepared),
}

impl To<'_> {
    fn elems(&self) -> usize {
        match self {
            To::Gradient(dw) => dw.len(),
            To::Weights(part, _) => part.elems(),
        }
    }
}

/// Each of `blocks` has `height` units, but for the last one.
fn backward_weight<F: Operands>(s: &DenseShape, n: usize, x: &[f32], dy: &[f32], height: usize, blocks: Vec<To>) {
    let DenseShape { inputs, outputs, .. } = *s;
    let panel_elems = F::words(n) * PANEL;
    let mut outer = SCRATCH.take();
    let shared = scratch_slice(&mut outer.shared, (inputs.div_ceil(PANEL) + outputs.div_ceil(PANEL)) * panel_elems);
    let (x_panels, dy_panels) = shared.split_at_mut(inputs.div_ceil(PANEL) * panel_elems);
    for (panels, values, width) in [(&mut *x_panels, x, inputs), (&mut *dy_panels, dy, outputs)] {
        panels.par_chunks_exact_mut(panel_elems).enumerate().for_each(|(panel, lines)| {
            let columns = PANEL.min(width - panel * PANEL);
            F::dispatch(PanelOfUnits::<F> {
                values: &values[panel * PANEL..],
                width,
                columns,
                lines,
                n,
                operands: PhantomData,
            });
        });
    }
    let (x_panels, dy_panels) = (&*x_panels, &*dy_panels);
    blocks.into_par_iter().enumerate().for_each(|(block, to)| {
        let mut scratch = SCRATCH.take();
        let dy_panels = &dy_panels[block * height / PANEL * panel_elems..];
        let sums = &mut scratch.sums;
        F::dispatch(BlockOfWeights::<F> { n, inputs, x_panels, dy_panels, to, sums, operands: PhantomData });
        SCRATCH.set(scratch);
    });
    SCRATCH.set(outer);
}

/// Up to 16 units of all images; the depth is the images.
struct PanelOfUnits<'a, F> {
    values: &'a [f32],
    width: usize,
    columns: usize,
    lines: &'a mut [f32],
    n: usize,
    operands: PhantomData<F>,
}

impl<F: Operands> WithSimd for PanelOfUnits<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let PanelOfUnits { values, width, columns, lines, n, .. } = self;
        for image in 0..n {
            let mut line = [0f32; PANEL];
            line[..columns].copy_from_slice(&values[image * width..][..columns]);
            F::put_row(simd, &line, image, PANEL, lines);
        }
    }
}

/// Gradients of some units' weights.
struct BlockOfWeights<'a, F> {
    n: usize,
    inputs: usize,
    x_panels: &'a [f32],
    dy_panels: &'a [f32],
    to: To<'a>,
    sums: &'a mut Vec<f32>,
    operands: PhantomData<F>,
}

impl<F: Operands> WithSimd for BlockOfWeights<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let BlockOfWeights { n, inputs, x_panels, dy_panels, mut to, sums, .. } = self;
        let panel_elems = F::words(n) * PANEL;
        let sums = scratch_slice(sums, INPUT_PANELS * BLOCK * PANEL);
        let left = Left { chunk_stride: 0, chunks: 1, depth: F::words(n) };
        let units = to.elems() / inputs;
        for (group, x_panels) in x_panels.chunks(INPUT_PANELS * panel_elems).enumerate() {
            let panels = x_panels.len() / panel_elems;
            for panel in (0..panels).step_by(2) {
                let two = (panels - panel).min(2);
                for (unit, dy) in (0..units).step_by(PANEL).zip(dy_panels.chunks_exact(panel_elems)) {
                    // SAFETY: a panel of units, one or two of inputs, and their sums.
                    unsafe {
                        let b = [0, 1].map(|i| x_panels.as_ptr().add((panel + i.min(two - 1)) * panel_elems));
                        let start = sums.as_mut_ptr();
                        let c = [0, 1].map(|i| start.add(((panel + i.min(two - 1)) * BLOCK + unit) * PANEL));
                        let (a, b, c) = (dy.as_ptr(), &b[..two], &c[..two]);
                        multiply::<S, F, AcrossRows<PANEL>, ROWS>(simd, PANEL, left, a, b, c, false);
                    }
                }
            }
            let from = group * INPUT_PANELS * PANEL;
            let mut row = [0f32; INPUT_PANELS * PANEL];
            let row = &mut row[..(inputs - from).min(panels * PANEL)];
            for unit in 0..units {
                for (dw, sums) in row.chunks_mut(PANEL).zip(sums.chunks_exact(BLOCK * PANEL)) {
                    dw.copy_from_slice(&sums[unit * PANEL..][..dw.len()]);
                }
                let at = unit * inputs + from;
                match &mut to {
                    To::Gradient(dw) => dw[at..][..row.len()].copy_from_slice(row),
                    To::Weights(part, update) => part.update(at, row, update),
                }
            }
        }
    }
}

/// See `Backend::dense_backward_bias`.
pub fn dense_backward_bias(shape: &DenseShape, n: usize, dy: &[f32], dbias: &mut [f32]) {
    let outputs = shape.outputs;
    for (unit, dbias) in dbias[..outputs].iter_mut().enumerate() {
        *dbias = (0..n).map(|image| f64::from(dy[image * outputs + unit])).sum::<f64>() as f32;
    }
}
