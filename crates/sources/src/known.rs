//! What files are by their first bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use alexnet_split_images::signature::{LENGTH, Signature, recognize};

/// The first bytes of a file, as many as tell what it is.
pub fn head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LENGTH as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a file is, if its first bytes tell.
pub fn signature_of(path: &Path) -> Option<Signature> {
    recognize(&head(path).ok()?)
}
