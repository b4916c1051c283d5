//! What files are by their first bytes, for messages about those that are something else than they are called.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use alexnet_split_images::signature::{LENGTH, Signature, recognize};

/// What a file is, if its first bytes tell.
pub fn signature_of(path: &Path) -> Option<Signature> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LENGTH as u64).read_to_end(&mut bytes).ok()?;
    recognize(&bytes)
}
