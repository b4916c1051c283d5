//! The first image of a TIFF: strips, tiles or planes, as they are or compressed by LZW, Deflate or PackBits.

mod pieces;

use super::tags::Tags;
use super::{MAX_SIDE, Rgb, check_size, to_rgb};

const CUT_OFF: &str = "truncated TIFF: its data ends before the image does";

/// The tags on which the picture depends.
const USED: [u16; 19] = [254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338];

/// The form of an image.
struct Layout {
    /// Columns and rows.
    size: [usize; 2],
    /// Of a pixel.
    samples: usize,
    /// Of a sample: 1, 2, 4, 8 or 16.
    bits: usize,
    /// Each sample has a plane of its own.
    is_planar: bool,
    is_little: bool,
    /// As the tag numbers it.
    compression: u32,
    /// Differences to the pixel before are stored.
    has_predictor: bool,
    /// Columns and rows of a strip or a tile.
    piece: [usize; 2],
    offsets: Vec<u32>,
    lengths: Vec<u32>,
}

/// Decodes a file.
///
/// Fails where it is damaged or cut off, and where it is of a kind that is not read, which the message names.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    if let [b'I', _, 43, ..] | [b'M', _, _, 43, ..] = bytes {
        return Err(not_read("BigTIFF"));
    }
    let tags = Tags::new(bytes).ok_or("damaged TIFF: its directory is not there; it may be cut off")?;
    if let Some(tag) = USED.iter().find(|&&tag| tags.is_damaged(tag)) {
        return Err(format!("damaged TIFF: tag {tag} cannot be read; the file may be cut off"));
    }
    refuse_others(&tags)?;
    let layout = Layout::read(&tags)?;
    let (samples, most) = (layout.samples, 0xff >> (8 - layout.bits.min(8)));
    let expected = match tags.first(262) {
        Some(0 | 1) if samples <= 2 => 1,
        Some(2) if samples >= 3 => 3,
        Some(3) if samples == 1 && layout.bits <= 8 => 1,
        Some(5) if samples >= 4 => 4,
        Some(6) => return Err(not_read("YCbCr")),
        Some(8..=10) => return Err(not_read("CIE L*a*b*")),
        Some(32_803 | 34_892) => return Err(not_read("a camera's raw image")),
        Some(colours) => {
            return Err(not_read(&format!("{samples} samples a pixel, photometric interpretation {colours}")));
        }
        None => return Err("damaged TIFF: it does not say what its colours are".into()),
    };
    let mut values = pieces::samples(bytes, &layout)?;
    if tags.first(262) != Some(3) {
        values.iter_mut().for_each(|value| *value *= 0xff / most);
    }
    let pixels: Vec<u8> = match tags.first(262) {
        Some(0) => to_rgb(values.iter().step_by(samples).map(|value| 255 - value).collect(), 1),
        Some(3) => {
            let palette = palette(&tags, layout.bits)?;
            values.iter().flat_map(|&index| palette[usize::from(index)]).collect()
        }
        Some(5) => values.chunks_exact(samples).flat_map(printed).collect(),
        Some(2) if samples >= 4 && tags.first(338) == Some(1) => {
            values.chunks_exact(samples).flat_map(undarkened).collect()
        }
        _ => to_rgb(values.chunks_exact(samples).flat_map(|pixel| &pixel[..expected]).copied().collect(), expected),
    };
    Ok(Rgb::new(layout.size.map(|side| side as u32), pixels, Some(bytes)))
}

impl Layout {
    fn read(tags: &Tags) -> Result<Layout, String> {
        let need = |tag: u16| tags.first(tag).ok_or_else(|| format!("damaged TIFF: tag {tag} is missing"));
        let [width, height] = [need(256)?, need(257)?];
        check_size(width.into(), height.into())?;
        let samples = tags.first(277).unwrap_or(1);
        let depths = tags.all(258).unwrap_or(vec![1]);
        let bits = depths.first().copied().unwrap_or(1);
        let kinds: &[u32] = if tags.first(317).unwrap_or(1) == 1 { &[1, 2, 4, 8, 16] } else { &[8, 16] };
        if !(1..=16).contains(&samples) || !kinds.contains(&bits) || depths.iter().any(|depth| *depth != bits) {
            return Err(not_read(&format!("{samples} samples of {depths:?} bits")));
        }
        let tile = [tags.first(322), tags.first(323)];
        let (piece, places) = match tile {
            [Some(across), Some(down)] => ([across, down], [324, 325]),
            _ => ([width, tags.first(278).unwrap_or(height).min(height)], [273, 279]),
        };
        if piece.iter().any(|side| !(1..=MAX_SIDE).contains(&u64::from(*side))) {
            return Err(format!("damaged TIFF: strips or tiles of {}x{}", piece[0], piece[1]));
        }
        Ok(Layout {
            size: [width, height].map(|side| side as usize),
            samples: samples as usize,
            bits: bits as usize,
            is_planar: tags.first(284) == Some(2),
            is_little: tags.is_little,
            compression: tags.first(259).unwrap_or(1),
            has_predictor: tags.first(317) == Some(2),
            piece: piece.map(|side| side as usize),
            offsets: tags.all(places[0]).ok_or(CUT_OFF)?,
            lengths: tags.all(places[1]).unwrap_or_default(),
        })
    }
}

/// Fails where the first image is not the picture, or its numbers are no levels.
fn refuse_others(tags: &Tags) -> Result<(), String> {
    let first = |tag: u16, usual: u32| tags.first(tag).unwrap_or(usual);
    let kind = if tags.first(50_706).is_some() || first(254, 0) & 1 == 1 {
        // DNG's version; what the sensor saw comes after the small picture.
        "its first image is a small copy, as in a camera's raw image"
    } else if first(266, 1) != 1 {
        "the bits of a byte in reverse order"
    } else if first(262, 1) == 5 && first(332, 1) != 1 {
        "inks that are not cyan, magenta, yellow and black"
    } else if first(317, 1) > 2 {
        "a predictor for fractions"
    } else {
        match first(339, 1) {
            1 | 4 => return Ok(()),
            2 => "signed numbers",
            3 => "fractions",
            _ => "complex numbers",
        }
    };
    Err(not_read(kind))
}

/// The colours of a palette.
fn palette(tags: &Tags, bits: usize) -> Result<Vec<[u8; 3]>, String> {
    let (map, count) = (tags.all(320).unwrap_or_default(), 1 << bits);
    if map.len() < 3 * count {
        return Err(format!("damaged TIFF: {} numbers in its palette, expected {}", map.len(), 3 * count));
    }
    let colour = |index: usize| [0, 1, 2].map(|channel| (map[channel * count + index] >> 8) as u8);
    Ok((0..count).map(colour).collect())
}

/// Four inks on white paper.
fn printed(inks: &[u8]) -> [u8; 3] {
    [0, 1, 2].map(|ink| ((255 - u16::from(inks[ink])) * (255 - u16::from(inks[3])) / 255) as u8)
}

/// A colour that is stored times its opacity.
fn undarkened(pixel: &[u8]) -> [u8; 3] {
    let opacity = u16::from(pixel[3]);
    [0, 1, 2].map(|channel| (u16::from(pixel[channel]) * 255).checked_div(opacity).unwrap_or(0).min(255) as u8)
}

fn not_read(kind: &str) -> String {
    format!("TIFF of a kind that is not read ({kind}); save the picture as PNG")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    use ::tiff::encoder::{Compression, DeflateLevel, Predictor, TiffEncoder, colortype};

    /// A tag and its numbers, of 16 bits, or of 32 where the tag is one of [`LONG`].
    type Row<'a> = (u16, &'a [u32]);
    const LONG: [u16; 5] = [256, 257, 273, 278, 324];

    /// A file of pieces (strips or tiles); `rows` are its other tags.
    fn file(is_little: bool, rows: &[Row], pieces: &[&[u8]]) -> Vec<u8> {
        let word = |value: u32| if is_little { (value as u16).to_le_bytes() } else { (value as u16).to_be_bytes() };
        let long = |value: u32| if is_little { value.to_le_bytes() } else { value.to_be_bytes() };
        let is_tiled = rows.iter().any(|(tag, _)| *tag == 322);
        let (mut data, mut places, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for piece in pieces {
            places.push(8 + data.len() as u32);
            lengths.push(piece.len() as u32);
            data.extend_from_slice(piece);
        }
        let of_pieces = if is_tiled { [324, 325] } else { [273, 279] };
        let mut rows = [rows, &[(of_pieces[0], &places), (of_pieces[1], &lengths)]].concat();
        rows.sort();
        let mut entries = word(rows.len() as u32).to_vec();
        for (tag, numbers) in rows {
            let is_long = LONG.contains(&tag);
            let bytes: Vec<u8> = match is_long {
                true => numbers.iter().flat_map(|&number| long(number)).collect(),
                false => numbers.iter().flat_map(|&number| word(number)).collect(),
            };
            let value = if bytes.len() > 4 {
                long(8 + data.len() as u32).to_vec()
            } else {
                [&bytes[..], &[0; 4]].concat()[..4].to_vec()
            };
            if bytes.len() > 4 {
                data.extend(bytes);
            }
            let kind = if is_long { 4 } else { 3 };
            entries.extend([&word(tag.into())[..], &word(kind), &long(numbers.len() as u32), &value].concat());
        }
        let start = if is_little { *b"II*\0" } else { *b"MM\0*" };
        [&start[..], &long(8 + data.len() as u32), &data, &entries, &[0; 4]].concat()
    }

    #[track_caller]
    fn pixels(bytes: &[u8]) -> Vec<u8> {
        decode(bytes).unwrap_or_else(|problem| panic!("{problem}")).pixels
    }

    #[track_caller]
    fn refused(bytes: &[u8], problem: &str) {
        let found = decode(bytes).err().unwrap_or_else(|| panic!("read, expected: {problem}"));
        assert!(found.contains(problem), "{found}, expected: {problem}");
    }

    /// Three pixels in two rows.
    fn small<'a>(bits: &'a [u32], photometric: &'a [u32], more: &[Row<'a>]) -> Vec<Row<'a>> {
        [&[(256, &[3][..]), (257, &[2]), (258, bits), (259, &[1]), (262, photometric), (278, &[2])], more].concat()
    }

    #[test]
    fn greys_of_any_depth_are_scaled_and_may_be_inverted() {
        let levels = |levels: [u8; 6]| levels.iter().flat_map(|&level| [level; 3]).collect::<Vec<u8>>();
        let cases: [(u32, &[u8], [u8; 6]); 4] = [
            (1, &[0b0100_0000, 0b1010_0000], [0, 255, 0, 255, 0, 255]),
            (2, &[0b0001_1000, 0b1101_0000], [0, 85, 170, 255, 85, 0]),
            (4, &[0x01, 0xf0, 0x23, 0x40], [0, 17, 255, 34, 51, 68]),
            (8, &[0, 1, 2, 253, 254, 255], [0, 1, 2, 253, 254, 255]),
        ];
        for (is_little, (bits, data, expected)) in
            [true, false].into_iter().flat_map(|order| cases.map(|case| (order, case)))
        {
            assert_eq!(pixels(&file(is_little, &small(&[bits], &[1], &[]), &[data])), levels(expected), "{bits} bits");
            let inverted = levels(expected.map(|level| 255 - level));
            assert_eq!(
                pixels(&file(is_little, &small(&[bits], &[0], &[]), &[data])),
                inverted,
                "{bits} bits, inverted"
            );
            // The upper byte of 16 bits.
            let map: Vec<u32> = (0..3 << bits).map(|number| (number * 0x4321) & 0xffff).collect();
            let colour = |index: u32| [0, 1, 2].map(|channel| (map[((channel << bits) + index) as usize] >> 8) as u8);
            let most = 255 / ((1 << bits) - 1);
            let colours: Vec<u8> = expected.iter().flat_map(|&level| colour(u32::from(level) / most)).collect();
            let with_palette = file(is_little, &small(&[bits], &[3], &[(320, &map)]), &[data]);
            assert_eq!(pixels(&with_palette), colours, "{bits} bits, palette");
            refused(&file(is_little, &small(&[bits], &[3], &[(320, &map[1..])]), &[data]), "numbers in its palette");
        }
        let words: Vec<u8> =
            [0x0102u16, 0x80ff, 0xffff, 0, 1, 0x0100].iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(pixels(&file(false, &small(&[16], &[1], &[]), &[&words])), levels([1, 128, 255, 0, 0, 1]));
    }

    #[test]
    fn inks_and_opacities_become_colours() {
        let data: Vec<u8> =
            [[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [100, 50, 10, 128], [9, 90, 200, 0], [10, 20, 30, 255]]
                .concat();
        let depth = [8; 4];
        let printed = [[255, 255, 255], [0, 255, 255], [0, 0, 0], [77, 102, 122], [246, 165, 55], [0, 0, 0]].concat();
        assert_eq!(pixels(&file(true, &small(&depth, &[5], &[(277, &[4])]), &[&data])), printed);
        let stored: Vec<u8> = data.chunks(4).flat_map(|pixel| pixel[..3].to_vec()).collect();
        for kind in [&[0][..], &[2]] {
            assert_eq!(pixels(&file(true, &small(&depth, &[2], &[(277, &[4]), (338, kind)]), &[&data])), stored);
        }
        let undarkened = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [199, 99, 19], [0, 0, 0], [10, 20, 30]].concat();
        assert_eq!(pixels(&file(true, &small(&depth, &[2], &[(277, &[4]), (338, &[1])]), &[&data])), undarkened);
        let greys: Vec<u8> = data.chunks(4).flat_map(|pixel| [pixel[0]; 3]).collect();
        let with_opacity: Vec<u8> = data.chunks(4).flat_map(|pixel| [pixel[0], pixel[3]]).collect();
        assert_eq!(
            pixels(&file(true, &small(&depth[..2], &[1], &[(277, &[2]), (338, &[2])]), &[&with_opacity])),
            greys
        );
        refused(&file(true, &small(&depth, &[5], &[(277, &[4]), (332, &[2])]), &[&data]), "inks that are not");
    }

    #[test]
    fn strips_tiles_and_planes_are_put_together() {
        let [width, height] = [21, 19];
        let colour = |x: usize, y: usize| [x * 5, y * 7, x * y].map(|value| value as u8);
        let area = |[left, top]: [usize; 2], [across, down]: [usize; 2]| -> Vec<u8> {
            (0..down).flat_map(|y| (0..across).flat_map(move |x| colour(left + x, top + y))).collect()
        };
        let (whole, sides) = (area([0, 0], [width, height]), [21, 19]);
        let rows = |more: &[Row<'static>]| -> Vec<Row<'static>> {
            [&[(256, &[21][..]), (257, &[19]), (258, &[8, 8, 8]), (259, &[1]), (262, &[2]), (277, &[3])], more].concat()
        };
        let strips: Vec<Vec<u8>> =
            (0..4).map(|strip| area([0, 5 * strip], [width, 5.min(height - 5 * strip)])).collect();
        let strips: Vec<&[u8]> = strips.iter().map(Vec::as_slice).collect();
        assert_eq!(pixels(&file(true, &rows(&[(278, &[5])]), &strips)), whole);
        let tiles = [[0, 0], [16, 0], [0, 16], [16, 16]].map(|corner| area(corner, [16, 16]));
        let tiles = tiles.each_ref().map(Vec::as_slice);
        assert_eq!(pixels(&file(false, &rows(&[(322, &[16]), (323, &[16])]), &tiles)), whole);
        let planes = [0, 1, 2].map(|channel| whole.iter().skip(channel).step_by(3).copied().collect::<Vec<u8>>());
        let planes = planes.each_ref().map(Vec::as_slice);
        assert_eq!(pixels(&file(true, &rows(&[(278, &[19]), (284, &[2])]), &planes)), whole);
        let image = decode(&file(true, &rows(&[(278, &[19]), (274, &[6])]), &[&whole])).unwrap();
        assert_eq!([image.width, image.height], sides);
        assert_ne!(
            image.square(19).unwrap(),
            decode(&file(true, &rows(&[(278, &[19])]), &[&whole])).unwrap().square(19).unwrap()
        );
    }

    fn compressed(compression: Compression, predictor: Predictor, data: &[u8]) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let encoder = TiffEncoder::new(&mut bytes).unwrap().with_compression(compression).with_predictor(predictor);
        { encoder }.write_image::<colortype::RGB8>(40, 30, data).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn compressed_ones_are_read_and_what_is_cut_off_is_an_error() {
        let data: Vec<u8> = (0..40 * 30 * 3u32).map(|at| (at * at / 77 % 256) as u8).collect();
        let kinds = [
            ("plain", Compression::Uncompressed),
            ("LZW", Compression::Lzw),
            ("Deflate", Compression::Deflate(DeflateLevel::Fast)),
            ("PackBits", Compression::Packbits),
        ];
        for ((name, compression), predictor) in
            kinds.into_iter().flat_map(|kind| [(kind, Predictor::None), (kind, Predictor::Horizontal)])
        {
            let whole = compressed(compression, predictor, &data);
            assert_eq!(pixels(&whole), data, "{name}");
            // The last four bytes say that no other image follows.
            for length in (0..whole.len() - 4).step_by(7) {
                assert!(decode(&whole[..length]).is_err(), "{name}, {length} of {} bytes", whole.len());
            }
        }
        // The directory comes first here, and the end of the pixels is missing.
        let rows = small(&[8], &[1], &[]);
        let mut short = file(true, &rows, &[&[1, 2, 3, 4, 5]]);
        refused(&short, "truncated TIFF");
        short.extend([0; 100]);
        refused(&short, "TIFF");
    }

    #[test]
    fn kinds_that_are_not_read_are_named() {
        let data = [0; 24];
        let cases: [(&[u32], u32, &[Row], &str); 9] = [
            (&[32], 1, &[(339, &[3])], "fractions"),
            (&[8], 1, &[(339, &[2])], "signed numbers"),
            (&[32], 1, &[], "1 samples of [32] bits"),
            (&[1], 1, &[(266, &[2])], "the bits of a byte in reverse order"),
            (&[8], 1, &[(254, &[1])], "a small copy"),
            (&[8], 1, &[(50_706, &[1])], "a small copy"),
            (&[8, 8, 8, 8], 1, &[(277, &[4])], "4 samples a pixel"),
            (&[8, 8, 8], 8, &[(277, &[3])], "CIE L*a*b*"),
            (&[5, 6, 5], 2, &[(277, &[3])], "3 samples of [5, 6, 5] bits"),
        ];
        for (bits, photometric, more, kind) in cases {
            refused(&file(true, &small(bits, &[photometric], more), &[&data]), kind);
        }
        let jpeg: Vec<Row> = vec![(256, &[3]), (257, &[2]), (258, &[8]), (259, &[7]), (262, &[1]), (278, &[2])];
        refused(&file(true, &jpeg, &[&data]), "JPEG within TIFF");
        let (wide, tall) = ([70_000], [70_000]);
        let bomb: Vec<Row> = vec![(256, &wide), (257, &tall), (258, &[8]), (259, &[1]), (262, &[1]), (278, &tall)];
        refused(&file(true, &bomb, &[&data]), "a side has at most");
    }
}
