//! The transform of sixteen blocks at once (ITU-T T.81, A.3.3), after Arai, Agui and Nakajima (1988), and quantization.

use super::idct::{LANES, Lanes, Scratch};
use super::tables::{AAN, ZIGZAG};

/// Quantized coefficients of blocks side by side.
#[derive(Clone)]
pub struct Coefficients {
    /// By place in zigzag order, and block.
    pub values: [[i16; LANES]; 64],
    /// For each block, a bit for each place in zigzag order where there is not zero.
    pub nonzero: [u64; LANES],
}

impl Default for Coefficients {
    fn default() -> Self {
        Coefficients { values: [[0; LANES]; 64], nonzero: [0; LANES] }
    }
}

/// What the transform's results are multiplied by to be quantized, in zigzag order, from the steps row by row.
pub fn quantization(steps: &[u8; 64]) -> [f32; 64] {
    ZIGZAG.map(|at| {
        let at = usize::from(at);
        (1. / (f64::from(steps[at]) * AAN[at / 8] * AAN[at % 8] * 8.)) as f32
    })
}

/// Transforms eight rows of samples.
#[inline(always)]
pub fn transform(rows: [&[u8; 8 * LANES]; 8], factors: &[f32; 64], scratch: &mut Scratch, to: &mut Coefficients) {
    let [half, values] = scratch;
    for (row, samples) in rows.iter().enumerate() {
        let mut blocks = [0u64; LANES];
        for (block, samples) in blocks.iter_mut().zip(samples.as_chunks::<8>().0) {
            *block = u64::from_le_bytes(*samples);
        }
        for column in 0..8 {
            for lane in 0..LANES {
                let sample = (blocks[lane] >> (8 * column)) as u32 & 255;
                values[8 * row + column][lane] = sample as i32 as f32 - 128.;
            }
        }
    }
    for row in 0..8 {
        pass(values, half, 8 * row, 1);
    }
    for column in 0..8 {
        pass(half, values, column, 8);
    }
    let mut nonzero = [[0u32; LANES]; 2];
    for (k, (to, factor)) in to.values.iter_mut().zip(factors).enumerate() {
        let from = &values[usize::from(ZIGZAG[k & 63] & 63)];
        let nonzero = &mut nonzero[k / 32];
        for lane in 0..LANES {
            // 1.5 2^23: the last bit of the sum is worth 1, and the lower 16 are those of the number rounded.
            let bits = (from[lane] * factor + 12_582_912.).to_bits();
            to[lane] = bits as i16;
            nonzero[lane] |= u32::from(bits as u16 != 0) << (k % 32);
        }
    }
    let [low, high] = &nonzero;
    for ((to, low), high) in to.nonzero.iter_mut().zip(low).zip(high) {
        *to = u64::from(*low) | u64::from(*high) << 32;
    }
}

/// Eight numbers `apart` from one another, from `first` on, of every block.
#[inline(always)]
fn pass(from: &[Lanes; 64], to: &mut [Lanes; 64], first: usize, apart: usize) {
    for lane in 0..LANES {
        let x = |k: usize| from[(first + k * apart) & 63][lane];
        let (sum07, difference07) = (x(0) + x(7), x(0) - x(7));
        let (sum16, difference16) = (x(1) + x(6), x(1) - x(6));
        let (sum25, difference25) = (x(2) + x(5), x(2) - x(5));
        let (sum34, difference34) = (x(3) + x(4), x(3) - x(4));
        let (outer, outer_difference) = (sum07 + sum34, sum07 - sum34);
        let (inner, inner_difference) = (sum16 + sum25, sum16 - sum25);
        let rotated = (inner_difference + outer_difference) * std::f32::consts::FRAC_1_SQRT_2;
        let (a, b, c) = (difference34 + difference25, difference25 + difference16, difference16 + difference07);
        let shared = (a - c) * 0.382_683_43;
        let (a, c) = (a * 0.541_196_1 + shared, c * 1.306_563 + shared);
        let b = b * std::f32::consts::FRAC_1_SQRT_2;
        let (sum, difference) = (difference07 + b, difference07 - b);
        let values = [
            outer + inner,
            sum + c,
            outer_difference + rotated,
            difference - a,
            outer - inner,
            difference + a,
            outer_difference - rotated,
            sum - c,
        ];
        for (k, value) in values.into_iter().enumerate() {
            to[(first + k * apart) & 63][lane] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::idct::{Group, dequantization};
    use super::*;

    #[test]
    fn the_inverse_transform_gives_the_samples_back() {
        let rows: [[u8; 8 * LANES]; 8] = std::array::from_fn(|row| {
            std::array::from_fn(|column| ((row * 37 + column * 11 + row * column * 5) % 256) as u8)
        });
        let mut scratch = [[[0.; LANES]; 64]; 2];
        let (mut coefficients, mut group) = (Coefficients::default(), Group::default());
        transform(rows.each_ref(), &quantization(&[1; 64]), &mut scratch, &mut coefficients);
        group.coefficients = coefficients.values;
        let mut columns = [0; 8 * LANES];
        group.transform(&dequantization(&[1; 64]), &mut scratch, &mut columns);
        for (row, samples) in rows.iter().enumerate() {
            for (sample, column) in samples.iter().zip(columns) {
                assert!(sample.abs_diff((column >> (8 * row)) as u8) <= 1);
            }
        }
        for (lane, nonzero) in coefficients.nonzero.iter().enumerate() {
            for k in 0..64 {
                assert_eq!(nonzero >> k & 1 == 1, coefficients.values[k][lane] != 0);
            }
        }
    }
}
