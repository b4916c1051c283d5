//! Images in, batches out.

pub mod idx;
pub mod input;

use std::path::Path;

use crate::backend::Window;
use crate::error::{Error, Result};

/// Labelled images of one size, as bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageSet {
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

impl ImageSet {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// C H W of one image.
    pub fn image(&self, index: usize) -> &[u8] {
        let elems = self.channels * self.height * self.width;
        &self.pixels[index * elems..][..elems]
    }
}

/// A data set: what is trained on and what is held out.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSet {
    /// Training images.
    pub train: ImageSet,
    /// Held-out images.
    pub test: ImageSet,
    /// Class names by label.
    pub classes: Vec<String>,
}

impl DataSet {
    /// Reads a folder with the four IDX files (plain or .gz) and, if it is there, `classes.txt` (a name a line).
    ///
    /// Fails, naming the file, where one is missing or malformed, or a label has no class.
    pub fn load(folder: &Path) -> Result<DataSet> {
        if !folder.is_dir() {
            return Err(Error::data(
                folder,
                "no such folder; --data takes a folder with the four IDX files of MNIST or Fashion-MNIST, plain or .gz",
            ));
        }
        let train = idx::load_images(folder, "train")?;
        let test = idx::load_images(folder, "t10k")?;
        if (train.height, train.width) != (test.height, test.width) {
            let problem = format!(
                "training images are {}x{}, test images {}x{}",
                train.height, train.width, test.height, test.width
            );
            return Err(Error::data(folder, problem));
        }
        let names = folder.join("classes.txt");
        let highest = train.labels.iter().chain(&test.labels).max().map_or(0, |&label| label as usize);
        let classes: Vec<String> = if names.is_file() {
            let text = std::fs::read_to_string(&names).map_err(Error::io("read", &names))?;
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
        } else {
            (0..=highest).map(|label| format!("class {label}")).collect()
        };
        if highest >= classes.len() {
            let problem = format!(
                "label {highest} is out of range: classes.txt names {} classes, 0 to {}",
                classes.len(),
                classes.len().saturating_sub(1)
            );
            return Err(Error::data(folder, problem));
        }
        Ok(DataSet { train, test, classes })
    }
}

/// Images for the network.
#[derive(Clone, Debug, PartialEq)]
pub enum Images {
    /// As the network reads them: N C H W.
    Ready(Vec<f32>),
    /// As they are stored, N C H W bytes, and the window that the network sees of each; the device does the rest.
    Bytes(Vec<u8>, Vec<Window>),
}

/// Images and their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// As many as labels.
    pub images: Images,
    /// Class of each.
    pub labels: Vec<u32>,
}

impl Batch {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}
