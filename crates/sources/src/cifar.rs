//! CIFAR-10 and CIFAR-100: images of 3 x 32 x 32 bytes, red, green, blue. The binary form has for each image a byte of
//! its class (two for CIFAR-100, of which the second is the fine one) before them; Python's has all images in an array.

use std::path::{Path, PathBuf};

use super::names;
use super::pickle::Pickle;
use super::small::{Contents, SmallImages};
use crate::error::{Error, Result};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

/// How a set is stored.
struct Form {
    name: &'static str,
    /// What it is called as it is unpacked.
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// The file of the classes' names.
    names: &'static str,
    labels: LabelPlace,
}

/// Where the classes are.
enum LabelPlace {
    /// Before each image so many bytes, of which the last counts.
    Bytes(usize),
    /// In a pickle, under these keys: the labels, and in the file of names those.
    Keys([&'static str; 2]),
}

const FORMS: [Form; 4] = [
    Form {
        name: "CIFAR, binary",
        folder: "cifar-10-batches-bin",
        train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
        test: "test_batch.bin",
        names: "batches.meta.txt",
        labels: LabelPlace::Bytes(1),
    },
    Form {
        name: "CIFAR, binary",
        folder: "cifar-100-binary",
        train: &["train.bin"],
        test: "test.bin",
        names: "fine_label_names.txt",
        labels: LabelPlace::Bytes(2),
    },
    Form {
        name: "CIFAR, Python's batches",
        folder: "cifar-10-batches-py",
        train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        test: "test_batch",
        names: "batches.meta",
        labels: LabelPlace::Keys(["labels", "label_names"]),
    },
    Form {
        name: "CIFAR, Python's batches",
        folder: "cifar-100-python",
        train: &["train"],
        test: "test",
        names: "meta",
        labels: LabelPlace::Keys(["fine_labels", "fine_label_names"]),
    },
];

/// The files of a set.
pub struct Files {
    folder: PathBuf,
    form: &'static Form,
}

/// The set in a folder, or in one in it that is called as these sets are. `None` where there is none.
///
/// Fails where there are several.
pub fn find(folder: &Path) -> Result<Option<Files>> {
    let mut sets = Vec::new();
    for form in &FORMS {
        let folders = [folder.to_owned(), folder.join(form.folder)];
        // "train" alone tells too little.
        let has = |folder: &Path, name: &str| folder.join(name).is_file();
        let is_there = |folder: &PathBuf| {
            has(folder, form.train[0])
                && (form.train[0] != "train" || has(folder, form.test) && has(folder, form.names))
        };
        sets.extend(folders.into_iter().filter(is_there).map(|folder| Files { folder, form }));
    }
    if sets.len() > 1 {
        let names: Vec<String> =
            sets.iter().map(|set| set.folder.join(set.form.train[0]).display().to_string()).collect();
        let problem = format!("holds several sets: {}; give a folder with one of them", names.join(", "));
        return Err(Error::data(folder, problem));
    }
    Ok(sets.pop())
}

impl Files {
    /// Reads all files.
    ///
    /// Fails, naming the file, where one is missing, or is no whole number of images.
    pub fn load(&self) -> Result<Contents> {
        let names = Some(self.folder.join(self.form.names)).filter(|path| path.is_file());
        let names = names.map(|path| Ok((path.clone(), self.names(&path)?))).transpose()?;
        let (train, test) = (self.part(self.form.train)?, self.part(&[self.form.test])?);
        Ok(Contents { form: self.form.name, train, held_out: test, names })
    }

    fn names(&self, path: &Path) -> Result<Vec<String>> {
        if let LabelPlace::Keys([_, key]) = self.form.labels {
            let pickle = Pickle::read(path)?;
            let names = pickle.texts(key);
            return names.ok_or_else(|| Error::data(path, format!("has no list {key:?} of names")));
        }
        names::read(path)
    }

    fn part(&self, files: &[&str]) -> Result<SmallImages> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for file in files {
            let path = self.folder.join(file);
            match self.form.labels {
                LabelPlace::Bytes(count) => read_binary(&path, count, &mut pixels, &mut labels)?,
                LabelPlace::Keys([key, _]) => read_pickle(&path, key, &mut pixels, &mut labels)?,
            }
        }
        Ok(SmallImages::new([3, SIDE, SIDE], pixels, labels))
    }
}

fn read_binary(path: &Path, label_bytes: usize, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let record = label_bytes + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        let problem = format!("{} bytes are no whole number of images of {record}; fetch it again", bytes.len());
        return Err(Error::data(path, problem));
    }
    for record in bytes.chunks_exact(record) {
        labels.push(u32::from(record[label_bytes - 1]));
        pixels.extend_from_slice(&record[label_bytes..]);
    }
    Ok(())
}

fn read_pickle(path: &Path, key: &str, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    let pickle = Pickle::read(path)?;
    let Some(classes) = pickle.numbers(key) else {
        return Err(Error::data(path, format!("has no list {key:?} of classes")));
    };
    let Some(bytes) = pickle.array("data") else {
        return Err(Error::data(path, "has no array \"data\" of bytes, row by row"));
    };
    if classes.is_empty() || bytes.len() != classes.len() * PIXELS {
        let problem = format!("{} bytes of pixels for {} images of {PIXELS}", bytes.len(), classes.len());
        return Err(Error::data(path, problem));
    }
    labels.extend(classes);
    pixels.extend_from_slice(bytes);
    Ok(())
}
