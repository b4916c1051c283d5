//! Convolutions and dense layers: one matrix product in three forms, cut into tiles and, where those are few, into parts
//! of the depth, whose sums are added in their order.
#![allow(clippy::too_many_arguments)] // those of the trait's methods

use super::elements::{eights, fours};
use super::layout::{self, Unstrided, pad8};
use super::shapes::{Absent, Conv, dense_inputs};
use crate::backend::cuda::device::Buffer;
use crate::backend::cuda::kernels::{Bf16, Split};
use crate::backend::cuda::sources::ELEMENT_THREADS;
use crate::backend::cuda::{Argument, CudaBackend, Grid, arg, launch};
use crate::backend::*;
use crate::error::Result;

/// Threads of a block of a matrix product; see kernels/bf16/tile.cuh.
const THREADS: u32 = 128;
/// Depth of a stage.
pub const DEPTH: usize = 32;
/// Products that a part of a cut sum has at least: below that adding the parts costs more than it brings.
const LEAST_DEPTH: usize = 8 * DEPTH;
/// Blocks that a matrix product should have: two for each multiprocessor of the largest GPUs.
const WANTED_BLOCKS: usize = 264;
/// Partial sums of the largest split product.
pub const PARTIALS: usize = WANTED_BLOCKS * 128 * 128;

/// Rows and columns of a tile.
pub type Tile = [usize; 2];

/// The tiles that forward products come in.
pub const FORWARD_TILES: [Tile; 3] = [[128, 128], [128, 96], [128, 64]];
/// Those of weight gradients: filters by channels of taps.
pub const WEIGHT_TILES: [Tile; 2] = [[128, 128], [64, 128]];
/// Those of dense layers' gradients by the input.
pub const DENSE_INPUT_TILES: [Tile; 1] = [[128, 64]];

/// The division of a matrix product into blocks of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// The tile.
    pub tile: Tile,
    /// How many of them cover rows and columns.
    pub tiles: [usize; 2],
    /// Parts of each sum.
    pub parts: usize,
    /// Products that a part adds up, a multiple of a stage's depth.
    pub depth: usize,
}

/// Divides a product of rows x columns sums over a depth into tiles of one of these sizes, the largest first, and where they
/// are few the depth into parts, by the sizes alone: so the bits are the same on every GPU of one architecture.
pub fn divide([rows, columns, depth]: [usize; 3], sizes: &[Tile]) -> Division {
    let covered = |tile: &&Tile| rows.next_multiple_of(tile[0]) * columns.next_multiple_of(tile[1]);
    let tile = sizes.iter().min_by_key(covered).copied().unwrap_or([128, 128]);
    let tiles = [rows.div_ceil(tile[0]), columns.div_ceil(tile[1])];
    let parts = (WANTED_BLOCKS / (tiles[0] * tiles[1]).max(1)).clamp(1, (depth / LEAST_DEPTH).max(1));
    let part = depth.div_ceil(parts).next_multiple_of(DEPTH);
    Division { tile, tiles, parts: depth.div_ceil(part), depth: part }
}

/// A product about to be queued: its tile, and the parts of its depth.
struct Cut {
    tile: Tile,
    grid: Grid,
    split: Split,
}

fn cut(sizes: [usize; 3], tiles: &[Tile]) -> Cut {
    let Division { tile, tiles, parts, depth } = divide(sizes, tiles);
    let grid = Grid { blocks: [tiles[0], tiles[1], parts], threads: THREADS };
    Cut { tile, grid, split: Split { count: parts as u32, depth: depth as u32 } }
}

/// What becomes of a forward product's sums.
#[derive(Clone, Copy)]
enum Sums<'a> {
    /// They are the values, after the bias if there is one.
    Whole(Option<&'a Buffer>),
    /// They wait in fp32 for those of the second block.
    First(&'a Buffer),
    /// They are added to those of the first block.
    Second,
}

impl<'a> Sums<'a> {
    fn of(bias: Option<&'a Buffer>, blocks: usize) -> Sums<'a> {
        match bias {
            None => Sums::Second,
            Some(bias) if blocks == 2 => Sums::First(bias),
            some => Sums::Whole(some),
        }
    }
}

/// The convolution that a dense layer is.
fn as_conv(s: &DenseShape, n: usize) -> Conv {
    Conv::pixel(n, dense_inputs(s), pad8(s.outputs))
}

/// The addresses of a parameter's shadows, which its buffer has room for; `None` for all other buffers.
pub(super) fn shadows(w: &Buffer, shape: TensorShape) -> Option<[u64; 2]> {
    let (own, elems) = (layout::bytes(&shape), layout::elems(&shape));
    let first = w.address() + own as u64;
    (layout::bytes_with_rest(&shape) > own && w.bytes() > own).then_some([first, first + 2 * elems as u64])
}

fn shadows_of_param(w: &Buffer, shape: TensorShape) -> [u64; 2] {
    shadows(w, shape).unwrap_or_else(|| panic!("{shape:?} without its shadows: made by alloc, not by alloc_param"))
}

impl Bf16 {
    /// The forward product of `f`; `w` is the address of filters in bf16. `logits` are written in fp32.
    fn forward(
        &self,
        me: &CudaBackend,
        f: Conv,
        x: &Buffer,
        w: u64,
        sums: Sums<'_>,
        logits: bool,
        y: &mut Buffer,
    ) -> Result<()> {
        let [rows, columns, depth] = f.forward();
        let Cut { tile, grid, split } = cut([rows, columns, depth], &FORWARD_TILES);
        let count = split.count;
        // The first block's sums lie before the parts.
        let waiting = if let Sums::Whole(_) = sums { 0 } else { rows * columns };
        let partials = me.partials(waiting + PARTIALS)?;
        let first = partials.as_ref().value();
        let (bias, waits, adds) = match sums {
            Sums::Whole(bias) => (bias, false, false),
            Sums::First(bias) => (Some(bias), true, false),
            Sums::Second => (None, false, true),
        };
        let out = if waits { first } else { y.address() };
        let (out_fp32, out_bf16) = if waits || logits { (out, 0) } else { (0, out) };
        let product = |bias: Option<&Buffer>, start: u64, sums: u64, y: u64| match tile[1] {
            128 => launch!(me, self.conv_forward_128, grid, f, split, x, w, bias, start, sums, y),
            96 => launch!(me, self.conv_forward_96, grid, f, split, x, w, bias, start, sums, y),
            _ => launch!(me, self.conv_forward_64, grid, f, split, x, w, bias, start, sums, y),
        };
        if count == 1 {
            return product(bias, if adds { first } else { 0 }, out_fp32, out_bf16);
        }
        let parts = first + (waiting * size_of::<f32>()) as u64;
        product(None, 0, parts, 0)?;
        let (from, count) = if adds { (first, count + 1) } else { (parts, count) };
        self.reduce(me, [rows, columns], count, from, bias, [out_bf16, out_fp32])
    }

    /// Adds up `count` parts in their order, to bf16 or to fp32; the other address is 0.
    fn reduce(
        &self,
        me: &CudaBackend,
        [rows, columns]: [usize; 2],
        count: u32,
        parts: u64,
        bias: Option<&Buffer>,
        [y, out]: [u64; 2],
    ) -> Result<()> {
        let (grid, rows, columns) = (fours(rows * columns), rows as u32, columns as u32);
        launch!(me, self.reduce_parts, grid, rows, columns, count, parts, bias, y, out)
    }

    /// dw = the sum over the pixels of the batch; weights that do not exist are 0.
    fn backward_weight(
        &self,
        me: &CudaBackend,
        f: Conv,
        absent: Absent,
        x: &Buffer,
        dy: &Buffer,
        dw: &mut Buffer,
    ) -> Result<()> {
        let [pixels, k, columns] = f.forward();
        let Cut { tile, grid, split } = cut([k, columns, pixels], &WEIGHT_TILES);
        let partials = me.partials(PARTIALS)?;
        let parts = if split.count == 1 { dw.address() } else { partials.as_ref().value() };
        match tile[0] {
            128 => launch!(me, self.conv_backward_weight_128, grid, f, split, x, dy, parts)?,
            _ => launch!(me, self.conv_backward_weight_64, grid, f, split, x, dy, parts)?,
        }
        if split.count == 1 && !absent.is_any() {
            return Ok(());
        }
        let elems = k * columns;
        launch!(me, self.reduce_weights, fours(elems), (elems as u32), (split.count), absent, parts, dw)
    }

    /// dbias = the sum of dy's `rows`, of so many columns.
    fn backward_bias(
        &self,
        me: &CudaBackend,
        rows: usize,
        columns: usize,
        dy: &Buffer,
        dbias: &mut Buffer,
    ) -> Result<()> {
        const ROWS_A_PART: usize = 256;
        let columns = pad8(columns);
        // Two blocks for each multiprocessor, but no part of a few rows.
        let per_part = ROWS_A_PART.max(rows.div_ceil(WANTED_BLOCKS));
        let count = rows.div_ceil(per_part);
        let partials = me.partials(PARTIALS)?;
        let parts = partials.as_ref().value();
        let grid = Grid { blocks: [count, columns.div_ceil(64), 1], threads: ELEMENT_THREADS };
        let (rows, wide, per_part) = (rows as u32, columns as u32, per_part as u32);
        launch!(me, self.bias_gradient, grid, rows, wide, per_part, dy, parts)?;
        self.reduce(me, [1, columns], count as u32, parts, None, [0, dbias.address()])
    }

    /// Makes the shadow for the gradient by the input, where there is one.
    pub(super) fn make_rotated(&self, me: &CudaBackend, shape: TensorShape, w: &Buffer) -> Result<()> {
        match (shape, shadows(w, shape)) {
            (TensorShape::Filters(s), Some([shadow, rotated])) if s.stride == 1 => {
                let form = Unstrided::of(&s);
                let [k, r, s, c] = [form.k, form.r, form.s, form.c].map(|size| size as u32);
                launch!(me, self.rotate_filters, eights(form.filters()), k, r, s, c, shadow, rotated)
            }
            _ => Ok(()),
        }
    }

    pub(in crate::backend::cuda) fn conv_forward(
        &self,
        me: &CudaBackend,
        s: &ConvShape,
        n: usize,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        let [shadow, _] = shadows_of_param(w, TensorShape::Filters(*s));
        self.forward(me, Conv::new(s, n), x, shadow, Sums::of(bias, s.blocks), false, y)
    }

    pub(in crate::backend::cuda) fn conv_backward_input(
        &self,
        me: &CudaBackend,
        s: &ConvShape,
        n: usize,
        dy: &Buffer,
        w: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let [_, rotated] = shadows_of_param(w, TensorShape::Filters(*s));
        self.forward(me, Conv::new(s, n).turned(), dy, rotated, Sums::Whole(None), false, dx)
    }

    pub(in crate::backend::cuda) fn conv_backward_weight(
        &self,
        me: &CudaBackend,
        s: &ConvShape,
        n: usize,
        x: &Buffer,
        dy: &Buffer,
        dw: &mut Buffer,
    ) -> Result<()> {
        self.backward_weight(me, Conv::new(s, n), Absent::new(s), x, dy, dw)
    }

    pub(in crate::backend::cuda) fn conv_backward_bias(
        &self,
        me: &CudaBackend,
        s: &ConvShape,
        n: usize,
        dy: &Buffer,
        dbias: &mut Buffer,
    ) -> Result<()> {
        self.backward_bias(me, n * s.p * s.q, s.k, dy, dbias)
    }

    pub(in crate::backend::cuda) fn dense_forward(
        &self,
        me: &CudaBackend,
        s: &DenseShape,
        n: usize,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        let [shadow, _] = shadows_of_param(w, TensorShape::Weights(*s));
        self.forward(me, as_conv(s, n), x, shadow, Sums::of(bias, s.blocks), s.logits, y)
    }

    pub(in crate::backend::cuda) fn dense_backward_input(
        &self,
        me: &CudaBackend,
        s: &DenseShape,
        n: usize,
        dy: &Buffer,
        w: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let ([w, _], inputs, outputs) =
            (shadows_of_param(w, TensorShape::Weights(*s)), dense_inputs(s), pad8(s.outputs));
        let Cut { grid, split, .. } = cut([n, inputs, outputs], &DENSE_INPUT_TILES);
        let partials = me.partials(PARTIALS)?;
        let (whole, parts) = (split.count == 1, partials.as_ref().value());
        let (sums, y) = if whole { (0, dx.address()) } else { (parts, 0) };
        let [images, ins, outs] = [n, inputs, outputs].map(|size| size as u32);
        launch!(me, self.dense_backward_input, grid, images, ins, outs, split, dy, w, sums, y)?;
        if whole {
            return Ok(());
        }
        self.reduce(me, [n, inputs], split.count, parts, None, [dx.address(), 0])
    }

    pub(in crate::backend::cuda) fn dense_backward_weight(
        &self,
        me: &CudaBackend,
        s: &DenseShape,
        n: usize,
        x: &Buffer,
        dy: &Buffer,
        dw: &mut Buffer,
    ) -> Result<()> {
        let conv = as_conv(s, n);
        self.backward_weight(me, conv, conv.all_there(), x, dy, dw)
    }

    pub(in crate::backend::cuda) fn dense_backward_bias(
        &self,
        me: &CudaBackend,
        s: &DenseShape,
        n: usize,
        dy: &Buffer,
        dbias: &mut Buffer,
    ) -> Result<()> {
        self.backward_bias(me, n, s.outputs, dy, dbias)
    }
}
