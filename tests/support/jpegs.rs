//! Writes JPEG files of all kinds whose pixels are known: each block of 8x8 samples is of one value. No encoder writes
//! most of these, but people have them.

/// How a file is written. Colours are counted from 0.
#[derive(Clone)]
pub struct Jpeg {
    pub size: [usize; 2],
    /// Segments in front, as [`JFIF`] and [`adobe`].
    pub front: Vec<u8>,
    /// Number, and samples across and down, of each colour.
    pub colours: Vec<(u8, [usize; 2])>,
    /// The colours of each scan.
    pub scans: Vec<Vec<usize>>,
    pub progressive: bool,
    /// Units between two restart markers; 0 is none.
    pub restart: usize,
}

pub const JFIF: [u8; 18] = *b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0";

/// Adobe's segment, which says how colours are stored: 0 as they are, 1 as YCbCr, 2 as YCCK.
pub fn adobe(transform: u8) -> Vec<u8> {
    [&b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"[..], &[transform]].concat()
}

/// Bits of a scan.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    bits: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            self.bits = self.bits << 1 | (value >> bit & 1);
            self.count += 1;
            if self.count == 8 {
                self.bytes.push(self.bits as u8);
                if self.bits == 0xff {
                    self.bytes.push(0);
                }
                (self.bits, self.count) = (0, 0);
            }
        }
    }

    fn fill_up(&mut self) {
        while self.count > 0 {
            self.push(1, 1);
        }
    }

    /// The code of a difference, which is 4 bits of how many bits it has, and these.
    fn push_difference(&mut self, difference: i32) {
        let bits = 32 - difference.unsigned_abs().leading_zeros();
        self.push(bits, 4);
        self.push((if difference < 0 { difference - 1 } else { difference }) as u32 & ((1 << bits) - 1), bits);
    }
}

/// What a scan sends of its blocks.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    All,
    /// Means, without the last bit.
    Rough,
    /// Their last bit.
    Last,
    /// What is besides the mean, which is nothing.
    Rest,
}

impl Jpeg {
    /// A file of YCbCr in one scan, with so many samples across and down for each.
    pub fn new(size: [usize; 2], sampling: [[usize; 2]; 3]) -> Jpeg {
        Jpeg {
            size,
            front: JFIF.to_vec(),
            colours: (1..).zip(sampling).collect(),
            scans: vec![vec![0, 1, 2]],
            progressive: false,
            restart: 0,
        }
    }

    fn most(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.colours.iter().map(|colour| colour.1[axis]).max().unwrap())
    }

    /// Columns and rows of whole blocks that have samples of the image in them.
    fn blocks(&self, colour: usize) -> [usize; 2] {
        let most = self.most();
        [0, 1].map(|axis| (self.size[axis] * self.colours[colour].1[axis]).div_ceil(8 * most[axis]))
    }

    /// The value of a block.
    fn value(colour: usize, column: usize, row: usize) -> u8 {
        (40 + (column * 37 + row * 53 + colour * 71) % 170) as u8
    }

    /// What is stored for a pixel; none where a colour changes so near that smoothing reaches it.
    pub fn stored(&self, x: usize, y: usize) -> Option<Vec<u8>> {
        let most = self.most();
        let of = |colour: usize| {
            let samples = self.colours[colour].1;
            let [column, row] = [0, 1].map(|axis| [x, y][axis] * samples[axis] / most[axis]);
            let inside = |at: usize, axis: usize| most[axis] == samples[axis] || (1..7).contains(&(at % 8));
            (inside(column, 0) && inside(row, 1)).then(|| Self::value(colour, column / 8, row / 8))
        };
        (0..self.colours.len()).map(of).collect()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&[0xff, 0xd8][..], &self.front].concat();
        let mut segment = |marker: u8, contents: &[u8]| {
            bytes.extend([0xff, marker, 0, contents.len() as u8 + 2]);
            bytes.extend(contents);
        };
        // A mean's unit is one step of the samples.
        segment(0xdb, &[&[0, 8][..], &[1; 63]].concat());
        // Means: twelve codes of 4 bits. What is besides them: one of 1 bit, which says that there is nothing.
        segment(0xc4, &[&[0, 0, 0, 0, 12][..], &[0; 12], &(0..12).collect::<Vec<u8>>()].concat());
        segment(0xc4, &[&[0x10, 1][..], &[0; 16]].concat());
        let [width, height] = self.size.map(|side| (side as u16).to_be_bytes());
        let frame = self.colours.iter().flat_map(|(id, [across, down])| [*id, (across << 4 | down) as u8, 0]);
        let frame: Vec<u8> =
            [8, height[0], height[1], width[0], width[1], self.colours.len() as u8].into_iter().chain(frame).collect();
        segment(if self.progressive { 0xc2 } else { 0xc0 }, &frame);
        if self.restart > 0 {
            segment(0xdd, &[0, self.restart as u8]);
        }
        for scan in &self.scans {
            self.scan(scan, if self.progressive { Part::Rough } else { Part::All }, &mut bytes);
        }
        if self.progressive {
            self.scans.iter().for_each(|scan| self.scan(scan, Part::Last, &mut bytes));
            (0..self.colours.len()).for_each(|colour| self.scan(&[colour], Part::Rest, &mut bytes));
        }
        bytes.extend([0xff, 0xd9]);
        bytes
    }

    fn scan(&self, scan: &[usize], part: Part, bytes: &mut Vec<u8>) {
        let tables = scan.iter().flat_map(|&colour| [self.colours[colour].0, 0]);
        let [first, last, bits] = match part {
            Part::All => [0, 63, 0],
            Part::Rough => [0, 0, 1],
            Part::Last => [0, 0, 0x10],
            Part::Rest => [1, 63, 0],
        };
        bytes.extend([0xff, 0xda, 0, 6 + 2 * scan.len() as u8, scan.len() as u8]);
        bytes.extend(tables.chain([first, last, bits]));
        // Alone a colour's blocks come row by row; with others in units of as many blocks as it has samples.
        let [across, down] = match scan {
            [colour] => self.blocks(*colour),
            _ => [0, 1].map(|axis| self.size[axis].div_ceil(8 * self.most()[axis])),
        };
        let (mut data, mut before) = (Bits::default(), [0; 4]);
        for unit in 0..across * down {
            if self.restart > 0 && unit > 0 && unit % self.restart == 0 {
                data.fill_up();
                data.bytes.extend([0xff, 0xd0 + ((unit / self.restart - 1) % 8) as u8]);
                before = [0; 4];
            }
            for &colour in scan {
                let [columns, rows] = if scan.len() == 1 { [1, 1] } else { self.colours[colour].1 };
                for block in 0..columns * rows {
                    let (column, row) =
                        (unit % across * columns + block % columns, unit / across * rows + block / columns);
                    let mean = i32::from(Self::value(colour, column, row)) - 128;
                    let mean = if part == Part::Rough { mean >> 1 } else { mean };
                    match part {
                        Part::All | Part::Rough => data.push_difference(mean - before[colour]),
                        Part::Last => data.push(mean as u32 & 1, 1),
                        Part::Rest => {}
                    }
                    if matches!(part, Part::All | Part::Rest) {
                        data.push(0, 1);
                    }
                    before[colour] = mean;
                }
            }
        }
        data.fill_up();
        bytes.extend(data.bytes);
    }
}
