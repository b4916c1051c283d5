//! Strips and tiles: decompressed, and put together.

use std::io::Read;

use flate2::read::ZlibDecoder;
use weezl::{BitOrder, LzwStatus};

use super::super::MAX_BYTES;
use super::{CUT_OFF, Layout, not_read};

/// The samples of an image, pixel by pixel: of 16 bits the upper 8, fewer than 8 as numbers.
pub fn samples(bytes: &[u8], layout: &Layout) -> Result<Vec<u8>, String> {
    let Layout { size: [width, height], samples, piece: [across, down], .. } = *layout;
    let in_piece = if layout.is_planar { 1 } else { samples };
    let stride = (across * in_piece * layout.bits).div_ceil(8);
    let [columns, rows] = [width.div_ceil(across), height.div_ceil(down)];
    let mut whole = vec![0; width * height * samples];
    for number in 0..columns * rows * (samples / in_piece) {
        let plane = number / (columns * rows);
        let [left, top] = [number % columns * across, number / columns % rows * down];
        let (seen_across, seen_down) = (across.min(width - left), down.min(height - top));
        let mut piece = decompressed(bytes, layout, number, stride * seen_down)?;
        for (y, row) in piece.chunks_exact_mut(stride).enumerate() {
            if layout.has_predictor {
                add_up(row, in_piece, layout);
            }
            for x in 0..seen_across {
                let pixel = &mut whole[((top + y) * width + left + x) * samples + plane..][..in_piece];
                for (channel, to) in pixel.iter_mut().enumerate() {
                    *to = sample(row, x * in_piece + channel, layout);
                }
            }
        }
    }
    Ok(whole)
}

/// One sample of a row.
fn sample(row: &[u8], at: usize, layout: &Layout) -> u8 {
    match layout.bits {
        8 => row[at],
        16 => row[2 * at + usize::from(layout.is_little)],
        bits => row[at * bits / 8] >> (8 - bits - at * bits % 8) & (0xff >> (8 - bits)),
    }
}

/// Samples from their differences to the pixel before.
fn add_up(row: &mut [u8], in_piece: usize, layout: &Layout) {
    if layout.bits == 8 {
        (in_piece..row.len()).for_each(|at| row[at] = row[at].wrapping_add(row[at - in_piece]));
        return;
    }
    let words = row.as_chunks_mut::<2>().0;
    for at in in_piece..words.len() {
        let [word, before] = [words[at], words[at - in_piece]];
        words[at] = match layout.is_little {
            true => u16::from_le_bytes(word).wrapping_add(u16::from_le_bytes(before)).to_le_bytes(),
            false => u16::from_be_bytes(word).wrapping_add(u16::from_be_bytes(before)).to_be_bytes(),
        };
    }
}

/// The first `length` bytes of a piece.
fn decompressed(bytes: &[u8], layout: &Layout, number: usize, length: usize) -> Result<Vec<u8>, String> {
    if length > MAX_BYTES {
        return Err("damaged TIFF: a strip or a tile is too large".into());
    }
    let offset = *layout.offsets.get(number).ok_or("damaged TIFF: a strip or a tile is missing")? as usize;
    let data = bytes.get(offset..).ok_or(CUT_OFF)?;
    let data = match layout.lengths.get(number) {
        Some(&length) => data.get(..length as usize).ok_or(CUT_OFF)?,
        None => data,
    };
    let piece = match layout.compression {
        1 => data.iter().take(length).copied().collect(),
        5 => lzw(data, length)?,
        8 | 32_946 => {
            let mut piece = Vec::new();
            // Whole or not, that is seen below.
            let _ = ZlibDecoder::new(data).take(length as u64).read_to_end(&mut piece);
            piece
        }
        32_773 => pack_bits(data, length),
        2..=4 => return Err(not_read("fax compression")),
        6 | 7 => return Err(not_read("JPEG within TIFF")),
        50_000 => return Err(not_read("zstd compression")),
        50_001 => return Err(not_read("WebP within TIFF")),
        other => return Err(not_read(&format!("compression {other}"))),
    };
    if piece.len() < length { Err(CUT_OFF.into()) } else { Ok(piece) }
}

fn lzw(data: &[u8], length: usize) -> Result<Vec<u8>, String> {
    if let [0, second, ..] = data
        && second & 1 == 1
    {
        return Err(not_read("LZW as it was before 1992"));
    }
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let (mut piece, mut read, mut written) = (vec![0; length], 0, 0);
    while written < length {
        let step = decoder.decode_bytes(&data[read..], &mut piece[written..]);
        (read, written) = (read + step.consumed_in, written + step.consumed_out);
        if !matches!(step.status, Ok(LzwStatus::Ok)) {
            break;
        }
    }
    piece.truncate(written);
    Ok(piece)
}

/// Runs of one byte, and bytes as they are.
fn pack_bits(data: &[u8], length: usize) -> Vec<u8> {
    let (mut piece, mut rest) = (Vec::new(), data);
    while piece.len() < length
        && let [first, behind @ ..] = rest
    {
        let count = usize::from(*first);
        rest = match (count, behind) {
            (..=127, _) => {
                let (bytes, behind) = behind.split_at((count + 1).min(behind.len()));
                piece.extend_from_slice(bytes);
                behind
            }
            (129.., [byte, behind @ ..]) => {
                piece.resize(piece.len() + 257 - count, *byte);
                behind
            }
            _ => behind,
        };
    }
    piece.truncate(length);
    piece
}
