//! What stands before the pixels of a JPEG file (ITU-T T.81, annex B).

use super::huffman::Huffman;
use super::tables::ZIGZAG;

/// A colour channel of the frame (B.2.2).
#[derive(Clone, Copy, Default)]
pub struct Component {
    /// Samples across for each of the component with the fewest.
    pub across: usize,
    /// Samples down, likewise.
    pub down: usize,
    /// Which of the quantization tables.
    quantization: usize,
    /// Which of the tables of DC and of AC coefficients.
    pub huffman: [usize; 2],
}

/// The headers of a baseline JPEG.
pub struct Headers<'a> {
    /// Columns of pixels.
    pub width: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Grey, or luminance and two of colour difference.
    pub components: Vec<Component>,
    /// Steps of the coefficients by table, row by row.
    quantization: [Option<[u8; 64]>; 4],
    /// For DC coefficients, and for AC.
    pub huffman: [[Option<Box<Huffman>>; 4]; 2],
    /// Minimum coded units between restart markers; 0 without them.
    pub restart_interval: usize,
    /// What the camera wrote, without its prefix.
    pub exif: Option<&'a [u8]>,
    /// Entropy-coded data and what follows.
    pub scan: &'a [u8],
}

/// Takes the first byte.
fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// Takes the first two bytes.
fn word(bytes: &mut &[u8]) -> Option<usize> {
    let (first, rest) = bytes.split_first_chunk::<2>()?;
    *bytes = rest;
    Some(usize::from(u16::from_be_bytes(*first)))
}

impl<'a> Headers<'a> {
    /// Reads everything up to the entropy-coded data.
    ///
    /// None unless it is one interleaved baseline scan of grey or of YCbCr with 4:4:4, 4:2:2, 4:4:0 or 4:2:0, written
    /// as the standard says.
    pub fn parse(mut bytes: &'a [u8]) -> Option<Headers<'a>> {
        let mut headers = Headers {
            width: 0,
            height: 0,
            components: Vec::new(),
            quantization: Default::default(),
            huffman: Default::default(),
            restart_interval: 0,
            exif: None,
            scan: &[],
        };
        let mut names = Vec::new();
        bytes = bytes.strip_prefix(&[0xff, 0xd8])?;
        loop {
            if byte(&mut bytes)? != 0xff {
                return None;
            }
            let mut marker = byte(&mut bytes)?;
            while marker == 0xff {
                marker = byte(&mut bytes)?; // fill bytes (B.1.1.2)
            }
            let (mut segment, rest) = bytes.split_at_checked(word(&mut { bytes })?)?;
            word(&mut segment)?;
            bytes = rest;
            match marker {
                0xc0 => headers.frame(segment, &mut names)?,
                0xc4 => headers.huffman_tables(segment)?,
                0xda => {
                    headers.scan_header(segment, &names)?;
                    headers.scan = bytes;
                    return Some(headers);
                }
                0xdb => headers.quantization_tables(segment)?,
                0xdd => headers.restart_interval = word(&mut segment)?,
                // The first one counts.
                0xe1 if headers.exif.is_none() => headers.exif = segment.strip_prefix(b"Exif\0\0"),
                // The last byte says that it is YCbCr.
                0xee if segment.starts_with(b"Adobe") => (segment.get(11) == Some(&1)).then_some(())?,
                0xe0..=0xef | 0xfe => (),
                _ => return None,
            }
        }
    }

    /// Steps of a component's coefficients, row by row.
    pub fn steps(&self, component: &Component) -> Option<&[u8; 64]> {
        self.quantization[component.quantization].as_ref()
    }

    /// B.2.2; `names` gets the components' identifiers.
    fn frame(&mut self, mut segment: &[u8], names: &mut Vec<u8>) -> Option<()> {
        let precision = byte(&mut segment)?;
        (self.height, self.width) = (word(&mut segment)?, word(&mut segment)?);
        let count = byte(&mut segment)?;
        let sizes = self.width > 0 && self.height > 0 && precision == 8;
        if !sizes || !names.is_empty() || !matches!(count, 1 | 3) || segment.len() != 3 * usize::from(count) {
            return None;
        }
        for &[name, sampling, quantization] in segment.as_chunks::<3>().0 {
            let (across, down) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            let quantization = usize::from(quantization);
            if quantization > 3 {
                return None;
            }
            names.push(name);
            self.components.push(Component { across, down, quantization, huffman: [0; 2] });
        }
        let sampling = |c: &Component| (c.across, c.down);
        match &mut self.components[..] {
            // One component is not interleaved: its factors mean nothing (A.2.2).
            [grey] => (grey.across, grey.down) = (1, 1),
            [y, cb, cr] if [sampling(cb), sampling(cr)] == [(1, 1); 2] => {
                let known = *names == [1, 2, 3] || *names == [0, 1, 2];
                (known && matches!(sampling(y), (1 | 2, 1 | 2))).then_some(())?;
            }
            _ => return None,
        }
        Some(())
    }

    /// B.2.4.1.
    fn quantization_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while !segment.is_empty() {
            let name = usize::from(byte(&mut segment)?); // the upper half says 16 bits
            let (steps, rest) = segment.split_first_chunk::<64>()?;
            segment = rest;
            let mut table = [0; 64];
            for (step, at) in steps.iter().zip(ZIGZAG) {
                table[usize::from(at)] = *step;
            }
            *self.quantization.get_mut(name)? = Some(table);
        }
        Some(())
    }

    /// B.2.4.2.
    fn huffman_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while !segment.is_empty() {
            let name = byte(&mut segment)?;
            let (counts, rest) = segment.split_first_chunk::<16>()?;
            let (symbols, rest) = rest.split_at_checked(counts.iter().map(|&count| usize::from(count)).sum())?;
            segment = rest;
            let table = Huffman::new(counts, symbols)?;
            *self.huffman.get_mut(usize::from(name >> 4))?.get_mut(usize::from(name & 15))? = Some(Box::new(table));
        }
        Some(())
    }

    /// B.2.3: one scan of all components, all coefficients at once.
    fn scan_header(&mut self, mut segment: &[u8], names: &[u8]) -> Option<()> {
        let count = usize::from(byte(&mut segment)?);
        let (selectors, rest) = segment.split_at_checked(2 * count)?;
        if rest != [0, 63, 0] || count != names.len() || names.is_empty() {
            return None;
        }
        let selectors = selectors.as_chunks::<2>().0.iter().zip(names).zip(&mut self.components);
        for ((&[name, tables], expected), component) in selectors {
            component.huffman = [usize::from(tables >> 4), usize::from(tables & 15)];
            if name != *expected || component.huffman.iter().any(|&table| table > 3) {
                return None;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey image of 9 rows and 17 columns, up to its entropy-coded data, with other markers between.
    fn file(start_of_frame: u8, between: &[u8]) -> Vec<u8> {
        let mut file = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
        file.extend(1..=64);
        file.extend(between);
        file.extend([0xff, start_of_frame, 0, 11, 8, 0, 9, 0, 17, 1, 1, 0x22, 0]);
        file.extend([0xff, 0xda, 0, 8, 1, 1, 0x12, 0, 63, 0, 0xab]);
        file
    }

    #[test]
    fn headers_are_read() {
        let file = file(0xc0, b"\xff\xe1\0\x0aExif\0\0MM\xff\xff\xdd\0\x04\0\x07\xff\xfe\0\x03?");
        let headers = Headers::parse(&file).expect("headers");
        assert_eq!((headers.width, headers.height, headers.components.len()), (17, 9, 1));
        assert_eq!((headers.exif, headers.restart_interval, headers.scan), (Some(&b"MM"[..]), 7, &[0xab][..]));
        let component = headers.components[0];
        assert_eq!((component.across, component.down, component.huffman), (1, 1, [1, 2]));
        let steps = headers.steps(&component).expect("steps");
        assert_eq!((steps[0], steps[1], steps[8], steps[16], steps[63]), (1, 2, 3, 4, 64));
    }

    #[test]
    fn the_unusual_is_left_to_others() {
        assert!(Headers::parse(&file(0xc0, b"")).is_some());
        let progressive = file(0xc2, b"");
        let rgb = file(0xc0, b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0");
        let junk = file(0xc0, b"junk");
        for file in [&progressive, &rgb, &junk] {
            assert!(Headers::parse(file).is_none());
        }
        let whole = file(0xc0, b"");
        assert!((0..whole.len() - 1).all(|length| Headers::parse(&whole[..length]).is_none()));
    }
}
