//! Quantized coefficients to entropy-coded bits (ITU-T T.81, F.1.2).

use super::fdct::Coefficients;
use super::tables::{AC, Codes, DC};

/// By symbol: the code, shifted by the bits of the number behind it, and the bits of both.
pub type Table = [(u32, u32); 256];

/// Of DC and of AC coefficients, of luminance and of chrominance.
pub static TABLES: [[Table; 2]; 2] = [[table(&DC[0]), table(&AC[0])], [table(&DC[1]), table(&AC[1])]];

/// Codes of a table (C.2).
const fn table((counts, symbols): &Codes) -> Table {
    let mut table = [(0, 0); 256];
    let (mut code, mut place, mut length) = (0, 0, 1);
    while length <= 16 {
        let mut left = counts[length - 1];
        while left > 0 {
            let symbol = symbols[place];
            let size = symbol as u32 & 15;
            table[symbol as usize] = (code << size, length as u32 + size);
            (code, place, left) = (code + 1, place + 1, left - 1);
        }
        (code, length) = (code << 1, length + 1);
    }
    table
}

/// Entropy-coded data.
pub struct Bits {
    bytes: Vec<u8>,
    rest: Rest,
}

/// Bits that are not in the bytes yet.
#[derive(Clone, Copy, Default)]
struct Rest {
    /// The last ones are at the bottom; what is above the others does not count.
    bits: u64,
    /// Fewer than 32.
    count: u32,
}

impl Bits {
    /// Behind `bytes`.
    pub fn after(bytes: Vec<u8>) -> Self {
        Bits { bytes, rest: Rest::default() }
    }

    /// A block (F.1.2); `prediction` is the DC coefficient of the one before.
    #[inline(always)]
    pub fn block(&mut self, group: &Coefficients, lane: usize, prediction: &mut i32, [dc, ac]: &[Table; 2]) {
        let mut rest = self.rest;
        let value = i32::from(group.values[0][lane]);
        rest.number(dc, 0, value - *prediction, &mut self.bytes);
        *prediction = value;
        let mut nonzero = group.nonzero[lane] & !1;
        let mut before = 0;
        while nonzero != 0 {
            let k = nonzero.trailing_zeros();
            nonzero &= nonzero - 1;
            let mut run = k - before - 1;
            before = k;
            while run > 15 {
                rest.put(ac[0xf0], &mut self.bytes);
                run -= 16;
            }
            rest.number(ac, run, i32::from(group.values[k as usize & 63][lane]), &mut self.bytes);
        }
        if before < 63 {
            rest.put(ac[0], &mut self.bytes);
        }
        self.rest = rest;
    }

    /// All bytes: the last one is filled with ones (F.1.2.3).
    pub fn finish(mut self) -> Vec<u8> {
        let count = self.rest.count.next_multiple_of(8);
        let fill = count - self.rest.count;
        let bits = self.rest.bits << fill | ((1 << fill) - 1);
        (0..count / 8).rev().for_each(|byte| stuff((bits >> (8 * byte)) as u8, &mut self.bytes));
        self.bytes
    }
}

impl Rest {
    /// A number after a run of zeros.
    #[inline(always)]
    fn number(&mut self, table: &Table, run: u32, value: i32, bytes: &mut Vec<u8>) {
        let size = 32 - value.unsigned_abs().leading_zeros();
        let (code, length) = table[(run << 4 | size) as usize & 255];
        let number = (value + (value >> 31)) as u32 & ((1 << size) - 1);
        self.put((code | number, length), bytes);
    }

    #[inline(always)]
    fn put(&mut self, (code, length): (u32, u32), bytes: &mut Vec<u8>) {
        self.bits = self.bits << length | u64::from(code);
        self.count += length;
        if self.count >= 32 {
            self.count -= 32;
            let word = (self.bits >> self.count) as u32;
            // Whether a byte is 0xff: then its complement is zero.
            if (!word).wrapping_sub(0x0101_0101) & word & 0x8080_8080 == 0 {
                bytes.extend_from_slice(&word.to_be_bytes());
            } else {
                word.to_be_bytes().into_iter().for_each(|byte| stuff(byte, bytes));
            }
        }
    }
}

/// After 0xff comes a zero (B.1.1.5).
fn stuff(byte: u8, bytes: &mut Vec<u8>) {
    bytes.push(byte);
    if byte == 0xff {
        bytes.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_written() {
        let mut group = Coefficients::default();
        (group.values[0][3], group.values[1][3], group.values[3][3]) = (5, -1, 2);
        group.nonzero[3] = 0b1011;
        let (mut bits, mut prediction) = (Bits::after(Vec::new()), 0);
        bits.block(&group, 3, &mut prediction, &TABLES[0]);
        // 100 101, 00 0, 11011 10, 1010 (tables K.3 and K.5), filled with ones.
        assert_eq!(bits.finish(), [0b1001_0100, 0b0110_1110, 0b1010_1111]);
        assert_eq!(prediction, 5);
    }

    #[test]
    fn zeros_follow_bytes_that_look_like_markers() {
        let mut bits = Bits::after(Vec::new());
        bits.rest.put((0xffff, 16), &mut bits.bytes);
        bits.rest.put((0x12ff, 16), &mut bits.bytes);
        bits.rest.put((0x7f, 7), &mut bits.bytes);
        assert_eq!(bits.finish(), [0xff, 0, 0xff, 0, 0x12, 0xff, 0, 0xff, 0]);
    }
}
