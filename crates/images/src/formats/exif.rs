//! How a camera was held.

/// How an image must be turned to stand upright, by its EXIF: 1 to 8, where 1 is not at all.
pub fn orientation(exif: Option<&[u8]>) -> u8 {
    // WebP files have what only JPEG should have before it.
    let exif = exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
    exif.and_then(find).filter(|turn| (1..=8).contains(turn)).unwrap_or(1)
}

/// The value of tag 0x112.
fn find(exif: &[u8]) -> Option<u8> {
    let (at, is_little) = entry(exif, 0x112)?;
    let numbers = Numbers { bytes: exif, is_little };
    match [numbers.word(at + 2)?.into(), numbers.long(at + 4)?] {
        // One number of 16 bits; of 32, as some programs write it; of 8.
        [3, 1] => numbers.word(at + 8)?.try_into().ok(),
        [4 | 9, 1] => numbers.long(at + 8)?.try_into().ok(),
        [1, 1] => exif.get(at + 8).copied(),
        _ => None,
    }
}

/// Where a tag's entry of 12 bytes is in the first directory of a TIFF, as EXIF is one, and whether its numbers begin
/// with the lowest byte.
pub fn entry(bytes: &[u8], tag: u16) -> Option<(usize, bool)> {
    let is_little = match bytes.first_chunk::<4>()? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let numbers = Numbers { bytes, is_little };
    let directory = numbers.long(4)?;
    let mut entries = (0..usize::from(numbers.word(directory)?)).map(|entry| directory + 2 + 12 * entry);
    let at = entries.find(|&at| numbers.word(at) == Some(tag))?;
    bytes.get(at..at + 12)?;
    Some((at, is_little))
}

/// The numbers of a file.
struct Numbers<'a> {
    bytes: &'a [u8],
    is_little: bool,
}

impl Numbers<'_> {
    fn word(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk::<2>()?;
        Some(if self.is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let bytes = *self.bytes.get(at..)?.first_chunk::<4>()?;
        Some(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) } as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_is_found_in_both_byte_orders() {
        let big = b"MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x02\0\0\0\x01\0\0\0\0\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0";
        assert_eq!((orientation(Some(big)), orientation(Some(little))), (6, 8));
        assert_eq!(orientation(Some(&[b"Exif\0\0", &big[..]].concat())), 6);
        // A number of 32 bits, of 8.
        let long =
            |kind: u8, value: [u8; 4]| [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0"[..], &[kind, 0, 0, 0, 1], &value].concat();
        assert_eq!(
            [long(4, [0, 0, 0, 3]), long(9, [0, 0, 0, 5]), long(1, [7, 0, 0, 0])].map(|it| orientation(Some(&it))),
            [3, 5, 7]
        );
        assert_eq!(orientation(Some(&long(4, [0, 1, 0, 3]))), 1);
        // No EXIF, none that says it, one that is cut off, a turn that there is not.
        let mut ninth = little.to_vec();
        ninth[18] = 9;
        for exif in [None, Some(&b"MM\0*\0\0\0\x08\0\0"[..]), Some(&little[..19]), Some(&ninth)] {
            assert_eq!(orientation(exif), 1);
        }
    }
}
