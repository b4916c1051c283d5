//! Matrix products, on one thread each: callers cut the work at fixed points, so that the sums' order is fixed too.

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

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// A matrix to be written: a block of columns of one with rows every `row_stride` elements.
pub struct MatMut<'a> {
    start: *mut f32,
    rows: usize,
    cols: usize,
    row_stride: usize,
    memory: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `MatMut` is the only way to its elements, as a mutable slice is, and f32 may cross threads.
unsafe impl Send for MatMut<'_> {}

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

    /// Cuts the matrix into blocks of `width` columns (the last may be narrower), each with its first column's number.
    pub fn column_blocks(self, width: usize) -> Vec<(usize, MatMut<'a>)> {
        let block = |first: usize| {
            // SAFETY: `first` < `cols`, so the pointer stays in the first row; blocks share no column.
            let start = unsafe { self.start.add(first) };
            (first, MatMut { start, cols: width.min(self.cols - first), ..self })
        };
        if self.rows == 0 { Vec::new() } else { (0..self.cols).step_by(width).map(block).collect() }
    }
}

/// dst = a b, or dst += a b where `accumulate`.
pub fn gemm(dst: &mut MatMut, a: Mat, b: Mat, accumulate: bool) {
    assert_eq!((dst.rows, dst.cols, a.cols), (a.rows, b.cols, b.rows), "sizes of the matrix product differ");
    if dst.rows == 0 || dst.cols == 0 {
        return;
    }
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
