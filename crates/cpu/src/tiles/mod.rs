//! Products of bf16 by AMX: registers that hold whole tiles, 16 rows of 64 bytes, and one instruction that multiplies two
//! of them (Intel, "Architecture Instruction Set Extensions", chapter 3; processors since Sapphire Rapids, 2023).
//!
//! A tile of the left operand has 16 rows of up to 16 words (two neighbouring depths each), a tile of the right one a row
//! for each of these words with those of 16 columns, which is how panels lie in memory anyway; sums are 16 rows of 16
//! columns in fp32. A block of 32 rows by 32 columns keeps four tiles of sums while two and two of operands pass by. Where
//! the left operand's rows lie side by side, 16 x 16 words at a time are turned first.
//!
//! The unit adds up even depths and odd depths of a tile apart, then both, then that to the sum; values below 1e-38 count
//! as 0. So its bits are others than those of `vdpbf16ps`. `emulated.rs` does the same a number at a time, for tests.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(test)]
mod emulated;

use pulp::Simd;

use super::panels::{Left, PANEL, Strides};
use super::transpose::{Square, transpose};

#[cfg(target_arch = "x86_64")]
pub use self::amx::{Amx, is_there};

/// Rows of a tile, and words of a row.
pub const SIDE: usize = 16;

/// The registers' roles: sums 0 to 3, left operands 4 and 5, right operands 6 and 7.
const SUMS: [[u8; 2]; 2] = [[0, 1], [2, 3]];

/// What holds and multiplies tiles. Registers are named by their numbers.
pub trait Unit {
    /// Sets the rows of left operands and of sums, and the words of depth; what registers hold is lost.
    fn shape(&mut self, rows: usize, words: usize);

    /// Sums to 0.
    fn zero<const TO: u8>(&mut self);

    /// Reads a tile whose rows are `stride` words apart.
    ///
    /// # Safety
    /// All of it must be valid.
    unsafe fn load<const TO: u8>(&mut self, from: *const f32, stride: usize);

    /// Writes a tile of sums whose rows are 16 words apart.
    ///
    /// # Safety
    /// All of it must be valid, for this thread alone.
    unsafe fn store<const FROM: u8>(&mut self, to: *mut f32);

    /// sum += left right.
    fn multiply_add<const SUM: u8, const LEFT: u8, const RIGHT: u8>(&mut self);
}

/// As `multiply` of panels.rs, for operands of bf16 in vectors of 16 words: `rows` is a multiple of 8.
///
/// # Safety
/// As there.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub unsafe fn multiply<S: Simd, U: Unit, L: Strides>(
    simd: S,
    unit: &mut U,
    rows: usize,
    left: Left,
    a: *const f32,
    b: &[*const f32],
    c: &[*mut f32],
    accumulate: bool,
) {
    let whole = rows / SIDE * SIDE;
    // SAFETY: by this function's contract: all rows are within the operands.
    unsafe {
        for row in (0..whole).step_by(2 * SIDE) {
            let tall = row + SIDE < whole;
            match (tall, b.len()) {
                (true, 2) => block::<S, U, L, 2, 2>(simd, unit, SIDE, row, left, a, b, c, accumulate),
                (true, _) => block::<S, U, L, 2, 1>(simd, unit, SIDE, row, left, a, b, c, accumulate),
                (false, 2) => block::<S, U, L, 1, 2>(simd, unit, SIDE, row, left, a, b, c, accumulate),
                (false, _) => block::<S, U, L, 1, 1>(simd, unit, SIDE, row, left, a, b, c, accumulate),
            }
        }
        match (rows - whole, b.len()) {
            (0, _) => {}
            (rest, 2) => block::<S, U, L, 1, 2>(simd, unit, rest, whole, left, a, b, c, accumulate),
            (rest, _) => block::<S, U, L, 1, 1>(simd, unit, rest, whole, left, a, b, c, accumulate),
        }
    }
}

/// `height` rows, or twice as many where TALL is 2, from `row` on by one or two panels.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn block<S: Simd, U: Unit, L: Strides, const TALL: usize, const WIDE: usize>(
    simd: S,
    unit: &mut U,
    height: usize,
    row: usize,
    left: Left,
    a: *const f32,
    b: &[*const f32],
    c: &[*mut f32],
    accumulate: bool,
) {
    let step = left.depth.min(SIDE);
    unit.shape(height, step);
    // SAFETY: the sums' lines, and below the operands' rows and lines, are within what the caller vouches for.
    unsafe {
        let sums = |i: usize, j: usize| c[j].add((row + i * SIDE) * PANEL);
        begin_sums::<U, TALL, WIDE>(unit, accumulate, sums);
        let mut line = 0;
        for chunk in 0..left.chunks {
            let a = a.add(chunk * left.chunk_stride + row * L::ROW);
            let mut depth = 0;
            while depth < left.depth {
                let words = step.min(left.depth - depth);
                if words < step {
                    // The last tile of a depth: sums wait in memory for registers of another shape.
                    store_sums::<U, TALL, WIDE>(unit, sums);
                    unit.shape(height, words);
                    begin_sums::<U, TALL, WIDE>(unit, true, sums);
                }
                load_left::<S, U, L, 4>(simd, unit, a.add(depth * L::DEPTH), height, words);
                if TALL == 2 {
                    load_left::<S, U, L, 5>(simd, unit, a.add(SIDE * L::ROW + depth * L::DEPTH), height, words);
                }
                unit.load::<6>(b[0].add(line), PANEL);
                unit.multiply_add::<{ SUMS[0][0] }, 4, 6>();
                if TALL == 2 {
                    unit.multiply_add::<{ SUMS[1][0] }, 5, 6>();
                }
                if WIDE == 2 {
                    unit.load::<7>(b[1].add(line), PANEL);
                    unit.multiply_add::<{ SUMS[0][1] }, 4, 7>();
                    if TALL == 2 {
                        unit.multiply_add::<{ SUMS[1][1] }, 5, 7>();
                    }
                }
                (depth, line) = (depth + words, line + words * PANEL);
            }
            if !left.depth.is_multiple_of(step) && chunk + 1 < left.chunks {
                store_sums::<U, TALL, WIDE>(unit, sums);
                unit.shape(height, step);
                begin_sums::<U, TALL, WIDE>(unit, true, sums);
            }
        }
        store_sums::<U, TALL, WIDE>(unit, sums);
    }
}

/// The sums from memory, or 0.
#[inline(always)]
unsafe fn begin_sums<U: Unit, const TALL: usize, const WIDE: usize>(
    unit: &mut U,
    from_memory: bool,
    at: impl Fn(usize, usize) -> *mut f32,
) {
    macro_rules! begin {
        ($i:literal, $j:literal) => {
            if $i < TALL && $j < WIDE {
                if from_memory {
                    // SAFETY: by the caller's contract.
                    unsafe { unit.load::<{ SUMS[$i][$j] }>(at($i, $j), PANEL) }
                } else {
                    unit.zero::<{ SUMS[$i][$j] }>()
                }
            }
        };
    }
    begin!(0, 0);
    begin!(0, 1);
    begin!(1, 0);
    begin!(1, 1);
}

#[inline(always)]
unsafe fn store_sums<U: Unit, const TALL: usize, const WIDE: usize>(
    unit: &mut U,
    at: impl Fn(usize, usize) -> *mut f32,
) {
    // SAFETY: by the caller's contract.
    unsafe {
        unit.store::<{ SUMS[0][0] }>(at(0, 0));
        if WIDE == 2 {
            unit.store::<{ SUMS[0][1] }>(at(0, 1));
        }
        if TALL == 2 {
            unit.store::<{ SUMS[1][0] }>(at(1, 0));
        }
        if TALL == 2 && WIDE == 2 {
            unit.store::<{ SUMS[1][1] }>(at(1, 1));
        }
    }
}

/// `height` rows of `words` words, turned where rows lie side by side.
#[inline(always)]
unsafe fn load_left<S: Simd, U: Unit, L: Strides, const TO: u8>(
    simd: S,
    unit: &mut U,
    a: *const f32,
    height: usize,
    words: usize,
) {
    let mut turned: Square = [[0.; SIDE]; SIDE];
    // SAFETY: by the caller's contract: `words` lines of `height` words, or as many rows.
    unsafe {
        if L::DEPTH == 1 {
            return unit.load::<TO>(a, L::ROW);
        }
        if (height, words) == (SIDE, SIDE) {
            let all = std::slice::from_raw_parts(a, (SIDE - 1) * L::DEPTH + SIDE);
            transpose(simd, all, L::DEPTH, &mut turned);
        } else {
            let mut lines: Square = [[0.; SIDE]; SIDE];
            for (word, line) in lines.iter_mut().enumerate().take(words) {
                line[..height].copy_from_slice(std::slice::from_raw_parts(a.add(word * L::DEPTH), height));
            }
            transpose(simd, lines.as_flattened(), SIDE, &mut turned);
        }
        unit.load::<TO>(turned.as_ptr().cast(), SIDE);
    }
}
