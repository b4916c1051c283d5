//! Entropy-coded bits, and the coefficients that they stand for (ITU-T T.81, F.2.2).

use super::huffman::{Huffman, LOOKUP};

/// The number that the bits at the top of `bits` stand for (F.2.2.1, EXTEND): 64 - `complement` of them, one or more.
/// Negative ones begin with 0, and are the complement of their absolute value.
#[inline(always)]
fn extend(bits: u64, complement: u32) -> i32 {
    let negative = !((bits as i64) >> 63);
    let magnitude = (bits ^ negative as u64) >> (complement & 63);
    (magnitude as i32 ^ negative as i32) - negative as i32
}

/// Entropy-coded bits, from the first to the last.
#[derive(Clone, Copy)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// Where they end in `bytes`.
    end: usize,
    /// Of the next byte to be loaded.
    at: usize,
    /// The next bits, from the top.
    bits: u64,
    /// How many of them count.
    count: u32,
}

impl<'a> Bits<'a> {
    /// Of bytes without stuffing, up to `end`. There should be eight more; what they are does not matter.
    pub fn new(bytes: &'a [u8], end: usize) -> Self {
        Bits { bytes, end, at: 0, bits: 0, count: 0 }
    }

    /// Whether more was taken than there is.
    pub fn is_overrun(&self) -> bool {
        8 * self.at - self.count as usize > 8 * self.end
    }

    /// Whether what is left is less than a byte.
    pub fn is_finished(&self) -> bool {
        8 * self.at - self.count as usize + 8 > 8 * self.end
    }

    /// Provides 56 bits or more.
    #[inline(always)]
    fn refill(&mut self) {
        let next = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk).map_or(0, |next| u64::from_be_bytes(*next));
        self.bits |= next >> self.count;
        self.at += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.bits <<= count;
        self.count -= count;
    }

    /// The difference to the DC coefficient of the block before (F.2.2.1).
    #[inline(always)]
    pub fn dc(&mut self, table: &Huffman) -> Option<i32> {
        self.refill();
        let entry = table.entry(self.bits);
        let (length, size) = if entry.total() > 0 && entry.step() == 1 {
            (entry.length(), entry.total() - entry.length())
        } else {
            let (length, symbol) = table.find(self.bits, 1)?;
            (length, u32::from(symbol))
        };
        if size > 11 {
            return None;
        }
        let difference = if size == 0 { 0 } else { extend(self.bits << length, 64 - size) };
        self.skip(length + size);
        Some(difference)
    }

    /// The AC coefficients of a block (F.2.2.2): where they are in zigzag order, and what they are, to `store`.
    ///
    /// None if a code is unknown, or there are more than 63 coefficients.
    #[inline(always)]
    pub fn ac<S: Store>(&mut self, table: &Huffman, store: &mut S) -> Option<()> {
        let mut bits = *self;
        let mut k = 0;
        'block: loop {
            bits.refill();
            for _ in 0..3 {
                let entry = table.entry(bits.bits);
                if entry.is_special() {
                    if entry.is_end_of_block() {
                        bits.skip(entry.total());
                        break 'block;
                    }
                    bits.refill();
                    let (length, symbol) = table.find(bits.bits, if entry.total() > 0 { 1 } else { LOOKUP + 1 })?;
                    bits.skip(length);
                    match (symbol >> 4, u32::from(symbol & 15)) {
                        (0, 0) => break 'block,
                        (15, 0) => k += 16,
                        (_, 0) => return None,
                        (run, size) => {
                            k += usize::from(run) + 1;
                            store.put(k, extend(bits.bits, 64 - size));
                            bits.skip(size);
                        }
                    }
                    if k < 63 {
                        break; // few bits may be left
                    }
                } else {
                    k += entry.step();
                    store.put(k, extend(bits.bits << entry.length(), entry.complement()));
                    bits.skip(entry.total());
                }
                if k >= 63 {
                    break 'block;
                }
            }
        }
        *self = bits;
        (k <= 63).then_some(())
    }
}

/// What becomes of coefficients.
pub trait Store {
    /// Takes the one at place `k` in zigzag order, from 1 on; beyond 63 it does not count.
    fn put(&mut self, k: usize, value: i32);
}

#[cfg(test)]
mod tests {
    use super::super::tables::{AC, DC};
    use super::*;

    struct List(Vec<(usize, i32)>);

    impl Store for List {
        fn put(&mut self, k: usize, value: i32) {
            self.0.push((k, value));
        }
    }

    #[test]
    fn numbers_are_extended_as_in_table_f_1() {
        for (bits, size, value) in
            [(0, 1, -1), (1, 1, 1), (0, 2, -3), (0b01, 2, -2), (0b10, 2, 2), (0, 11, -2047), (0x7ff, 11, 2047)]
        {
            let bits: u64 = bits;
            assert_eq!(extend(bits << (64 - size), 64 - size), value);
        }
    }

    #[test]
    fn a_block_is_read() {
        let [dc, ac] = [&DC[0], &AC[0]].map(|(counts, symbols)| Huffman::new(counts, symbols).expect("a table"));
        // By tables K.3 and K.5: 100 101 (5), 00 0 (-1), 11011 10 (a zero, 2), 1010 (end), filled with ones; and what
        // does not belong to it.
        let bytes = [0b1001_0100, 0b0110_1110, 0b1010_1111, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut bits = Bits::new(&bytes, 3);
        assert_eq!(bits.dc(&dc), Some(5));
        let mut list = List(Vec::new());
        assert_eq!(bits.ac(&ac, &mut list), Some(()));
        assert_eq!(list.0, [(1, -1), (3, 2)]);
        assert!(bits.is_finished() && !bits.is_overrun());
        assert!(bits.dc(&dc).is_none_or(|_| bits.is_overrun()));
    }
}
