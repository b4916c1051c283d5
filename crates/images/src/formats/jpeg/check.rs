//! What a JPEG's markers say, read before it is decoded.
//!
//! The decoder fills up what is missing behind an end marker, follows restart markers that are out of order, and mixes
//! up colours that are sampled in unusual ways. It is not asked about such files: a refusal that names the kind is
//! better than a wrong picture.

/// What a file lacks that ends, or is ended, too early.
pub const CUT_OFF: &str = "truncated JPEG: its data ends before the image does";

const NO_END: &str = "damaged JPEG: it has no end; it was cut off";

/// The lowest bit that has been sent of a coefficient of which nothing has.
const NOTHING: u8 = u8::MAX;

/// A colour.
struct Component {
    id: u8,
    /// Samples across and down, beside the others'.
    sampling: [u8; 2],
    /// Of each coefficient of its blocks the lowest bit that has been sent.
    sent: [u8; 64],
}

/// What a start of frame says.
struct Frame {
    progressive: bool,
    components: Vec<Component>,
}

/// Fails where the file is cut off, where a restart marker is out of order, and where it is of a kind that is not read.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut frame: Option<Frame> = None;
    let mut at = 2; // after the start marker
    loop {
        let (marker, behind) = next_marker(bytes, at).ok_or(NO_END)?;
        at = behind;
        match marker {
            0xd9 => break,
            // Without contents, or no marker.
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let contents = segment(bytes, at).ok_or(NO_END)?;
        at += 2 + contents.len();
        match marker {
            // Huffman tables, arithmetic coding's conditions, and one that is kept for later.
            0xc4 | 0xc8 | 0xcc => {}
            0xc0..=0xcf if frame.is_some() => return Err("damaged JPEG: it has two frames".into()),
            0xc0..=0xcf => frame = Some(Frame::read(marker, contents)?),
            0xda => {
                frame.as_mut().ok_or("damaged JPEG: a scan comes before its frame")?.add_scan(contents)?;
                at = skip_scan(bytes, at)?;
            }
            _ => {}
        }
    }
    let components = frame.ok_or("damaged JPEG: there is no image in it")?.components;
    match components.iter().all(|component| component.sent == [0; 64]) {
        true => Ok(()),
        false => Err(CUT_OFF.into()),
    }
}

/// The next marker, and where what belongs to it begins. Junk before it is passed over: it is met in good photographs.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
    // Any number of bytes may fill up the space before a marker.
    at += bytes[at..].iter().position(|&byte| byte != 0xff)?;
    Some((bytes[at], at + 1))
}

/// What stands in a segment, behind its length.
fn segment(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?);
    bytes.get(at + 2..at + usize::from(length).max(2))
}

/// Where the data of a scan ends.
fn skip_scan(bytes: &[u8], mut at: usize) -> Result<usize, String> {
    let mut restarts = 0;
    loop {
        let (marker, behind) = next_marker(bytes, at).ok_or(NO_END)?;
        match marker {
            0x00 => {}
            0xd0..=0xd7 if marker & 7 == restarts & 7 => restarts += 1,
            0xd0..=0xd7 => return Err("damaged JPEG: a restart marker is out of order".into()),
            // The marker itself is read again.
            _ => return Ok(behind - 2),
        }
        at = behind;
    }
}

impl Frame {
    fn read(marker: u8, contents: &[u8]) -> Result<Frame, String> {
        let short = "damaged JPEG: its frame is too short";
        let [precision, _, _, _, _, count] = *contents.first_chunk().ok_or(short)?;
        let kind = match marker {
            0xc3 => Some("lossless".into()),
            0xc5..=0xc7 | 0xcd..=0xcf => Some("hierarchical".into()),
            0xc9..=0xcb => Some("arithmetic coding".into()),
            _ if precision != 8 => Some(format!("{precision} bits a sample")),
            _ if !matches!(count, 1 | 3 | 4) => Some(format!("{count} colours")),
            _ => None,
        };
        if let Some(kind) = kind {
            return Err(not_read(&kind));
        }
        let rows = contents[6..].as_chunks::<3>().0;
        let rows = rows.get(..usize::from(count)).ok_or(short)?;
        let component = |&[id, sampling, _]: &[u8; 3]| Component {
            id,
            sampling: [sampling >> 4, sampling & 15],
            sent: [NOTHING; 64],
        };
        let components: Vec<_> = rows.iter().map(component).collect();
        let first = components[0].sampling;
        if components.iter().flat_map(|component| component.sampling).any(|samples| !(1..=4).contains(&samples)) {
            return Err("damaged JPEG: a colour has no samples".into());
        }
        let of_first = |component: &Component| [0, 1].map(|axis| first[axis] % component.sampling[axis] == 0);
        if !components.iter().all(|component| of_first(component) == [true; 2]) {
            return Err(not_read("a colour sampled finer than the first"));
        }
        Ok(Frame { progressive: marker == 0xc2, components })
    }

    /// Notes what a scan sends.
    fn add_scan(&mut self, contents: &[u8]) -> Result<(), String> {
        let short = "damaged JPEG: the head of a scan is too short";
        let (&count, rest) = contents.split_first().ok_or(short)?;
        let (ids, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or(short)?;
        let [first, last, bits] = *rest.first_chunk().ok_or(short)?;
        if !self.progressive && count > 1 && usize::from(count) < self.components.len() {
            return Err(not_read("several scans, one of some of the colours"));
        }
        if self.progressive && first == 0 && last > 0 {
            return Err("damaged JPEG: a progressive scan mixes the mean of the blocks with the rest".into());
        }
        let (sent, lowest) = if self.progressive { (first..=last.min(63), bits & 15) } else { (0..=63, 0) };
        for [id, _] in ids.as_chunks().0 {
            let component = self.components.iter_mut().find(|component| component.id == *id);
            let component = component.ok_or("damaged JPEG: a scan is of a colour that there is not")?;
            sent.clone().for_each(|coefficient| component.sent[usize::from(coefficient)] = lowest);
        }
        Ok(())
    }
}

fn not_read(kind: &str) -> String {
    format!("JPEG of a kind that is not read ({kind}); save the picture as a usual JPEG")
}
