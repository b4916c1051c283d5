//! Files that are met where others are expected, told by their first bytes: their names do not tell.

/// The kind of a file, as far as its first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Its name, with an article: "a zip archive".
    pub name: &'static str,
    /// Advice, in a few words.
    pub advice: &'static str,
}

/// The number of first bytes that [`recognize`] looks at.
pub const LENGTH: usize = 1024;

const UNPACK: &str = "unpack it first";
const ARCHIVE: &str = "unpack it, and give the folder with its files";
const FRAMES: &str = "save its pictures as JPEG or PNG";
const CONVERT: &str = "convert it to JPEG or PNG";
const IMAGE: &str = "give images in a folder for each class";
const EXPORT: &str = "save its images as files, in a folder for each class";
const FETCH: &str = "fetch the file itself";
const DOWNLOAD: &str = "look at its text: a download may have failed; download the file again";

/// The place of some bytes, the bytes, the kind's name, the advice. The first row that fits counts.
const TABLE: &[(usize, &[u8], &str, &str)] = &[
    (0, b"\x1f\x8b", "a gzip file", UNPACK),
    (0, b"\x1f\x9d", "a file of `compress` (.Z)", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
    (0, b"\x04\x22\x4d\x18", "an LZ4 file", UNPACK),
    (0, b"\xfd7zXZ\0", "an xz file", UNPACK),
    (0, b"\x5d\0\0\x80\0\xff", "an LZMA file", UNPACK),
    (0, b"BZh", "a bzip2 file", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", ARCHIVE),
    (0, b"Rar!\x1a\x07", "a RAR archive", ARCHIVE),
    (0, b"PK\x03\x04", "a zip archive", ARCHIVE),
    (0, b"PK\x05\x06", "an empty zip archive", "download or make it again"),
    (0, b"PK\x07\x08", "a part of a zip archive", ARCHIVE),
    (257, b"ustar", "a tar archive", ARCHIVE),
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", "fetch the file itself: `git lfs pull`"),
    (0, b"version https://hawser.github.com/spec/", "a Git LFS pointer", "fetch the file itself: `git lfs pull`"),
    (0, b"/annex/objects/", "a git-annex pointer", "fetch the file itself: `git annex get`"),
    (0, b"L\0\0\0\x01\x14\x02\0", "a Windows shortcut", FETCH),
    (0, b"\0\x05\x16\x07", "a macOS AppleDouble file", "leave it out: it holds no image, the one without `._` does"),
    (0, b"ARROW1", "an Arrow file", EXPORT),
    (0, b"FEA1", "a Feather file", EXPORT),
    (0, b"PAR1", "a parquet file", "give the folder with the set's parquet files"),
    (0, b"MATLAB ", "a MATLAB file", EXPORT),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", EXPORT),
    (0, b"\x93NUMPY", "a NumPy file (.npy)", EXPORT),
    (0, b"(dp", "a Python pickle", EXPORT),
    (0, b"(lp", "a Python pickle", EXPORT),
    (0, b"SQLite format 3\0", "an SQLite database", EXPORT),
    (16, b"\xde\xc0\xef\xbe", "an LMDB database", EXPORT),
    (0, b"Obj\x01", "an Avro file", EXPORT),
    (0, b"%PDF-", "a PDF document", FRAMES),
    (0, b"%!PS", "a PostScript document", FRAMES),
    (0, b"\xff\xd8\xff", "a JPEG image", IMAGE),
    (0, b"\x89PNG", "a PNG image", IMAGE),
    (0, b"GIF8", "a GIF image", IMAGE),
    (8, b"WEBP", "a WebP image", IMAGE),
    (8, b"CR\x02\0", "a camera's raw image (CR2)", CONVERT),
    (0, b"IIRO", "a camera's raw image (ORF)", CONVERT),
    (0, b"IIRS", "a camera's raw image (ORF)", CONVERT),
    (0, b"IIU\0", "a camera's raw image (RW2)", CONVERT),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw image (RAF)", CONVERT),
    (8, b"crx ", "a camera's raw image (CR3)", CONVERT),
    (0, b"II*\0", "a TIFF image", IMAGE),
    (0, b"MM\0*", "a TIFF image", IMAGE),
    (0, b"II+\0", "a BigTIFF image", CONVERT),
    (0, b"MM\0+", "a BigTIFF image", CONVERT),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", CONVERT),
    (0, b"\xff\x0a", "a JPEG XL image", CONVERT),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", CONVERT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", CONVERT),
    (0, b"\xff\xd8", "a damaged JPEG image", "download or make it again"),
    (0, b"\0\0\x01\0", "an icon (ICO)", CONVERT),
    (0, b"\0\0\x02\0\0\0\0\0\0\0\0\0", "a TGA image", CONVERT),
    (0, b"\0\0\x0a\0\0\0\0\0\0\0\0\0", "a TGA image", CONVERT),
    (0, b"8BPS", "a Photoshop image (PSD)", CONVERT),
    (0, b"gimp xcf", "a GIMP image (XCF)", CONVERT),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", CONVERT),
    (0, b"#?RADIANCE", "a Radiance image (HDR)", CONVERT),
    (0, b"DDS ", "a DirectDraw image (DDS)", CONVERT),
    (0, b"qoif", "a QOI image", CONVERT),
    (0, b"SIMPLE  =", "a FITS image", CONVERT),
    (128, b"DICM", "a DICOM image", CONVERT),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", FRAMES),
    (8, b"AVI ", "a video (AVI)", FRAMES),
    (0, b"FLV\x01", "a video (FLV)", FRAMES),
    (0, b"\0\0\x01\xba", "a video (MPEG)", FRAMES),
    (0, b"OggS", "a sound or a video (Ogg)", FRAMES),
    (4, b"moov", "a video (QuickTime)", FRAMES),
    (4, b"mdat", "a video (QuickTime)", FRAMES),
];

/// The kind of a file by its first bytes, [`LENGTH`] or more where it has as many; `None` where they do not tell.
pub fn recognize(bytes: &[u8]) -> Option<Signature> {
    let bytes = &bytes[..bytes.len().min(LENGTH)];
    let has = |at: usize, expected: &[u8]| bytes.get(at..).is_some_and(|bytes| bytes.starts_with(expected));
    let row = TABLE.iter().find(|(at, expected, ..)| has(*at, expected)).map(|&(_, _, name, advice)| (name, advice));
    let found = match row {
        Some(("a zip archive", _)) => zip(bytes).or(row),
        Some(_) => row,
        None if has(4, b"ftyp") => Some(media(bytes)),
        None => binary(bytes).or_else(|| text(bytes)),
    };
    found.map(|(name, advice)| Signature { name, advice })
}

type Row = (&'static str, &'static str);

/// Programs' files that are zip archives, told by the name of the first file in them.
fn zip(bytes: &[u8]) -> Option<Row> {
    let length = u16::from_le_bytes(*bytes.get(26..)?.first_chunk()?);
    let name = bytes.get(30..)?.get(..usize::from(length))?;
    match name {
        [.., b'.', b'n', b'p', b'y'] => Some(("a NumPy file (.npz)", EXPORT)),
        [.., b'd', b'a', b't', b'a', b'.', b'p', b'k', b'l'] => Some(("a PyTorch file", EXPORT)),
        _ => None,
    }
}

/// Files of ISO's media format, told by their brands: the main one, a version, and those that they fit too.
fn media(bytes: &[u8]) -> Row {
    let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let brands = bytes[8..length.clamp(8, bytes.len())].as_chunks::<4>().0;
    let any = |names: &[&[u8; 4]]| brands.iter().any(|brand| names.contains(&brand));
    if any(&[b"avif", b"avis"]) {
        ("an AVIF image", CONVERT)
    } else if any(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) {
        ("an HEIC image", CONVERT)
    } else {
        ("a video (MP4 or QuickTime)", FRAMES)
    }
}

/// Files whose first bytes vary.
fn binary(bytes: &[u8]) -> Option<Row> {
    match bytes {
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some(("a BMP image", IMAGE)),
        [b'P', b'1'..=b'4', space, ..] if space.is_ascii_whitespace() => {
            Some(("a portable bitmap or an image in numbers (PBM, PGM, PPM)", CONVERT))
        }
        [b'P', b'7', b'\n', ..] => Some(("a PAM image", CONVERT)),
        [0x80, 2 | 3, b'}' | b']' | b'(' | b'c' | b'X' | b'U' | 0x8a, ..] | [0x80, 4 | 5, 0x95, ..] => {
            Some(("a Python pickle", EXPORT))
        }
        // A message of metadata, which begins with an offset.
        [0xff, 0xff, 0xff, 0xff, _, _, _, 0, 0x10, 0, 0, 0, ..] => Some(("an Arrow stream", EXPORT)),
        _ if is_tf_record(bytes) => Some(("a TFRecord file", EXPORT)),
        _ => None,
    }
}

/// Whether the checksum of the first record's length, in bytes 8 to 12, is right: a CRC-32C, turned and moved.
fn is_tf_record(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    let crc = !length.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    });
    rest.first_chunk() == Some(&crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes())
}

/// Files that are text.
fn text(bytes: &[u8]) -> Option<Row> {
    let start = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let start = start.trim_start_matches('\u{feff}').trim_start();
    let rest = start.get(1..).unwrap_or_default().trim_start();
    match start.chars().next()? {
        '<' if ["<!doctype html", "<html", "<head", "<body"].iter().any(|tag| start.contains(tag)) => Some((
            "an HTML page",
            "a download has failed, or a page was saved in place of its image; download the file again",
        )),
        '<' if start.contains("<svg") => Some(("an SVG drawing", CONVERT)),
        '<' if start.starts_with("<?xml") => Some(("an XML file", DOWNLOAD)),
        '{' | '[' if rest.starts_with(['"', '{', '[', '}', ']']) => Some(("a JSON file", DOWNLOAD)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> Option<&'static str> {
        recognize(bytes).map(|found| found.name)
    }

    #[test]
    fn every_row_is_found_by_its_bytes() {
        for &(at, bytes, name, advice) in TABLE {
            let file = [&vec![b'-'; at], bytes, &[b'-'; 30]].concat();
            assert_eq!(recognize(&file), Some(Signature { name, advice }));
            assert_eq!(
                recognize(&file[..at + bytes.len() - 1]).filter(|found| found.name == name),
                None,
                "{name}, cut off"
            );
        }
    }

    #[test]
    fn a_zip_archive_may_be_a_programs_file() {
        let zip = |first: &str| {
            [&b"PK\x03\x04"[..], &[0; 22], &[first.len() as u8, 0, 0, 0], first.as_bytes(), b"data"].concat()
        };
        assert_eq!(name(&zip("cat.jpg")), Some("a zip archive"));
        assert_eq!(name(&zip("x_train.npy")), Some("a NumPy file (.npz)"));
        assert_eq!(name(&zip("archive/data.pkl")), Some("a PyTorch file"));
    }

    #[test]
    fn media_are_told_by_all_their_brands() {
        let media = |brands: &str| {
            [&[0, 0, 0, 8 + brands.len() as u8][..], b"ftyp", brands.as_bytes(), b"\0\0\0\x08free"].concat()
        };
        assert_eq!(name(&media("avif\0\0\0\0mif1miaf")), Some("an AVIF image"));
        assert_eq!(name(&media("mif1\0\0\0\0miafavif")), Some("an AVIF image"));
        assert_eq!(name(&media("heic\0\0\0\0mif1heic")), Some("an HEIC image"));
        assert_eq!(name(&media("crx \0\0\0\x01crx ")), Some("a camera's raw image (CR3)"));
        assert_eq!(name(&media("isom\0\0\x02\0isomiso2avc1mp41")), Some("a video (MP4 or QuickTime)"));
        assert_eq!(name(b"\0\0\0\0ftyp"), Some("a video (MP4 or QuickTime)"));
    }

    #[test]
    fn binary_files_are_told_by_more_than_a_word() {
        // As TensorFlow writes a record of 5 bytes.
        let record = b"\x05\0\0\0\0\0\0\0\xea\xb2\x04\x3ehello";
        assert_eq!(name(record), Some("a TFRecord file"));
        assert_eq!(name(b"\x06\0\0\0\0\0\0\0\xea\xb2\x04\x3ehello"), None);
        assert_eq!(name(b"\x80\x02}q\x01(U\x0bbatch_label"), Some("a Python pickle"));
        assert_eq!(name(b"\x80\x04\x95\x20\0\0\0\0\0\0\0}"), Some("a Python pickle"));
        assert_eq!(name(b"\xff\xff\xff\xff\x78\x01\0\0\x10\0\0\0"), Some("an Arrow stream"));
        assert_eq!(name(b"P3\n1 1\n255\n1 2 3\n"), Some("a portable bitmap or an image in numbers (PBM, PGM, PPM)"));
        assert_eq!(name(b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0"), Some("a BMP image"));
        // IDX, CIFAR's binary files, words.
        for other in [&b"\0\0\x08\x03\0\0\0\x05"[..], &[6, 59, 43, 50], b"BMW", b"Paris", b"cat\ndog\n", b"", b"\0"] {
            assert_eq!(name(other), None, "{other:?}");
        }
    }

    #[test]
    fn pages_and_messages_are_told_from_words() {
        for page in [
            "<!DOCTYPE html><html>",
            "\u{feff}\r\n<HTML lang=en>",
            "<!-- saved --> <html>",
            "<?xml version='1.0'?><html>",
        ] {
            assert_eq!(name(page.as_bytes()), Some("an HTML page"));
        }
        assert_eq!(name(b"<?xml version=\"1.0\"?>\n<svg xmlns="), Some("an SVG drawing"));
        assert_eq!(name(b"<svg width="), Some("an SVG drawing"));
        assert_eq!(name(b"<?xml version=\"1.0\"?><Error><Code>NoSuchKey"), Some("an XML file"));
        for json in ["{\"error\": 404}", "[\n {}]", "{}", " [[1, 2]]"] {
            assert_eq!(name(json.as_bytes()), Some("a JSON file"));
        }
        assert_eq!(name(b"<3 cats"), None);
        assert_eq!(name(b"[draft] notes"), None);
    }
}
