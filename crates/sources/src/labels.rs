//! Files that tell the classes of images by the images' names: `metadata.csv`, `val_annotations.txt` and others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::classes::Classes;
use super::parts;
use super::rows::{Table, class_in};
use crate::error::{Error, Result};

/// The classes of images.
pub struct Labels {
    /// The file that tells them.
    pub path: PathBuf,
    /// In the order of their numbers: of names that of their bytes, of numbers their own.
    pub classes: Vec<String>,
    /// The class of each image that the file names.
    pub images: Vec<u32>,
    /// The column that tells the part of each image, if one does, and these.
    pub parts: Option<(String, Vec<usize>)>,
    /// The images by the names that the file has for them.
    by_name: HashMap<String, usize>,
    /// Those by the ends of their names, with and without the last folder; `None` where there are several.
    by_end: HashMap<String, Option<(usize, String)>>,
}

impl Labels {
    /// Reads a file of labels. `column` names the labels' column; `known` are the classes that there may be.
    ///
    /// Fails where it does not say which column has the labels, or has a label that is no class.
    pub fn read(path: &Path, column: Option<&str>, known: Option<&Classes>) -> Result<Labels> {
        let mut table = Table::read(path)?;
        let files = table.files();
        if column.is_none() {
            table.fold_one_hot(files)?;
        }
        let labels = table.labels(files, column, known)?;
        let parts = parts::find(path, &table.header, &table.rows, [files, labels])?;
        let is_prediction = table.header.get(labels).is_some_and(|name| name == "predictionstring");
        let mut pairs = Vec::new();
        for (number, row) in table.rows.iter().enumerate() {
            let (Some(file), Some(label)) = (row.get(files), row.get(labels)) else { continue };
            let is_known = |label: &str| known.is_some_and(|known| known.index(label).is_some());
            let label = match is_prediction {
                true => label.split_whitespace().next().unwrap_or_default(),
                false => class_in(label, is_known),
            };
            if file.is_empty() || (is_missing(label) && !is_known(label)) {
                continue;
            }
            if label.starts_with(['[', '{']) {
                return Err(Error::data(
                    path,
                    format!("label {label} of {file:?} is a list or an object, not a class"),
                ));
            }
            let part = parts.as_ref().map_or(0, |parts| parts.rows[number]);
            pairs.push((file.replace('\\', "/").trim_start_matches("./").to_owned(), label, part));
        }
        let has = |wanted: usize| pairs.iter().any(|(.., part)| *part == wanted);
        let (is_trained, is_held_out) = (has(0), has(1));
        let found = Classes::found(match known {
            Some(known) => known.keys.clone(),
            // What is held out has the classes of what is trained on.
            None => classes_of(pairs.iter().filter(|(.., part)| *part == 0 || !is_trained).map(|(_, label, _)| *label)),
        });
        let (path, classes) = (path.to_owned(), found.keys.clone());
        let (images, by_name, by_end) = (Vec::new(), HashMap::new(), HashMap::new());
        let parts = parts.map(|parts| (parts.column, Vec::new()));
        let mut all = Labels { path, classes, images, parts, by_name, by_end };
        let known = known.unwrap_or(&found);
        for (file, label, part) in pairs {
            match known.index(label) {
                Some(class) => all.add(file, class, part)?,
                // Of a test set that is not read.
                None if part == 2 && is_held_out => {}
                None => return Err(table.strange(label, known)),
            }
        }
        Ok(all)
    }

    fn add(&mut self, file: String, class: u32, part: usize) -> Result<()> {
        match self.by_name.get(&file) {
            Some(&before) if self.part(before).is_some_and(|before| before != part) => {
                return Err(Error::data(&self.path, format!("puts {file:?} into two parts; it needs one")));
            }
            Some(&before) if self.images[before] != class => {
                return Err(Error::data(&self.path, format!("gives {file:?} two classes; it needs one")));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let image = self.images.len();
        self.images.push(class);
        self.parts.iter_mut().for_each(|(_, parts)| parts.push(part));
        for end in ends(&file) {
            let found = Some((image, file.clone()));
            self.by_end.entry(end.to_owned()).and_modify(|several| *several = None).or_insert(found);
        }
        self.by_name.insert(file, image);
        Ok(())
    }

    /// The part of an image, if a column tells it.
    pub fn part(&self, number: usize) -> Option<usize> {
        Some(self.parts.as_ref()?.1[number])
    }

    /// The number of an image in [`Labels::images`]. The file may have its path below `folder` or below the file's own, its
    /// name, or either without the ending; or a longer path that ends so. One in another folder is another image.
    pub fn find(&self, image: &Path, folder: &Path) -> Option<usize> {
        let below = |folder: Option<&Path>| image.strip_prefix(folder?).ok();
        let paths = [below(self.path.parent()), below(Some(folder)), image.file_name().map(Path::new)];
        let paths = || paths.iter().flatten().map(|path| path.to_path_buf());
        let names = paths().chain(paths().map(|path| path.with_extension("")));
        let found = names.into_iter().find_map(|name| self.by_name.get(name.to_str()?).copied());
        found.or_else(|| {
            let known = ends(image.to_str()?).find_map(|end| self.by_end.get(end)?.as_ref());
            known
                .filter(|(_, listed)| paths().take(2).any(|path| are_ends(&path, Path::new(listed))))
                .map(|found| found.0)
        })
    }
}

/// Whether a label says that there is none, as spreadsheets and Python write it.
pub fn is_missing(label: &str) -> bool {
    ["", "-1", "-1.0", "nan", "null", "<na>", "#n/a"].contains(&&*label.to_lowercase())
}

/// A file's name with the folder that it lies in, and without.
fn ends(path: &str) -> impl Iterator<Item = &str> {
    let starts = path.rmatch_indices('/').map(|(at, _)| at + 1).take(2).collect::<Vec<_>>();
    let whole = (starts.len() < 2).then_some(path);
    whole.into_iter().chain(starts.into_iter().rev().map(|start| &path[start..]))
}

/// Whether two paths may be of one file: the shorter one is the end of the longer one.
fn are_ends(one: &Path, other: &Path) -> bool {
    one.ends_with(other) || other.ends_with(one)
}

/// The different labels, in order.
fn classes_of<'a>(labels: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut classes: Vec<&str> = labels.collect();
    classes.sort_unstable();
    classes.dedup();
    if classes.iter().all(|class| class.parse::<u64>().is_ok()) {
        classes.sort_by_key(|class| class.parse::<u64>().unwrap_or_default());
    }
    classes.into_iter().map(str::to_owned).collect()
}
