//! The first image of a TIFF: strips or tiles, as they are or compressed by LZW, Deflate or PackBits.

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};

use ::tiff::decoder::{Decoder, Limits};
use ::tiff::tags::Tag;
use ::tiff::{ColorType, TiffError};

use super::{MAX_BYTES, Rgb, check_size, exif, to_rgb};

type File<'a> = Decoder<Cursor<Cow<'a, [u8]>>>;

/// Decodes a file.
///
/// Fails where it is damaged or cut off, and where it is of a kind that is not read, which the message names.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let mut file = open(Cow::Borrowed(bytes))?;
    let (width, height) = file.dimensions().map_err(problem)?;
    check_size(width.into(), height.into())?;
    refuse_others(&mut file)?;
    let palette = palette(&mut file)?;
    if palette.is_some() {
        file = open(Cow::Owned(as_greys(bytes)?))?;
    }
    let colours = file.colortype().map_err(problem)?;
    let (channels, bits) = match colours {
        ColorType::Gray(bits) => (1, bits),
        ColorType::Multiband { bit_depth, num_samples: 2 } => (2, bit_depth),
        ColorType::RGB(bits) => (3, bits),
        ColorType::RGBA(bits) | ColorType::CMYK(bits) => (4, bits),
        other => return Err(not_read(&format!("{other:?}"))),
    };
    let samples = samples(&mut file, [width, height].map(|side| side as usize), channels, bits, palette.is_some())?;
    let pixels = match (palette, colours) {
        (Some(palette), _) => samples.iter().flat_map(|&index| palette[usize::from(index)]).collect(),
        (None, ColorType::CMYK(_)) => samples.as_chunks::<4>().0.iter().flat_map(|&inks| printed(inks)).collect(),
        (None, ColorType::RGBA(_)) if number(&mut file, Tag::ExtraSamples)? == Some(1) => {
            samples.as_chunks::<4>().0.iter().flat_map(|&pixel| undarkened(pixel)).collect()
        }
        _ => to_rgb(samples, channels),
    };
    let turn = number(&mut file, Tag::Orientation)?;
    Ok(Rgb::turned([width, height], pixels, turn.unwrap_or(1)))
}

fn open(bytes: Cow<[u8]>) -> Result<File, String> {
    let mut limits = Limits::default();
    (limits.decoding_buffer_size, limits.intermediate_buffer_size) = (MAX_BYTES, MAX_BYTES);
    Ok(Decoder::new(Cursor::new(bytes)).map_err(problem)?.with_limits(limits))
}

/// The first number of a tag.
fn number(file: &mut File, tag: Tag) -> Result<Option<u32>, String> {
    Ok(file.find_tag_unsigned_vec(tag).map_err(problem)?.and_then(|numbers| numbers.first().copied()))
}

/// Fails where the crate would give something else than the picture.
fn refuse_others(file: &mut File) -> Result<(), String> {
    // Cameras' raw images begin with a small picture; what the sensor saw comes after it.
    let is_raw = number(file, Tag::Unknown(50_706))?.is_some(); // DNG's version
    if is_raw || number(file, Tag::NewSubfileType)?.unwrap_or(0) & 1 == 1 {
        return Err(not_read("its first image is a small copy, as in a camera's raw image"));
    }
    if number(file, Tag::FillOrder)?.unwrap_or(1) != 1 {
        return Err(not_read("the bits of a byte in reverse order"));
    }
    if number(file, Tag::Unknown(332))?.unwrap_or(1) != 1 {
        return Err(not_read("inks that are not cyan, magenta, yellow and black"));
    }
    match number(file, Tag::SampleFormat)?.unwrap_or(1) {
        1 | 4 => Ok(()),
        2 => Err(not_read("signed numbers")),
        3 => Err(not_read("fractions")),
        other => Err(not_read(&format!("sample format {other}"))),
    }
}

/// The colours of a palette, where the image has one.
fn palette(file: &mut File) -> Result<Option<[[u8; 3]; 256]>, String> {
    if number(file, Tag::PhotometricInterpretation)? != Some(3) {
        return Ok(None);
    }
    let map = file.get_tag_u16_vec(Tag::ColorMap).map_err(problem)?;
    let bits = number(file, Tag::BitsPerSample)?.unwrap_or(1);
    if !matches!(bits, 1 | 2 | 4 | 8) || number(file, Tag::SamplesPerPixel)?.unwrap_or(1) != 1 {
        return Err(not_read(&format!("a palette with {bits} bits a pixel")));
    }
    let count = 1 << bits;
    if map.len() < 3 * count {
        return Err(format!("damaged TIFF: {} numbers in its palette, expected {}", map.len(), 3 * count));
    }
    let upper = |at: usize| (map[at] >> 8) as u8;
    Ok(Some(std::array::from_fn(|index| match index < count {
        true => [0, 1, 2].map(|channel| upper(channel * count + index)),
        false => [0; 3],
    })))
}

/// A file with a palette as one of greys: the crate reads only these, and their values are then the colours' numbers.
fn as_greys(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (at, is_little) = exif::entry(bytes, 262).ok_or_else(|| not_read("a palette in a BigTIFF"))?;
    let mut bytes = bytes.to_vec();
    let black_is_zero = if is_little { 1u16.to_le_bytes() } else { 1u16.to_be_bytes() };
    bytes[at + 8..at + 10].copy_from_slice(&black_is_zero);
    Ok(bytes)
}

/// The samples of an image, pixel by pixel, as 8 bits; where it has a palette, as they are.
fn samples(
    file: &mut File,
    [width, height]: [usize; 2],
    channels: usize,
    bits: u8,
    is_palette: bool,
) -> Result<Vec<u8>, String> {
    let layout = file.image_buffer_layout().map_err(problem)?;
    let of_file = number(file, Tag::SamplesPerPixel)?.unwrap_or(1) as usize;
    if of_file != channels && number(file, Tag::Predictor)?.unwrap_or(1) != 1 {
        // The crate takes the differences between the wrong samples.
        return Err(not_read("a predictor, and more samples than colours"));
    }
    let mut buffer = vec![0; layout.complete_len];
    file.read_image_bytes(&mut buffer).map_err(problem)?;
    let across = if layout.planes > 1 { width } else { width * channels };
    let to_bytes = |plane: &[u8]| -> Result<Vec<u8>, String> {
        Ok(match bits {
            8 => plane.to_vec(),
            16 => plane.as_chunks().0.iter().map(|&value| (u16::from_ne_bytes(value) >> 8) as u8).collect(),
            1 | 2 | 4 => {
                let (bits, most) = (usize::from(bits), 0xff >> (8 - bits));
                let unit = if is_palette { 1 } else { 0xff / most };
                let sample = |row: &[u8], at: usize| (row[at * bits / 8] >> (8 - bits - at * bits % 8) & most) * unit;
                let rows = plane.chunks_exact((across * bits).div_ceil(8));
                rows.flat_map(|row| (0..across).map(move |at| sample(row, at))).collect()
            }
            _ => return Err(not_read(&format!("{bits} bits a sample"))),
        })
    };
    let planes = buffer.chunks_exact(layout.plane_stride.map_or(buffer.len(), usize::from).max(1));
    let planes: Vec<Vec<u8>> = planes.take(layout.planes).map(to_bytes).collect::<Result<_, _>>()?;
    let samples = match &planes[..] {
        [_] => planes.concat(),
        planes => (0..width * height)
            .flat_map(|at| planes.iter().map(move |plane| plane.get(at).copied()))
            .flatten()
            .collect(),
    };
    match samples.len() == width * height * channels {
        true => Ok(samples),
        false => Err(not_read(&format!("{} planes of {channels} colours", planes.len()))),
    }
}

/// Four inks on white paper.
fn printed([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    [c, m, y].map(|ink| ((255 - u16::from(ink)) * (255 - u16::from(k)) / 255) as u8)
}

/// A colour that is stored times its opacity.
fn undarkened([r, g, b, opacity]: [u8; 4]) -> [u8; 3] {
    match opacity {
        0 => [r, g, b],
        opacity => [r, g, b].map(|value| (u16::from(value) * 255 / u16::from(opacity)).min(255) as u8),
    }
}

fn not_read(kind: &str) -> String {
    format!("TIFF of a kind that is not read ({kind}); save the picture as PNG")
}

fn problem(error: TiffError) -> String {
    match error {
        TiffError::UnsupportedError(kind) => not_read(&kind.to_string()),
        TiffError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "truncated TIFF: its data ends before the image does".into()
        }
        error => format!("damaged TIFF: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tiff::encoder::{Compression, DeflateLevel, Predictor, TiffEncoder, colortype};

    /// A tag and its numbers, of 16 bits, or of 32 where the tag is one of [`LONG`].
    type Row<'a> = (u16, &'a [u32]);
    const LONG: [u16; 4] = [256, 257, 273, 324];

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
        let undarkened = [[0, 0, 0], [255, 0, 0], [0, 0, 0], [199, 99, 19], [9, 90, 200], [10, 20, 30]].concat();
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
        for (name, compression) in [
            ("none", Compression::Uncompressed),
            ("LZW", Compression::Lzw),
            ("deflate", Compression::Deflate(DeflateLevel::Fast)),
            ("PackBits", Compression::Packbits),
        ] {
            for predictor in [Predictor::None, Predictor::Horizontal] {
                let whole = compressed(compression, predictor, &data);
                assert_eq!(pixels(&whole), data, "{name}");
                for length in (0..whole.len()).step_by(7) {
                    assert!(decode(&whole[..length]).is_err(), "{name}, {length} of {} bytes", whole.len());
                }
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
            (&[32], 1, &[], "32 bits a sample"),
            (&[1], 1, &[(266, &[2])], "the bits of a byte in reverse order"),
            (&[8], 1, &[(254, &[1])], "a small copy"),
            (&[8], 1, &[(50_706, &[1])], "a small copy"),
            (&[8, 8, 8, 8], 1, &[(277, &[4])], "Multiband"),
            (&[8, 8, 8], 8, &[(277, &[3])], "CIELab"),
            (&[8, 8, 8, 8], 2, &[(277, &[4]), (338, &[0]), (317, &[2])], "a predictor, and more samples"),
        ];
        for (bits, photometric, more, kind) in cases {
            refused(&file(true, &small(bits, &[photometric], more), &[&data]), kind);
        }
        let jpeg: Vec<Row> = vec![(256, &[3]), (257, &[2]), (258, &[8]), (259, &[7]), (262, &[1]), (278, &[2])];
        refused(&file(true, &jpeg, &[&data]), "TIFF of a kind that is not read");
        let (wide, tall) = ([70_000], [70_000]);
        let bomb: Vec<Row> = vec![(256, &wide), (257, &tall), (258, &[8]), (259, &[1]), (262, &[1]), (278, &[2])];
        refused(&file(true, &bomb, &[&data]), "a side has at most");
    }
}
