//! Windows and OS/2 bitmaps of 1 to 32 bits a pixel, also run-length coded.

use super::{Rgb, check_size};

/// Where numbers are: of a file, little-endian.
struct File<'a>(&'a [u8]);

impl File<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], String> {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or_else(|| "truncated BMP: its header is not whole".into())
    }

    fn word(&self, at: usize) -> Result<usize, String> {
        self.bytes(at).map(u16::from_le_bytes).map(usize::from)
    }

    fn long(&self, at: usize) -> Result<u32, String> {
        self.bytes(at).map(u32::from_le_bytes)
    }
}

/// Decodes a file.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let file = File(bytes);
    let (start, header) = (file.long(10)? as usize, file.long(14)? as usize);
    let old = header == 12;
    if !old && !(16..=124).contains(&header) {
        return Err(format!("a BMP with a header of {header} bytes, which is not known"));
    }
    let (width, height, bits) = match old {
        true => (file.word(18)? as i32, file.word(20)? as i32, file.word(24)?),
        false => (file.long(18)? as i32, file.long(22)? as i32, file.word(28)?),
    };
    let (compression, colours) = if header < 40 { (0, 0) } else { (file.long(30)?, file.long(46)?) };
    check_size(width.max(0) as u64, height.unsigned_abs().into())?;
    let size = [width as usize, height.unsigned_abs() as usize];
    let has_masks = matches!((bits, compression), (16 | 32, 3 | 6));
    let behind_header = 14 + header + if header == 40 && has_masks { 12 } else { 0 };
    let colours = if (1..256).contains(&colours) { colours as usize } else { 256 }.min(1 << bits.min(8));
    let entry = if old { 3 } else { 4 };
    // Some programs forget the palette when they say where the data begins.
    let forgotten = bits <= 8 && start == 14 + header;
    let data = bytes.get(if forgotten { start + colours * entry } else { start }..).unwrap_or_default();
    let mut rows: Vec<[u8; 3]> = match (bits, compression) {
        (1 | 2 | 4 | 8, 0) | (8, 1) | (4, 2) => {
            let mut palette = [[0; 3]; 256];
            for (index, to) in palette.iter_mut().enumerate().take(colours) {
                let [b, g, r] = file.bytes(behind_header + index * entry)?;
                *to = [r, g, b];
            }
            let indices = if compression == 0 { packed(data, size, bits)? } else { runs(data, size, bits)? };
            indices.into_iter().map(|index| palette[usize::from(index)]).collect()
        }
        (16 | 24 | 32, 0) | (16 | 32, 3 | 6) => {
            let masks = match (has_masks, bits) {
                (true, _) => [file.long(54)?, file.long(58)?, file.long(62)?],
                (false, 16) => [0x7c00, 0x3e0, 0x1f],
                (false, _) => [0xff_0000, 0xff00, 0xff],
            };
            coloured(data, size, bits, masks)?
        }
        _ => return Err(format!("a BMP of {bits} bits with compression {compression}, which is not known")),
    };
    if height > 0 {
        // The last row comes first.
        rows = rows.rchunks_exact(size[0]).flatten().copied().collect();
    }
    Ok(Rgb::new(size.map(|side| side as u32), rows.into_flattened(), None))
}

/// Rows of so many bits a pixel; each ends at a multiple of four bytes.
fn rows(data: &[u8], [width, height]: [usize; 2], bits: usize) -> Result<impl Iterator<Item = &[u8]>, String> {
    let (used, stride) = ((width * bits).div_ceil(8), (width * bits).div_ceil(32) * 4);
    if data.len() < (height - 1) * stride + used {
        return Err("truncated BMP: its data ends before the image does".into());
    }
    Ok(data.chunks(stride).take(height).map(move |row| &row[..used]))
}

/// Numbers of colours, several a byte, the first one at the top.
fn packed(data: &[u8], size: [usize; 2], bits: usize) -> Result<Vec<u8>, String> {
    let mut indices = Vec::with_capacity(size[0] * size[1]);
    for row in rows(data, size, bits)? {
        let index = |at: usize| {
            let place = at * bits;
            (row[place / 8] >> (8 - bits - place % 8)) & (0xff >> (8 - bits))
        };
        indices.extend((0..size[0]).map(index));
    }
    Ok(indices)
}

/// Run-length coded numbers of colours, of 4 or 8 bits. What is skipped has the first colour; the part of a run behind
/// its row's end does not count.
fn runs(data: &[u8], [width, height]: [usize; 2], bits: usize) -> Result<Vec<u8>, String> {
    let mut indices = vec![0; width * height];
    let (mut column, mut row) = (0, 0);
    let mut rest = data.iter().copied();
    let mut next = || rest.next().ok_or("truncated BMP: its data ends before the image does");
    // The pixel at a place of a piece whose bytes hold one pixel or two.
    let index = |byte: u8, place: usize| match (bits, place % 2) {
        (8, _) => byte,
        (_, 0) => byte >> 4,
        _ => byte & 15,
    };
    while row < height {
        let line = &mut indices[row * width..][..width];
        let mut put = |column: usize, index: u8| {
            if let Some(to) = line.get_mut(column) {
                *to = index;
            }
        };
        match (next()?, next()?) {
            (0, 0) => (column, row) = (0, row + 1),
            (0, 1) => break,
            (0, 2) => (column, row) = (column + usize::from(next()?), row + usize::from(next()?)),
            (0, count) if column + usize::from(count) > width => return Err("damaged BMP: a row is too long".into()),
            (0, count) => {
                let count = usize::from(count);
                let bytes = (count * bits).div_ceil(8);
                for at in 0..bytes {
                    let byte = next()?;
                    let places = at * 8 / bits..count.min((at + 1) * 8 / bits);
                    places.for_each(|place| put(column + place, index(byte, place)));
                }
                if bytes % 2 == 1 {
                    next()?;
                }
                column += count;
            }
            (count, byte) => {
                (0..usize::from(count)).for_each(|place| put(column + place, index(byte, place)));
                column += usize::from(count);
            }
        }
    }
    Ok(indices)
}

/// Pixels of 16, 24 or 32 bits, of which each colour has those that its mask says.
fn coloured(data: &[u8], size: [usize; 2], bits: usize, masks: [u32; 3]) -> Result<Vec<[u8; 3]>, String> {
    let channels = masks.map(|mask| (mask, mask.trailing_zeros().min(31)));
    let channel = |pixel: u32, (mask, shift): (u32, u32)| {
        let most = u64::from(mask >> shift).max(1);
        (u64::from((pixel & mask) >> shift) * 255 / most) as u8
    };
    let mut pixels = Vec::with_capacity(size[0] * size[1]);
    for row in rows(data, size, bits)? {
        for bytes in row.chunks_exact(bits / 8) {
            let pixel = bytes.iter().rev().fold(0u32, |pixel, &byte| pixel << 8 | u32::from(byte));
            pixels.push(channels.map(|mask| channel(pixel, mask)));
        }
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with Windows' usual header, or with that of OS/2 where `old`; the palette is blue, green, red.
    fn file(old: bool, size: [i32; 2], [bits, compression]: [u32; 2], tables: &[u32], data: &[u8]) -> Vec<u8> {
        let mut header = Vec::new();
        let entry = if old { 3 } else { 4 };
        if old {
            header.extend([12, 0, 0, 0]);
            size.iter().for_each(|side| header.extend((*side as u16).to_le_bytes()));
            header.extend([1, 0, bits as u8, 0]);
        } else {
            header.extend(40u32.to_le_bytes());
            size.iter().for_each(|side| header.extend(side.to_le_bytes()));
            header.extend([1, 0, bits as u8, 0]);
            let colours = if bits > 8 { 0 } else { tables.len() as u32 };
            [compression, 0, 0, 0, colours, 0].iter().for_each(|word| header.extend(word.to_le_bytes()));
        }
        tables.iter().for_each(|table| header.extend(&table.to_le_bytes()[..entry]));
        let start = 14 + header.len() as u32;
        [b"BM", &[0; 8][..], &start.to_le_bytes(), &header, data].concat()
    }

    fn pixels(bytes: &[u8]) -> Vec<[u8; 3]> {
        decode(bytes).expect("an image").pixels.as_chunks().0.to_vec()
    }

    const RED: [u8; 3] = [255, 0, 0];
    const BLUE: [u8; 3] = [1, 2, 200];
    const PALETTE: [u32; 2] = [0xff_0000, 0x01_02_c8];

    #[test]
    fn palettes_are_looked_up_and_the_last_row_comes_first() {
        let rows = [[BLUE, BLUE, RED], [RED, BLUE, RED]].concat();
        for (bits, lower, upper) in [(1, [0x40, 0], [0xc0, 0]), (4, [0x01, 0x00], [0x11, 0x00])] {
            let data = [lower, [9, 9], upper, [9, 9]].concat();
            assert_eq!(pixels(&file(false, [3, 2], [bits, 0], &PALETTE, &data)), rows, "{bits} bits");
        }
        let data = [1, 1, 0, 9, 0, 1, 0, 9];
        assert_eq!(pixels(&file(false, [3, -2], [8, 0], &PALETTE, &data)), rows, "the first row first");
        let palette = [&PALETTE[..], &[0; 254]].concat();
        let upward = [0, 1, 0, 9, 1, 1, 0, 9];
        assert_eq!(pixels(&file(true, [3, 2], [8, 0], &palette, &upward)), rows, "OS/2");
        // Where the data begins is wrong: it would be the palette.
        let mut forgotten = file(false, [3, -2], [8, 0], &PALETTE, &data);
        forgotten[10] = 54;
        assert_eq!(pixels(&forgotten), rows);
    }

    #[test]
    fn runs_are_read() {
        // A run that is too long, a row's end; a piece of three pixels; a step to the right and up; the end.
        let bytes = [4, 1, 0, 0, 0, 3, 1, 0, 1, 0, 0, 0, 0, 2, 1, 1, 1, 1, 0, 1];
        let expected = [[RED, BLUE, RED], [RED; 3], [BLUE, RED, BLUE], [BLUE; 3]].concat();
        assert_eq!(pixels(&file(false, [3, 4], [8, 1], &PALETTE, &bytes)), expected);
        let halves = [4, 0x11, 0, 0, 0, 3, 0x10, 0x10, 0, 0, 0, 2, 1, 1, 1, 0x10, 0, 1];
        assert_eq!(pixels(&file(false, [3, 4], [4, 2], &PALETTE, &halves)), expected);
    }

    #[test]
    fn colours_of_any_width_are_scaled() {
        let white_and_half = [0xff, 0xff, 0x10, 0x42];
        let five_each = file(false, [2, 1], [16, 0], &[], &white_and_half);
        assert_eq!(pixels(&five_each), [[255; 3], [131, 131, 131]]);
        let masks = [0xf800, 0x7e0, 0x1f];
        assert_eq!(pixels(&file(false, [2, 1], [16, 3], &masks, &white_and_half)), [[255; 3], [65, 64, 131]]);
        assert_eq!(pixels(&file(false, [1, 1], [24, 0], &[], &[3, 2, 1, 0])), [[1, 2, 3]]);
        assert_eq!(pixels(&file(false, [1, 1], [32, 0], &[], &[3, 2, 1, 0])), [[1, 2, 3]]);
        let masks = [0xff, 0xff00, 0xff_0000];
        assert_eq!(pixels(&file(false, [1, 1], [32, 3], &masks, &[3, 2, 1, 0])), [[3, 2, 1]]);
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error() {
        let runs = file(false, [3, 2], [8, 1], &PALETTE, &[3, 1, 0, 0, 3, 0, 0, 1]);
        let rows = file(false, [3, 2], [24, 0], &[], &[7; 24]);
        assert!(decode(&runs).is_ok() && decode(&rows).is_ok());
        for whole in [&runs[..runs.len() - 1], &rows[..rows.len() - 3]] {
            assert!((0..whole.len()).all(|length| decode(&whole[..length]).is_err()));
        }
        let jpeg = file(false, [3, 2], [24, 4], &[], &[7; 24]);
        assert!(decode(&jpeg).err().is_some_and(|problem| problem.contains("compression 4")));
        let long = file(false, [3, 1], [8, 1], &PALETTE, &[0, 4, 1, 1, 1, 1, 0, 1]);
        assert!(decode(&long).err().is_some_and(|problem| problem.contains("too long")));
    }
}
