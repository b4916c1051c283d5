//! Matrix products, on one thread each: callers cut the work at fixed points, so that the sums' order is fixed too.

use std::cell::RefCell;
use std::marker::PhantomData;

/// A matrix in a slice: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// `rows` x `cols`, row after row.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Mat::strided(data, rows, cols, cols)
    }

    /// `rows` x `cols` whose rows start every `row_stride` elements.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || data.len() >= (rows - 1) * row_stride + cols, "matrix {rows}x{cols} outside its memory");
        Mat { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// `count` rows from `first` on.
    fn rows(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows);
        Mat { data: &self.data[first * self.row_stride..], rows: count, ..self }
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// A matrix to be written, with rows every `row_stride` elements.
pub struct MatMut<'a> {
    start: *mut f32,
    rows: usize,
    cols: usize,
    row_stride: usize,
    memory: PhantomData<&'a mut [f32]>,
}

impl<'a> MatMut<'a> {
    /// `rows` x `cols`, row after row.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "matrix {rows}x{cols} outside its memory");
        MatMut { start: data.as_mut_ptr(), rows, cols, row_stride: cols, memory: PhantomData }
    }

    /// Row `i`.
    pub fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows);
        // SAFETY: the row's `cols` elements belong to this matrix alone, and the result borrows it mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.row_stride), self.cols) }
    }
}

/// dst = a b, or dst += a b where `accumulate`.
pub fn gemm(dst: &mut MatMut, a: Mat, b: Mat, accumulate: bool) {
    assert_eq!((dst.rows, dst.cols, a.cols), (a.rows, b.cols, b.rows), "sizes of the matrix product differ");
    if dst.rows == 0 || dst.cols == 0 {
        return;
    }
    if dst.rows > ALIASED_ROWS && dst.row_stride.is_multiple_of(ALIASED_STRIDE) {
        gemm_through_tiles(dst, a, b, accumulate);
    } else {
        gemm_direct(dst, a, b, accumulate);
    }
}

/// Rows that lie a multiple of 512 bytes apart fall into the same few sets of the first cache, and a product written to
/// more than a handful of such rows runs at a tenth of its speed (measured: 2048x4608, 32 deep: 62 ms; by tiles 7).
const ALIASED_STRIDE: usize = 128;
const ALIASED_ROWS: usize = 8;

/// Rows and columns of a tile; its rows are padded by one cache line, so that none alias. 400 KiB: fits the second
/// cache.
const TILE_ROWS: usize = 256;
const TILE_COLS: usize = 384;
const TILE_STRIDE: usize = TILE_COLS + 16;

thread_local! {
    /// Each thread's tile, kept between calls.
    static TILE: RefCell<Vec<f32>> = RefCell::new(vec![0.; TILE_ROWS * TILE_STRIDE]);
}

/// The same product through a tile whose rows do not alias.
fn gemm_through_tiles(dst: &mut MatMut, a: Mat, b: Mat, accumulate: bool) {
    TILE.with_borrow_mut(|memory| {
        for row in (0..dst.rows).step_by(TILE_ROWS) {
            let rows = TILE_ROWS.min(dst.rows - row);
            for col in (0..dst.cols).step_by(TILE_COLS) {
                let cols = TILE_COLS.min(dst.cols - col);
                let start = memory.as_mut_ptr();
                let mut tile = MatMut { start, rows, cols, row_stride: TILE_STRIDE, memory: PhantomData };
                gemm_direct(&mut tile, a.rows(row, rows), b.t().rows(col, cols).t(), false);
                for i in 0..rows {
                    let (to, from) = (&mut dst.row(row + i)[col..][..cols], tile.row(i));
                    if accumulate {
                        to.iter_mut().zip(from).for_each(|(to, from)| *to += *from);
                    } else {
                        to.copy_from_slice(from);
                    }
                }
            }
        }
    });
}

fn gemm_direct(dst: &mut MatMut, a: Mat, b: Mat, accumulate: bool) {
    // SAFETY: the constructors guarantee that every element that sizes and strides reach lies in its slice, and `dst`
    // is the only way to its elements, so it overlaps neither operand.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            dst.rows,
            dst.cols,
            a.cols,
            dst.start,
            1,
            dst.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.,
            1.,
            false,
            false,
            false,
            gemm_common::Parallelism::None,
        );
    }
}
