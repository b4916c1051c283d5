//! Huffman codes (ITU-T T.81, annex C), for reading.

/// Codes of so many bits or fewer are found by one look into a table.
pub const LOOKUP: u32 = 10;

/// Bits of a code and the number behind it, at most, for one look: three of them fit into the 56 bits that are at hand.
pub const SHORT: u32 = 18;

/// What the next [`LOOKUP`] bits begin with. From the lowest byte on: bits of the code and of the number behind it,
/// together, or 0 if the code is longer; bits of the code; 64 less the bits of the number; one more than the zero
/// coefficients before it, and [`Entry::SPECIAL`].
#[derive(Clone, Copy)]
pub struct Entry(u32);

impl Entry {
    /// See [`Entry::is_special`].
    const SPECIAL: u32 = 1 << 31;

    fn new(length: u32, symbol: u8) -> Self {
        let (size, step) = (u32::from(symbol & 15), u32::from(symbol >> 4) + 1);
        let special = if size == 0 || length + size > SHORT { Entry::SPECIAL } else { 0 };
        Entry((length + size) | (length << 8) | ((64 - size) << 16) | (step << 24) | special)
    }

    /// Whether it needs a closer look: no number follows the code, or it is longer than [`SHORT`] or [`LOOKUP`].
    #[inline(always)]
    pub fn is_special(self) -> bool {
        self.0 & Entry::SPECIAL != 0
    }

    /// Whether it is a code that is not longer than [`LOOKUP`] and says that no coefficients are left (EOB).
    #[inline(always)]
    pub fn is_end_of_block(self) -> bool {
        self.0 >> 16 == (Entry::SPECIAL | 1 << 24 | 64 << 16) >> 16
    }

    /// Bits of the code and of the number behind it; 0 if the code is longer than [`LOOKUP`].
    #[inline(always)]
    pub fn total(self) -> u32 {
        self.0 & 63
    }

    /// Bits of the code.
    #[inline(always)]
    pub fn length(self) -> u32 {
        self.0 >> 8 & 63
    }

    /// 64 less the bits of the number, and above the lower 6 bits what does not count.
    #[inline(always)]
    pub fn complement(self) -> u32 {
        self.0 >> 16
    }

    /// One more than the zero coefficients before the number.
    #[inline(always)]
    pub fn step(self) -> usize {
        (self.0 >> 24 & 31) as usize
    }
}

/// The codes of one table.
pub struct Huffman {
    /// By the next [`LOOKUP`] bits.
    entries: [Entry; 1 << LOOKUP],
    /// By length: codes of this length and shorter are below it, with zeros behind them up to 16 bits.
    limits: [u32; 17],
    /// By length: what a code exceeds the number of its symbol by.
    offsets: [u32; 17],
    /// In the order of their codes.
    symbols: [u8; 256],
}

impl Huffman {
    /// From the number of codes of each length from 1 to 16, and their symbols (C.2).
    ///
    /// None if there are more codes of a length than the shorter ones leave.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Huffman> {
        let mut table = Huffman {
            entries: [Entry(Entry::SPECIAL); 1 << LOOKUP],
            limits: [0; 17],
            offsets: [0; 17],
            symbols: [0; 256],
        };
        table.symbols.get_mut(..symbols.len())?.copy_from_slice(symbols);
        let (mut code, mut first) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            let count = usize::from(count);
            code <<= 1;
            table.offsets[length as usize] = code.wrapping_sub(first as u32);
            for &symbol in symbols.get(first..first + count)? {
                if code >> length != 0 {
                    return None;
                }
                if length <= LOOKUP {
                    let shift = LOOKUP - length;
                    table.entries[(code << shift) as usize..][..1 << shift].fill(Entry::new(length, symbol));
                }
                code += 1;
            }
            first += count;
            table.limits[length as usize] = code << (16 - length);
        }
        Some(table)
    }

    /// What `bits` begin with, from the top.
    #[inline(always)]
    pub fn entry(&self, bits: u64) -> Entry {
        self.entries[(bits >> (64 - LOOKUP)) as usize]
    }

    /// The length of the code at the top of `bits`, which is not shorter than `shortest`, and its symbol.
    pub fn find(&self, bits: u64, shortest: u32) -> Option<(u32, u8)> {
        let next = (bits >> 48) as u32;
        let length = (shortest..=16).find(|&length| next < self.limits[length as usize])?;
        let place = (next >> (16 - length)).wrapping_sub(self.offsets[length as usize]);
        Some((length, *self.symbols.get(place as usize)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::{AC, DC};
    use super::*;

    #[test]
    fn codes_of_the_standard_are_found() {
        // Table K.5: run 0 and size 1 is 00, the end of the block 1010, run 15 and size 10 sixteen bits.
        let (counts, symbols) = &AC[0];
        let table = Huffman::new(counts, symbols).expect("a table");
        let entry = table.entry(0);
        assert_eq!((entry.length(), entry.total(), entry.complement() & 63, entry.step()), (2, 3, 63, 1));
        assert!(!entry.is_special());
        assert!(table.entry(0b1010 << 60).is_end_of_block());
        assert_eq!(table.find(0b1010 << 60, 1), Some((4, 0)));
        let long = 0b1111_1111_1111_1110 << 48;
        assert!(table.entry(long).is_special() && table.entry(long).total() == 0);
        assert_eq!(table.find(long, LOOKUP + 1), Some((16, 0xfa)));
        assert_eq!(table.find(u64::MAX, 1), None);
        assert_eq!(Huffman::new(&DC[1].0, DC[1].1).and_then(|table| table.find(0b110 << 61, 1)), Some((3, 3)));
    }

    #[test]
    fn impossible_codes_are_refused() {
        let mut counts = [0; 16];
        counts[0] = 3; // three codes of one bit
        assert!(Huffman::new(&counts, &[1, 2, 3]).is_none());
        counts[0] = 2;
        assert!(Huffman::new(&counts, &[1]).is_none());
        assert!(Huffman::new(&counts, &[1, 2]).is_some());
    }
}
