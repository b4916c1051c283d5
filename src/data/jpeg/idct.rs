//! The inverse transform of sixteen blocks at once (ITU-T T.81, A.3.3), after Arai, Agui and Nakajima (1988).

use super::clamped;
use super::tables::{AAN, ZIGZAG};

/// Blocks that are transformed at once.
pub const LANES: usize = 16;

/// One number of each block.
pub type Lanes = [f32; LANES];

/// Room for what is between the passes over columns and rows, and for what comes after: it is filled before it is read,
/// and to make it anew for each group would cost as much as a pass.
pub type Scratch = [[Lanes; 64]; 2];

/// The place in zigzag order, by the place row by row.
const PLACES: [u8; 64] = {
    let mut places = [0; 64];
    let mut k = 0;
    while k < 64 {
        places[ZIGZAG[k] as usize] = k as u8;
        k += 1;
    }
    places
};

/// Blocks side by side.
#[derive(Clone)]
pub struct Group {
    /// By place in zigzag order, and block.
    pub coefficients: [[i16; LANES]; 64],
}

impl Default for Group {
    fn default() -> Self {
        Group { coefficients: [[0; LANES]; 64] }
    }
}

/// What coefficients are multiplied by before [`Group::transform`], from the steps of their quantization.
pub fn dequantization(steps: &[u8; 64]) -> [f32; 64] {
    let mut factors = [0.; 64];
    for (at, (factor, step)) in factors.iter_mut().zip(steps).enumerate() {
        *factor = (f64::from(*step) * AAN[at / 8] * AAN[at % 8] / 8.) as f32;
    }
    factors
}

impl Group {
    /// Samples of the blocks' columns, the uppermost of the eight in the lowest byte. The group is empty after it.
    #[inline(always)]
    pub fn transform(&mut self, factors: &[f32; 64], scratch: &mut Scratch, columns: &mut [u64; 8 * LANES]) {
        let [half, values] = scratch;
        columns_pass(&self.coefficients, factors, half);
        rows_pass(half, values);
        self.coefficients = [[0; LANES]; 64];
        for column in 0..8 {
            let mut packed = [0u64; LANES];
            for lane in 0..LANES {
                let mut word = [0u32; 2];
                for row in 0..8 {
                    word[row / 4] |= u32::from(clamped(values[8 * row + column][lane])) << (8 * (row % 4));
                }
                packed[lane] = u64::from(word[0]) | u64::from(word[1]) << 32;
            }
            for lane in 0..LANES {
                columns[8 * lane + column] = packed[lane];
            }
        }
    }
}

/// Dequantizes and transforms the columns of every block.
#[inline(always)]
fn columns_pass(from: &[[i16; LANES]; 64], factors: &[f32; 64], to: &mut [Lanes; 64]) {
    for column in 0..8 {
        // Samples are shifted by 128 (A.3.1), and so are all that the DC coefficient adds to.
        let shift = if column == 0 { 128. } else { 0. };
        for lane in 0..LANES {
            let x = |row: usize| {
                f32::from(from[usize::from(PLACES[(8 * row + column) & 63] & 63)][lane])
                    * factors[(8 * row + column) & 63]
            };
            let values = pass([x(0) + shift, x(1), x(2), x(3), x(4), x(5), x(6), x(7)]);
            for row in 0..8 {
                to[(8 * row + column) & 63][lane] = values[row];
            }
        }
    }
}

/// Transforms the rows of every block.
#[inline(always)]
fn rows_pass(from: &[Lanes; 64], to: &mut [Lanes; 64]) {
    for row in 0..8 {
        for lane in 0..LANES {
            let x = |column: usize| from[(8 * row + column) & 63][lane];
            let values = pass([x(0), x(1), x(2), x(3), x(4), x(5), x(6), x(7)]);
            for column in 0..8 {
                to[(8 * row + column) & 63][lane] = values[column];
            }
        }
    }
}

/// The inverse transform of eight numbers, but for the factors of [`dequantization`].
#[inline(always)]
fn pass(x: [f32; 8]) -> [f32; 8] {
    const SQRT2: f32 = std::f32::consts::SQRT_2;
    let (sum04, difference04) = (x[0] + x[4], x[0] - x[4]);
    let sum26 = x[2] + x[6];
    let difference26 = (x[2] - x[6]) * SQRT2 - sum26;
    let [even0, even1] = [sum04 + sum26, difference04 + difference26];
    let [even2, even3] = [difference04 - difference26, sum04 - sum26];
    let (sum53, difference53) = (x[5] + x[3], x[5] - x[3]);
    let (sum17, difference17) = (x[1] + x[7], x[1] - x[7]);
    let rotated = (difference53 + difference17) * 1.847_759_1;
    let odd0 = sum17 + sum53;
    let odd1 = rotated - difference53 * 2.613_126 - odd0;
    let odd2 = (sum17 - sum53) * SQRT2 - odd1;
    let odd3 = rotated - difference17 * 1.082_392_2 - odd2;
    [even0 + odd0, even1 + odd1, even2 + odd2, even3 + odd3, even3 - odd3, even2 - odd2, even1 - odd1, even0 - odd0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_those_of_the_formula() {
        let steps: [u8; 64] = std::array::from_fn(|at| (at * 5 % 23 + 1) as u8);
        let (mut group, mut random) = (Group::default(), 1u32);
        for coefficients in group.coefficients.iter_mut().flatten() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *coefficients = (random >> 20) as i16 % 24 - 12;
        }
        let (before, mut columns) = (group.clone(), [0; 8 * LANES]);
        group.transform(&dequantization(&steps), &mut [[[0.; LANES]; 64]; 2], &mut columns);
        assert!(group.coefficients.iter().flatten().all(|&coefficient| coefficient == 0));
        let scale = |k: usize| if k == 0 { 0.5f64.sqrt() } else { 1. };
        let wave =
            |k: usize, at: usize| scale(k) / 2. * ((2 * at + 1) as f64 * k as f64 * std::f64::consts::PI / 16.).cos();
        for (lane, row, column) in (0..LANES * 64).map(|at| (at / 64, at / 8 % 8, at % 8)) {
            let sum: f64 = (0..64)
                .map(|at| {
                    let coefficient = before.coefficients[usize::from(PLACES[at])][lane];
                    f64::from(coefficient) * f64::from(steps[at]) * wave(at / 8, row) * wave(at % 8, column)
                })
                .sum();
            let expected = (sum + 128.).clamp(0., 255.);
            let sample = (columns[8 * lane + column] >> (8 * row)) as u8;
            assert!((f64::from(sample) - expected).abs() < 0.501, "{sample} {expected}");
        }
    }
}
