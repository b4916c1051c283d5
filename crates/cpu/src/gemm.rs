//! Matrix products of any shape, on one thread each: callers cut the work at fixed points, so that the sums' order is
//! fixed too.
//!
//! Loop nest: the left operand is copied to blocks of 8 rows whose depths follow each other; for each two panels of
//! columns the right operand is copied to lines, and each block of rows is multiplied with them while they stay in the
//! caches.

use std::cell::Cell;

use pulp::{Simd, WithSimd};

use crate::operands::Fp32;
use crate::panels::{AcrossRows, Left, PANEL, ROWS, multiply, scratch_slice, to_lines};
use crate::simd::dispatch;

/// A matrix in a slice: element (i, j) is `data[i * row_stride + j]`, or the other way round where it is `turned`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    turned: bool,
}

impl<'a> Mat<'a> {
    /// `rows` x `cols`, row after row.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "matrix {rows}x{cols} outside its memory");
        Mat { data, rows, cols, row_stride: cols, turned: false }
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        Mat { turned: !self.turned, rows: self.cols, cols: self.rows, ..self }
    }

    /// Columns from `from` on, 16 at most, as one line for each row; missing values are 0.
    #[inline(always)]
    fn panel<S: Simd>(self, simd: S, from: usize, lines: &mut [f32]) {
        let cols = PANEL.min(self.cols - from);
        if self.turned {
            return to_lines(simd, &self.data[from * self.row_stride..], self.row_stride, cols, self.rows, lines);
        }
        for (row, line) in lines.chunks_exact_mut(PANEL).enumerate() {
            line[..cols].copy_from_slice(&self.data[row * self.row_stride + from..][..cols]);
            line[cols..].fill(0.);
        }
    }
}

/// Memory that a thread keeps between calls.
#[derive(Default)]
struct Scratch {
    left: Vec<f32>,
    lines: Vec<f32>,
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> =
        const { Cell::new(Scratch { left: Vec::new(), lines: Vec::new(), sums: Vec::new() }) };
}

/// dst = a b, or dst += a b where `accumulate`; `dst` holds the product row after row.
pub fn gemm(dst: &mut [f32], a: Mat, b: Mat, accumulate: bool) {
    assert_eq!((dst.len(), a.cols), (a.rows * b.cols, b.rows), "sizes of the matrix product differ");
    let mut scratch = SCRATCH.take();
    dispatch(Product { dst, a, b, accumulate, scratch: &mut scratch });
    SCRATCH.set(scratch);
}

struct Product<'a> {
    dst: &'a mut [f32],
    a: Mat<'a>,
    b: Mat<'a>,
    accumulate: bool,
    scratch: &'a mut Scratch,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { dst, a, b, accumulate, scratch } = self;
        let (depth, rows) = (a.cols, a.rows.next_multiple_of(PANEL));
        let left = scratch_slice(&mut scratch.left, rows * depth);
        for (row, lines) in (0..a.rows).step_by(PANEL).zip(left.chunks_exact_mut((PANEL * depth).max(1))) {
            a.t().panel(simd, row, lines);
        }
        let lines = scratch_slice(&mut scratch.lines, 2 * depth * PANEL);
        let sums = scratch_slice(&mut scratch.sums, 2 * rows * PANEL);
        for from in (0..b.cols).step_by(2 * PANEL) {
            let panels = (b.cols - from).div_ceil(PANEL).min(2);
            for panel in 0..panels {
                b.panel(simd, from + panel * PANEL, &mut lines[panel * depth * PANEL..][..depth * PANEL]);
            }
            for row in (0..a.rows).step_by(PANEL) {
                let count = if a.rows - row > ROWS { PANEL } else { ROWS };
                // SAFETY: 8 or 16 rows of the left operand, the panels' lines, and their sums.
                unsafe {
                    let (start, sums) = (lines.as_ptr(), sums.as_mut_ptr());
                    let b = [0, 1].map(|i| start.add(i * depth * PANEL));
                    let c = [0, 1].map(|i| sums.add((i * rows + row) * PANEL));
                    let (start_of_row, left) =
                        (left.as_ptr().add(row * depth), Left { chunk_stride: 0, chunks: 1, depth });
                    let (b, c) = (&b[..panels], &c[..panels]);
                    multiply::<S, Fp32, AcrossRows<PANEL>, ROWS>(simd, count, left, start_of_row, b, c, false);
                }
            }
            for panel in 0..panels {
                let from = from + panel * PANEL;
                let cols = PANEL.min(b.cols - from);
                let lines = sums[panel * rows * PANEL..].chunks_exact(PANEL);
                for (to, line) in dst.chunks_exact_mut(b.cols).zip(lines) {
                    let to = &mut to[from..][..cols];
                    if accumulate {
                        to.iter_mut().zip(line).for_each(|(to, sum)| *to += sum);
                    } else {
                        to.copy_from_slice(&line[..cols]);
                    }
                }
            }
        }
    }
}
