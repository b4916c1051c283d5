//! Counter-based random numbers: every draw is a pure function of (seed, purpose, who asks), so the same run gives
//! the same numbers in any order, on any device, for any number of threads, resumed or not.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the one
//! that CUDA libraries use, so that a kernel can make the same numbers in a few instructions.

/// The purpose of a random number. Part of the key, so that two uses never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights: counters are (element, parameter, stream).
    Init = 1,
    /// Order of the images: counters are (draw, epoch).
    Shuffle = 2,
    /// Crop offsets and flip of an image: counters are (image, epoch).
    Augment = 3,
    /// Dropout masks: counters are (unit / 4, sample, step); the layer is mixed into the key.
    Dropout = 4,
    /// Colour noise of an image: counters are (image, epoch).
    Colour = 6,
    /// The choice of a class's held-out images.
    Split = 7,
    /// Directions of the gradient check.
    Check = 5,
}

/// The stream of random numbers of one seed and purpose, addressed by a 128-bit counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The generator for `purpose` (and `layer`, where a purpose needs one a layer) under `seed`.
    pub fn new(seed: u64, purpose: Purpose, layer: u32) -> Self {
        let tag = (purpose as u32) << 16 ^ layer;
        Philox { key: [seed as u32 ^ tag.wrapping_mul(0x9E37_79B9), (seed >> 32) as u32 ^ tag] }
    }

    /// The key, for kernels that draw the same numbers.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// Four independent 32-bit numbers for one counter.
    #[inline(always)]
    pub fn block(&self, counter: [u32; 4]) -> [u32; 4] {
        let [mut k0, mut k1] = self.key;
        let mut c = counter;
        for _ in 0..10 {
            let lo = u64::from(c[0]) * 0xD251_1F53;
            let hi = u64::from(c[2]) * 0xCD9E_8D57;
            c = [(hi >> 32) as u32 ^ c[1] ^ k0, hi as u32, (lo >> 32) as u32 ^ c[3] ^ k1, lo as u32];
            k0 = k0.wrapping_add(0x9E37_79B9);
            k1 = k1.wrapping_add(0xBB67_AE85);
        }
        c
    }

    /// A number in 0..`bound`, by the multiply-shift method (bias below bound / 2^32).
    pub fn below(&self, counter: [u32; 4], bound: u32) -> u32 {
        ((u64::from(self.block(counter)[0]) * u64::from(bound)) >> 32) as u32
    }

    /// A uniform number in the open interval (0, 1).
    pub fn uniform(&self, counter: [u32; 4]) -> f64 {
        open_unit(self.block(counter)[0])
    }

    /// A standard normal number (Box-Muller on two of the four words, in f64).
    pub fn normal(&self, counter: [u32; 4]) -> f64 {
        let words = self.block(counter);
        let radius = (-2.0 * open_unit(words[0]).ln()).sqrt();
        radius * (std::f64::consts::TAU * open_unit(words[1])).cos()
    }

    /// A permutation of 0..`len` (Fisher-Yates), for the epoch or whatever else `who` names.
    pub fn permutation(&self, len: usize, who: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for i in (1..len).rev() {
            order.swap(i, self.below([i as u32, who, 0, 0], i as u32 + 1) as usize);
        }
        order
    }
}

fn open_unit(word: u32) -> f64 {
    (f64::from(word) + 0.5) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        // Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
        let cases = [
            ([0; 4], [0; 2], [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(Philox { key }.block(counter), expected);
        }
    }

    #[test]
    fn a_permutation_holds_every_index_once_and_differs_by_epoch() {
        let rng = Philox::new(7, Purpose::Shuffle, 0);
        let (first, second) = (rng.permutation(1000, 0), rng.permutation(1000, 1));
        assert_ne!(first, second);
        let mut sorted = first;
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &v)| i as u32 == v));
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let rng = Philox::new(1, Purpose::Init, 0);
        let draws: Vec<f64> = (0..100_000).map(|i| rng.normal([i, 0, 0, 0])).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }
}
