//! Preparing sets in tests.

use std::path::Path;

use alexnet_split::data::DataSet;
use alexnet_split::data::prepare::{Observer, Options, prepare};
use alexnet_split::data::shards::{Description, Store};
use alexnet_split::data::sources::{self, SourceOptions};
use alexnet_split::error::{Error, Result};
use tempfile::TempDir;

/// Raw squares, so that nothing is lost.
pub fn options() -> Options {
    Options { size: 24, store: Store::Raw, quality: 90, max_bad_images: 0 }
}

/// Nobody watches.
pub struct Quiet;

impl Observer for Quiet {
    fn prepared(&self, _: usize, _: usize) {}
}

/// Classes and pixels of a prepared set, by part; the order within a part is that of its form.
pub fn prepared(source: &Path, options: &Options) -> Result<(DataSet, Description)> {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let found = sources::open(source, &SourceOptions::holding_out(0.25))?;
    let description = prepare(source, &found, &out, options, &Quiet)?;
    Ok((DataSet::load(&out)?, description))
}

/// The set cannot be opened or prepared, and the message has all of `parts`.
pub fn refused(source: &Path, parts: &[&str]) {
    let Err(error) = prepared(source, &options()) else { panic!("{parts:?} passed") };
    let text = error.to_string();
    assert!(matches!(error, Error::Data { .. } | Error::Io { .. }), "{text}");
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in: {text}"));
}
