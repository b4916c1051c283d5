//! Small sets, which are read whole (CIFAR and IDX), and what training takes of them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::{cifar, idx};

/// Labelled images of one size in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallImages {
    /// 1 or 3.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// N C H W, 0 to 255.
    pub pixels: Vec<u8>,
    /// Class of each image.
    pub labels: Vec<u32>,
}

impl SmallImages {
    /// Images of `shape` (C H W), one after another.
    pub fn new([channels, height, width]: [usize; 3], pixels: Vec<u8>, labels: Vec<u32>) -> SmallImages {
        SmallImages { channels, height, width, pixels, labels }
    }

    /// C H W of one image.
    pub fn image(&self, index: usize) -> &[u8] {
        let elems = self.channels * self.height * self.width;
        &self.pixels[index * elems..][..elems]
    }
}

/// A set as its files have it.
pub(crate) struct Contents {
    pub form: &'static str,
    pub train: SmallImages,
    pub held_out: SmallImages,
    /// Class names by label, and the file that they are from.
    pub names: Option<(PathBuf, Vec<String>)>,
}

/// A small set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallSet {
    /// The name of its form.
    pub form: &'static str,
    /// Training images.
    pub train: SmallImages,
    /// Held-out images.
    pub held_out: SmallImages,
    /// Class names by label.
    pub classes: Vec<String>,
}

/// More than any set has; a name is made for each.
const MOST_CLASSES: usize = 1 << 20;

/// Whether the folder has the files of a small set.
pub fn is_there(folder: &Path) -> Result<bool> {
    Ok(cifar::find(folder)?.is_some() || idx::find(folder)?.is_some())
}

/// Reads a small set: CIFAR's files, or the four IDX files (plain or gzipped) and, if it is there, `classes.txt` (a name a
/// line). `None` where the folder has no such files.
///
/// Fails, naming the file, where one is missing or malformed, or a label has no class.
pub fn load(folder: &Path) -> Result<Option<SmallSet>> {
    let files = match (cifar::find(folder)?, idx::find(folder)?) {
        (Some(cifar), None) => cifar.load()?,
        (None, Some(idx)) => idx.load()?,
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let problem = "holds files of CIFAR and IDX files, which are two sets; give a folder with one of them";
            return Err(Error::data(folder, problem));
        }
    };
    let Contents { form, train, held_out, names } = files;
    if (train.height, train.width) != (held_out.height, held_out.width) {
        let problem = format!(
            "training images are {}x{}, test images {}x{}",
            train.height, train.width, held_out.height, held_out.width
        );
        return Err(Error::data(folder, problem));
    }
    let highest = train.labels.iter().chain(&held_out.labels).max().map_or(0, |&label| label as usize);
    let classes = match names {
        Some((path, names)) if highest >= names.len() => {
            let problem = format!(
                "label {highest} is out of range: {} names {} classes, 0 to {}",
                path.file_name().unwrap_or_default().display(),
                names.len(),
                names.len().saturating_sub(1)
            );
            return Err(Error::data(folder, problem));
        }
        Some((_, names)) => names,
        None if highest >= MOST_CLASSES => {
            let problem = format!("there is a label {highest}, expected the number of a class; labels may be damaged");
            return Err(Error::data(folder, problem));
        }
        None => (0..=highest).map(|label| format!("class {label}")).collect(),
    };
    Ok(Some(SmallSet { form, train, held_out, classes }))
}
