//! CIFAR-10 and CIFAR-100 in their binary form: for each image a byte of its class (two for CIFAR-100, of which the
//! second is the fine one), then 3 x 32 x 32 bytes, red, green, blue.

use std::path::{Path, PathBuf};

use super::ImageSet;
use crate::error::{Error, Result};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

/// A set's files, bytes of classes before an image, and the file of the classes' names.
struct Form {
    train: &'static [&'static str],
    test: &'static str,
    label_bytes: usize,
    names: &'static str,
}

const FORMS: [Form; 2] = [
    Form {
        train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
        test: "test_batch.bin",
        label_bytes: 1,
        names: "batches.meta.txt",
    },
    Form { train: &["train.bin"], test: "test.bin", label_bytes: 2, names: "fine_label_names.txt" },
];

fn form(folder: &Path) -> Option<&'static Form> {
    FORMS.iter().find(|form| folder.join(form.train[0]).is_file())
}

/// Whether a folder has these files.
pub fn is_there(folder: &Path) -> bool {
    form(folder).is_some()
}

/// Training images, held-out ones, and the file that names the classes if it is there.
///
/// Fails, naming the file, where one is missing or is no whole number of images.
pub fn load(folder: &Path) -> Result<(ImageSet, ImageSet, Option<PathBuf>)> {
    let Some(form) = form(folder) else {
        return Err(Error::data(folder, "no data_batch_1.bin of CIFAR-10 and no train.bin of CIFAR-100 in it"));
    };
    let names = Some(folder.join(form.names)).filter(|path| path.is_file());
    let read = |files: &[&str]| {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for file in files {
            let path = folder.join(file);
            let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
            let record = form.label_bytes + PIXELS;
            if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
                let problem =
                    format!("{} bytes are no whole number of images of {record}; fetch it again", bytes.len());
                return Err(Error::data(path, problem));
            }
            for record in bytes.chunks_exact(record) {
                labels.push(u32::from(record[form.label_bytes - 1]));
                pixels.extend_from_slice(&record[form.label_bytes..]);
            }
        }
        Ok(ImageSet::in_memory([3, SIDE, SIDE], pixels, labels))
    };
    Ok((read(form.train)?, read(&[form.test])?, names))
}
