//! Entropy-coded data to planes of samples (ITU-T T.81, F.2).

use std::cmp::Ordering;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::bits::{Bits, Store};
use super::headers::Headers;
use super::huffman::Huffman;
use super::idct::{Group, LANES, Scratch, dequantization};
use alexnet_split_cpu::simd::dispatch;

/// Samples of a component: rows and columns.
pub type Part = [Range<usize>; 2];

/// Where the samples of a component go.
pub trait Rows {
    /// Takes the next eight rows, for each column one number, the uppermost sample in its lowest byte. The first column
    /// is that of the part, less what it is into a block; behind the last one there may be others.
    fn take(&mut self, columns: &[u64]);
}

/// Why a scan was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The data ends before the image does.
    CutOff,
    /// It is damaged in another way, or unusual.
    Other,
}

/// Decodes the parts that are asked for, one a component, in whole blocks. Fails where the data is damaged, anywhere in
/// the image, or unusual.
pub fn decode<R: Rows>(headers: &Headers, parts: &[Part], takers: &mut [R]) -> Result<(), Fault> {
    set_up(headers, parts, takers).ok_or(Fault::Other)?
}

fn set_up<R: Rows>(headers: &Headers, parts: &[Part], takers: &mut [R]) -> Option<Result<(), Fault>> {
    let across = headers.components.iter().map(|c| c.across).max()?;
    let down = headers.components.iter().map(|c| c.down).max()?;
    let units = [headers.height.div_ceil(8 * down), headers.width.div_ceil(8 * across)];
    let segments = Segments::new(headers.scan, headers.restart_interval)?;
    let mut channels = Vec::with_capacity(parts.len());
    for ((component, [rows, columns]), taker) in headers.components.iter().zip(parts).zip(takers) {
        let [rows, columns] = [rows, columns].map(|range| range.start / 8..range.end.div_ceil(8));
        let stride = columns.len().next_multiple_of(LANES) * 8;
        let [dc, ac] = component.huffman;
        channels.push(Channel {
            sampling: [component.down, component.across],
            dc: headers.huffman[0][dc].as_deref()?,
            ac: headers.huffman[1][ac].as_deref()?,
            factors: dequantization(headers.steps(component)?),
            prediction: 0,
            lines: vec![(Group::default(), vec![0; stride]); component.down],
            blocks: [rows, columns],
            taker,
        });
    }
    Some(dispatch(Scan { segments: &segments, interval: headers.restart_interval, units, channels: &mut channels }))
}

/// Entropy-coded data between restart markers, without stuffed bytes.
struct Segments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Segments {
    /// None unless there is an end, restart markers come in order, and there are no other ones.
    fn new(scan: &[u8], interval: usize) -> Option<Segments> {
        let mut segments = Segments { bytes: Vec::with_capacity(scan.len()), ends: Vec::new() };
        let mut rest = scan;
        loop {
            // Most pieces of this length have no 0xff.
            while let Some((piece, behind)) = rest.split_first_chunk::<32>() {
                let mut found = false;
                for byte in piece {
                    found |= *byte == 0xff;
                }
                if found {
                    break;
                }
                segments.bytes.extend_from_slice(piece);
                rest = behind;
            }
            let length = rest.iter().position(|&byte| byte == 0xff)?;
            let (plain, behind) = rest.split_at(length);
            segments.bytes.extend_from_slice(plain);
            let (&[_, code], behind) = behind.split_first_chunk::<2>()?;
            rest = behind;
            match code {
                0 => segments.bytes.push(0xff),
                0xd9 => {
                    segments.ends.push(segments.bytes.len());
                    segments.bytes.extend([0; 8]);
                    return Some(segments);
                }
                0xd0..=0xd7 if interval > 0 && segments.ends.len() % 8 == usize::from(code & 7) => {
                    segments.ends.push(segments.bytes.len());
                }
                _ => return None,
            }
        }
    }
}

/// A component while it is decoded.
struct Channel<'a, R> {
    /// Blocks of a minimum coded unit, down and across.
    sampling: [usize; 2],
    dc: &'a Huffman,
    ac: &'a Huffman,
    /// What coefficients are multiplied by, row by row.
    factors: [f32; 64],
    /// The DC coefficient of the block before.
    prediction: i32,
    /// For each row of blocks in a minimum coded unit: blocks that wait for their transform, and what became of those
    /// to the left, as [`Rows::take`] has it.
    lines: Vec<(Group, Vec<u64>)>,
    /// Rows and columns of blocks that are asked for.
    blocks: Part,
    taker: &'a mut R,
}

/// All minimum coded units of a scan.
struct Scan<'a, 'b, R> {
    segments: &'a Segments,
    /// Minimum coded units between restart markers; 0 without them.
    interval: usize,
    /// Rows and columns of minimum coded units.
    units: [usize; 2],
    channels: &'a mut [Channel<'b, R>],
}

impl<R: Rows> WithSimd for Scan<'_, '_, R> {
    type Output = Result<(), Fault>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Result<(), Fault> {
        let Scan { segments, interval, units: [rows, columns], channels } = self;
        let units = rows * columns;
        let interval = if interval == 0 { units } else { interval };
        match segments.ends.len().cmp(&units.div_ceil(interval)) {
            Ordering::Less => return Err(Fault::CutOff),
            Ordering::Equal => {}
            Ordering::Greater => return Err(Fault::Other),
        }
        let (mut start, mut place) = (0, [0, 0]);
        let mut scratch = [[[0.; LANES]; 64]; 2];
        for (number, &end) in segments.ends.iter().enumerate() {
            let mut bits = Bits::new(&segments.bytes[start..], end - start);
            start = end;
            for channel in &mut *channels {
                channel.prediction = 0;
            }
            for _ in number * interval..units.min((number + 1) * interval) {
                let read = channels.iter_mut().try_for_each(|channel| channel.unit(&mut bits, place, &mut scratch));
                if bits.is_overrun() {
                    return Err(Fault::CutOff);
                }
                read.ok_or(Fault::Other)?;
                place[1] += 1;
                if place[1] == columns {
                    for channel in &mut *channels {
                        channel.row(place[0]);
                    }
                    place = [place[0] + 1, 0];
                }
            }
            if !bits.is_finished() {
                return Err(Fault::Other);
            }
        }
        Ok(())
    }
}

impl<R: Rows> Channel<'_, R> {
    /// Decodes the blocks of a minimum coded unit.
    #[inline(always)]
    fn unit(&mut self, bits: &mut Bits, [row, column]: [usize; 2], scratch: &mut Scratch) -> Option<()> {
        let [rows, columns] = &self.blocks;
        for (down, (group, line)) in self.lines.iter_mut().enumerate() {
            let row = row * self.sampling[0] + down;
            for across in 0..self.sampling[1] {
                let column = column * self.sampling[1] + across;
                self.prediction += bits.dc(self.dc)?;
                let dc = i16::try_from(self.prediction).ok()?;
                if !rows.contains(&row) || !columns.contains(&column) {
                    bits.ac(self.ac, &mut Ignored)?;
                    continue;
                }
                let place = column - columns.start;
                let lane = place % LANES;
                group.coefficients[0][lane] = dc;
                bits.ac(self.ac, &mut Kept { group, lane })?;
                if lane == LANES - 1 || column == columns.end - 1 {
                    let to = line.get_mut((place - lane) * 8..)?.first_chunk_mut()?;
                    group.transform(&self.factors, scratch, to);
                }
            }
        }
        Some(())
    }

    /// Hands over a row of minimum coded units.
    #[inline(always)]
    fn row(&mut self, row: usize) {
        for (down, (_, line)) in self.lines.iter().enumerate() {
            if self.blocks[0].contains(&(row * self.sampling[0] + down)) {
                self.taker.take(line);
            }
        }
    }
}

/// Of blocks that are not asked for.
struct Ignored;

impl Store for Ignored {
    #[inline(always)]
    fn put(&mut self, _: usize, _: i32) {}
}

/// Coefficients of one block of a group.
struct Kept<'a> {
    group: &'a mut Group,
    lane: usize,
}

impl Store for Kept<'_> {
    #[inline(always)]
    fn put(&mut self, k: usize, value: i32) {
        self.group.coefficients[k & 63][self.lane % LANES] = value as i16;
    }
}
