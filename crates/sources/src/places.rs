//! Images that are files, or pieces of files.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Item, Picture, Source};
use crate::error::{Error, Result};

/// Where the bytes of an image lie.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file of its own.
    File(PathBuf),
    /// A piece of an archive.
    Piece { archive: usize, offset: u64, bytes: u64 },
}

/// Image files and pieces of archives.
#[derive(Default)]
pub struct Places {
    pub items: Vec<Item>,
    pub places: Vec<Place>,
    pub archives: Vec<(PathBuf, Option<File>)>,
}

/// Files of a set that are kept open; systems allow a process about a thousand.
pub const OPEN_FILES: usize = 256;

/// Bytes of the largest image file that is read.
const MAX_BYTES: u64 = 1 << 30;

/// The bytes of an image file.
///
/// Fails where it cannot be read, is too long, is a link to nothing, or has no end (a pipe or a device).
pub fn read_image_file(path: &Path) -> Result<Vec<u8>> {
    let about = std::fs::metadata(path).map_err(|error| match std::fs::read_link(path) {
        Ok(target) if error.kind() == ErrorKind::NotFound => {
            Error::data(path, format!("is a link to {}, which is not there", target.display()))
        }
        _ => Error::io("read", path)(error),
    })?;
    if !about.is_file() && !about.is_dir() {
        return Err(Error::data(path, "is a pipe, a socket or a device, not an image file"));
    }
    if about.len() > MAX_BYTES {
        return Err(Error::data(path, format!("{} bytes are too many for an image", about.len())));
    }
    std::fs::read(path).map_err(Error::io("read", path))
}

impl Places {
    pub fn push(&mut self, name: String, class: u32, place: Place) {
        self.items.push(Item { name, class });
        self.places.push(place);
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        match &self.places[index] {
            Place::File(path) => read_image_file(path),
            Place::Piece { archive, offset, bytes } => {
                let (path, file) = &self.archives[*archive];
                if *bytes > MAX_BYTES {
                    let problem = format!("{}: {bytes} bytes are too many for an image", self.items[index].name);
                    return Err(Error::data(path, problem));
                }
                let mut buffer = vec![0; *bytes as usize];
                let read = match file {
                    Some(file) => file.read_exact_at(&mut buffer, *offset),
                    None => File::open(path).and_then(|file| file.read_exact_at(&mut buffer, *offset)),
                };
                read.map_err(Error::io("read", path))?;
                Ok(buffer)
            }
        }
    }
}

impl Source for Places {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, indices: &[u32], work: &(dyn Fn(usize, Result<Picture>) + Sync)) {
        indices
            .par_iter()
            .enumerate()
            .for_each(|(place, &index)| work(place, self.bytes(index as usize).map(Picture::File)));
    }
}
