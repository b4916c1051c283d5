//! The tags of a TIFF's first directory, which is also the form of EXIF.

/// A file of tags.
pub struct Tags<'a> {
    bytes: &'a [u8],
    /// Numbers begin with their lowest byte.
    pub is_little: bool,
    directory: usize,
}

impl<'a> Tags<'a> {
    /// `None` where the bytes are no TIFF, or its directory is not in them.
    pub fn new(bytes: &'a [u8]) -> Option<Tags<'a>> {
        let is_little = match bytes.first_chunk::<4>()? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        let tags = Tags { bytes, is_little, directory: 0 };
        let directory = tags.number(4, 4)? as usize;
        let count = tags.number(directory, 2)? as usize;
        bytes.get(directory + 2..)?.get(..12 * count)?;
        Some(Tags { directory, ..tags })
    }

    /// The number of 1, 2 or 4 bytes at a place.
    fn number(&self, at: usize, width: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..)?.get(..width)?;
        let add = |number: u32, &byte: &u8| number << 8 | u32::from(byte);
        Some(if self.is_little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }

    /// The place of a tag's entry.
    fn entry(&self, tag: u16) -> Option<usize> {
        let count = self.number(self.directory, 2)? as usize;
        let mut entries = (0..count).map(|entry| self.directory + 2 + 12 * entry);
        entries.find(|&at| self.number(at, 2) == Some(tag.into()))
    }

    /// Whether a tag is there, but its numbers are not: cut off, or of another type.
    pub fn is_damaged(&self, tag: u16) -> bool {
        self.entry(tag).is_some() && self.first(tag).is_none()
    }

    /// The whole numbers of a tag; `None` where there are none.
    pub fn all(&self, tag: u16) -> Option<Vec<u32>> {
        let at = self.entry(tag)?;
        let width = match self.number(at + 2, 2)? {
            1 | 7 => 1,
            3 => 2,
            4 | 9 => 4,
            _ => return None,
        };
        let count = self.number(at + 4, 4)? as usize;
        let first = if count.checked_mul(width)? <= 4 { at + 8 } else { self.number(at + 8, 4)? as usize };
        self.bytes.get(first..)?.get(..count * width)?;
        (0..count).map(|index| self.number(first + index * width, width)).collect()
    }

    /// The first number of a tag.
    pub fn first(&self, tag: u16) -> Option<u32> {
        self.all(tag)?.first().copied()
    }
}
