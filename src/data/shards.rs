//! Prepared sets: tar files of small images, WebDataset's form, which its readers and any tar program read.
//!
//! | file | holds |
//! |---|---|
//! | `dataset.json` | classes, shards, colours, where it all comes from; written last, so a set that has it is whole |
//! | `train-000000.tar`, `val-000000.tar`... | for each image `00000000.jpg` (or `.ppm`) and `00000000.cls`, its class |
//! | `train-000000.tsv`... | a line an image: number, class, offset and bytes in the tar, CRC-32, the name it had |
//! | `mean.safetensors` | the mean training image: C H W |
//!
//! Tar because it is sequential on disk, needs no reader of its own and no unpacking, and the lines of the index make
//! every image one read away.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::colours::Colours;
use super::{ImageSet, decode, formats};
use crate::disk::tensors::{Seal, sha256};
use crate::disk::write_whole;
use crate::error::{Error, Result};

/// What `dataset.json` begins with.
const FORMAT: &str = "alexnet-split data set";
const VERSION: u32 = 1;

/// How images are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// Compressed.
    Jpeg,
    /// As they are, in a portable pixmap (PPM): eight times as large, and nothing to decode.
    Raw,
}

impl Store {
    fn ending(self) -> &'static str {
        match self {
            Store::Jpeg => "jpg",
            Store::Raw => "ppm",
        }
    }
}

/// One tar file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its name, without `.tar`.
    pub name: String,
    /// Images in it.
    pub images: usize,
    /// Its size.
    pub bytes: u64,
    /// Its checksum.
    pub sha256: String,
    /// That of its index; sets of earlier versions have none.
    #[serde(default)]
    pub index_sha256: Option<String>,
}

/// An image that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// Where it was.
    pub name: String,
    /// The problem.
    pub problem: String,
}

/// `dataset.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Says what this is.
    pub format: String,
    /// Of the format.
    pub version: u32,
    /// Names by class.
    pub classes: Vec<String>,
    /// Rows and columns of the images; they have three channels.
    pub size: usize,
    /// How images are stored.
    pub store: Store,
    /// Of JPEG, 1 to 100.
    pub quality: u8,
    /// Training images.
    pub train: Vec<Shard>,
    /// Held-out images.
    pub val: Vec<Shard>,
    /// Of the training images' pixels.
    pub colours: Colours,
    /// Of the mean image's file; sets of earlier versions have none.
    #[serde(default)]
    pub mean: Option<Seal>,
    /// The set that was prepared, and its form.
    pub source: String,
    /// The form that it had.
    pub form: String,
    /// The images that were left out.
    pub bad_images: Vec<Bad>,
}

/// Whether a folder holds a prepared set.
pub fn is_prepared(folder: &Path) -> bool {
    folder.join(DESCRIPTION).is_file()
}

const DESCRIPTION: &str = "dataset.json";

impl Description {
    /// What `format` and `version` say.
    pub fn header() -> (String, u32) {
        (FORMAT.to_owned(), VERSION)
    }

    /// Reads a folder's.
    pub fn load(folder: &Path) -> Result<Description> {
        let path = folder.join(DESCRIPTION);
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let description: Description = serde_json::from_str(&text)
            .map_err(|error| Error::data(&path, format!("not the description of a prepared set: {error}")))?;
        if (&*description.format, description.version) != (FORMAT, VERSION) {
            let found = format!("{:?} version {}", description.format, description.version);
            let problem = format!("{found}, expected {FORMAT:?} version {VERSION}; prepare the set again");
            return Err(Error::data(&path, problem));
        }
        Ok(description)
    }

    /// Writes a folder's, which makes the set whole.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        write_whole(&folder.join(DESCRIPTION), text.as_bytes())
    }
}

/// An image that is ready to be stored.
pub struct Entry {
    /// Where it was.
    pub name: String,
    /// Its class.
    pub class: u32,
    /// As it is stored.
    pub bytes: Vec<u8>,
}

/// Compresses a square of `size` x `size` pixels, rows of red, green, blue.
pub fn encode(square: &[u8], size: usize, store: Store, quality: u8) -> Result<Vec<u8>, String> {
    match store {
        Store::Jpeg if !(1..=65_535).contains(&size) => Err(format!("{size} rows are too many for a JPEG")),
        Store::Jpeg => formats::jpeg::encode(square, size, quality),
        Store::Raw => {
            let mut bytes = format!("P6\n{size} {size}\n255\n").into_bytes();
            bytes.extend_from_slice(square);
            Ok(bytes)
        }
    }
}

/// Writes a tar and its index; the numbers of its images begin at `first`.
pub fn write_shard(folder: &Path, name: &str, first: usize, store: Store, entries: &[Entry]) -> Result<Shard> {
    let path = folder.join(format!("{name}.tar"));
    let (mut tar, mut index) = (tar::Builder::new(Vec::new()), String::new());
    for (number, entry) in (first..).zip(entries) {
        let class = entry.class.to_string();
        // The index names the bytes, which follow a header of 512.
        let offset = tar.get_ref().len() + 512;
        for (ending, bytes) in [(store.ending(), &entry.bytes[..]), ("cls", class.as_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            let appended = tar.append_data(&mut header, format!("{number:08}.{ending}"), bytes);
            appended.map_err(Error::io("write", &path))?;
        }
        let (bytes, crc) = (entry.bytes.len(), crc32fast::hash(&entry.bytes));
        let name = entry.name.replace(['\t', '\n', '\r'], " ");
        index += &format!("{number}\t{class}\t{offset}\t{bytes}\t{crc:08x}\t{name}\n");
    }
    let bytes = tar.into_inner().map_err(Error::io("write", &path))?;
    write_whole(&folder.join(format!("{name}.tsv")), index.as_bytes())?;
    write_whole(&path, &bytes)?;
    let (sha256, index_sha256) = (sha256(&bytes), Some(sha256(index.as_bytes())));
    Ok(Shard { name: name.to_owned(), images: entries.len(), bytes: bytes.len() as u64, sha256, index_sha256 })
}

/// Of a file of a prepared set that is not as it was written.
pub const CHANGED: &str = "its bytes have changed; copy it again, or prepare the set again";

/// Where an image of a prepared set lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    shard: u32,
    bytes: u32,
    offset: u64,
    crc: u32,
}

/// The tars of one part of a prepared set, open for reading.
#[derive(Debug)]
pub struct Shards {
    size: usize,
    store: Store,
    files: Vec<(PathBuf, File)>,
    places: Vec<Place>,
}

impl Shards {
    /// Opens a part of a set as images of C H W.
    ///
    /// Fails, naming the file, where a tar or its index is missing, or of another size than it was written with.
    pub fn open(folder: &Path, description: &Description, shards: &[Shard]) -> Result<ImageSet> {
        let (mut files, mut places, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for (number, shard) in shards.iter().enumerate() {
            let path = folder.join(format!("{}.tar", shard.name));
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            let bytes = file.metadata().map_err(Error::io("read", &path))?.len();
            if bytes != shard.bytes {
                let problem =
                    format!("{bytes} bytes, expected {}: copy it again, or prepare the set again", shard.bytes);
                return Err(Error::data(path, problem));
            }
            files.push((path, file));
            let path = folder.join(format!("{}.tsv", shard.name));
            let mut text = String::new();
            File::open(&path).and_then(|mut file| file.read_to_string(&mut text)).map_err(Error::io("read", &path))?;
            for (line, row) in text.lines().enumerate() {
                let place = parse_row(row, number as u32).filter(|(class, place)| {
                    (*class as usize) < description.classes.len()
                        && place.offset.checked_add(place.bytes.into()).is_some_and(|end| end <= bytes)
                });
                let Some((class, place)) = place else {
                    return Err(Error::data(&path, format!("line {}: not a row of the index: {row:?}", line + 1)));
                };
                places.push(place);
                labels.push(class);
            }
            if text.lines().count() != shard.images {
                let problem = format!("{} images, expected {}", text.lines().count(), shard.images);
                return Err(Error::data(&path, problem));
            }
            if shard.index_sha256.as_ref().is_some_and(|expected| *expected != sha256(text.as_bytes())) {
                return Err(Error::data(&path, CHANGED));
            }
        }
        let (size, store) = (description.size, description.store);
        Ok(ImageSet::in_shards(size, labels, Shards { size, store, files, places }))
    }

    /// The square of an image: rows of red, green, blue.
    ///
    /// Fails, naming the image, where it is not what was written.
    pub fn square(&self, index: usize) -> Result<Vec<u8>> {
        let place = self.places[index];
        let (path, file) = &self.files[place.shard as usize];
        let mut bytes = vec![0; place.bytes as usize];
        file.read_exact_at(&mut bytes, place.offset).map_err(Error::io("read", path))?;
        let damaged = |problem: String| {
            let at = format!("the image at byte {}", place.offset);
            Error::data(path, format!("{at}: {problem}; copy the shard again, or prepare the set again"))
        };
        let crc = crc32fast::hash(&bytes);
        if crc != place.crc {
            return Err(damaged(format!("its bytes have changed (CRC-32 {crc:08x}, expected {:08x})", place.crc)));
        }
        let pixels = 3 * self.size * self.size;
        match self.store {
            Store::Jpeg => decode::decode(&bytes).and_then(|image| image.square(self.size)).map_err(damaged),
            Store::Raw if bytes.len() < pixels => Err(damaged(format!("{} bytes are too few", bytes.len()))),
            Store::Raw => Ok(bytes.split_off(bytes.len() - pixels)),
        }
    }
}

/// A row of the index: the class and the place.
fn parse_row(row: &str, shard: u32) -> Option<(u32, Place)> {
    let mut fields = row.split('\t').skip(1);
    let class = fields.next()?.parse().ok()?;
    let (offset, bytes) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let crc = u32::from_str_radix(fields.next()?, 16).ok()?;
    Some((class, Place { shard, bytes, offset, crc }))
}
