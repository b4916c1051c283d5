//! The small data set that comes with the program, for a binary that is away from its sources.

use std::path::PathBuf;

use crate::disk::{self, write_whole};
use crate::error::{Error, NO_SPACE, Result};

/// Fashion-MNIST as its authors have it, 3.5 MB, and its licence.
const FILES: [(&str, &[u8]); 6] = [
    ("LICENSE", include_bytes!("../../data/fashion-mnist/LICENSE")),
    ("classes.txt", include_bytes!("../../data/fashion-mnist/classes.txt")),
    ("train-images-idx3-ubyte.gz", include_bytes!("../../data/fashion-mnist/train-images-idx3-ubyte.gz")),
    ("train-labels-idx1-ubyte.gz", include_bytes!("../../data/fashion-mnist/train-labels-idx1-ubyte.gz")),
    ("t10k-images-idx3-ubyte.gz", include_bytes!("../../data/fashion-mnist/t10k-images-idx3-ubyte.gz")),
    ("t10k-labels-idx1-ubyte.gz", include_bytes!("../../data/fashion-mnist/t10k-labels-idx1-ubyte.gz")),
];

/// Its folder in the user's cache; files that are not there are written.
///
/// Fails where there is no cache, or it cannot be written.
pub fn unpack() -> Result<PathBuf> {
    let Some(folder) = disk::cache_folder().map(|cache| cache.join("fashion-mnist")) else {
        let problem = "there is no folder for the images that come with the program: set HOME, or give --data";
        return Err(Error::data("fashion-mnist", problem));
    };
    let unwritable = |error: Error| match error.exit_code() {
        NO_SPACE => error,
        _ => Error::data(
            &folder,
            format!("{error}; set {} to a folder that can be written, or give --data", disk::CACHE),
        ),
    };
    disk::create_folder(&folder).map_err(unwritable)?;
    for (name, bytes) in FILES {
        let path = folder.join(name);
        let is_there = path.metadata().is_ok_and(|found| found.len() == bytes.len() as u64);
        if !is_there {
            write_whole(&path, bytes).map_err(unwritable)?;
        }
    }
    Ok(folder)
}
