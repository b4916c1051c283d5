//! How the matrix products of fp32 and tf32 are cut.

use std::sync::MutexGuard;

use super::device::Buffer;
use super::kernels::{Exact, Split};
use super::sources::{ELEMENT_THREADS, GEMM_THREADS, TILE_COLS, TILE_DEPTH, TILE_ROWS};
use super::{Argument, CudaBackend, Grid, arg, launch};
use crate::error::Result;

/// Products that a part of a cut sum has at least: below that adding the parts costs more than it brings.
const LEAST_DEPTH: usize = 8 * TILE_DEPTH;

/// Blocks that a matrix product should have at least: more than any GPU has multiprocessors.
const WANTED_BLOCKS: usize = 256;

/// Partial sums of the largest split product: each of so many blocks has a tile at most.
pub const PARTIALS: usize = WANTED_BLOCKS * TILE_ROWS * TILE_COLS;

/// A matrix product about to be queued.
pub(super) struct Product<'a> {
    pub grid: Grid,
    pub split: Split,
    elems: usize,
    partials: MutexGuard<'a, Option<Buffer>>,
}

/// The partial sums.
impl Argument for Product<'_> {
    type Value = u64;
    fn value(&self) -> u64 {
        self.partials.as_ref().value()
    }
}

impl CudaBackend {
    /// Plans a matrix product of `rows` x `cols` sums over `depth` products each. Where its tiles are too few for a GPU
    /// the sums are cut into parts, to be added in their order by [`CudaBackend::add_parts`]. How they are cut depends
    /// on the sizes alone, so that every GPU of one architecture gives the same bits.
    pub(super) fn plan_product(&self, [rows, cols, depth]: [usize; 3]) -> Result<Product<'_>> {
        let (tile_rows, tile_cols) = (rows.div_ceil(TILE_ROWS), cols.div_ceil(TILE_COLS));
        let wanted = WANTED_BLOCKS / (tile_rows * tile_cols).max(1);
        let count = wanted.clamp(1, (depth / LEAST_DEPTH).max(1));
        let part = depth.div_ceil(count).next_multiple_of(TILE_DEPTH);
        let count = depth.div_ceil(part);
        let elems = rows * cols;
        let partials = self.partials(PARTIALS)?;
        debug_assert!(count == 1 || count * elems <= PARTIALS, "{count} parts of {elems} sums");
        let grid = Grid { blocks: [tile_cols, tile_rows, count], threads: GEMM_THREADS };
        let split = Split { count: count as u32, depth: part as u32 };
        Ok(Product { grid, split, elems, partials })
    }

    /// Adds up the parts of a product into `out`: onto what is there (`adds`), or onto the bias of each element's
    /// channel (a channel has `pixels` neighbouring elements), or onto 0.
    pub(super) fn add_parts(
        &self,
        kernels: &Exact,
        product: Product<'_>,
        bias: Option<&Buffer>,
        [pixels, channels]: [usize; 2],
        adds: bool,
        out: &mut Buffer,
    ) -> Result<()> {
        if product.split.count == 1 {
            return Ok(()); // the product's kernel has written the result itself
        }
        let (elems, pixels, channels) = (product.elems as u32, pixels as u32, channels as u32);
        let (grid, count) = (Grid::over(product.elems, ELEMENT_THREADS), product.split.count);
        launch!(
            self,
            kernels.reduce_partials,
            grid,
            elems,
            count,
            product,
            bias,
            pixels,
            channels,
            u32::from(adds),
            out
        )
    }
}
