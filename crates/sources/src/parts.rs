//! Columns of files of labels that tell the part of each image: `split`, `is_valid` and such.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::notes::Notes;
use super::places::Places;
use super::shard_files::{is_part, part_of};
use crate::error::{Error, Result};
use crate::plurals::counted;

/// Words in the names of columns that tell it in words.
const WORDS: [&str; 3] = ["split", "subset", "partition"];

/// What columns are called that tell it by yes or no, and the parts of the two; the first that tells of another part than
/// the one to train on counts.
const FLAGS: [(&str, [usize; 2]); 7] = [
    ("is_valid", [1, 0]),
    ("is_val", [1, 0]),
    ("is_validation", [1, 0]),
    ("is_test", [2, 0]),
    ("is_train", [0, 2]),
    ("is_training", [0, 2]),
    ("is_training_image", [0, 2]),
];

/// A column of numbers for cross-validation: it does not say which of them are to be held out.
const FOLD: &str = "fold";

/// What a column tells of each row: 0 to train on, 1 to hold out, 2 to hold out where there is no 1.
pub struct Parts {
    /// What it is called.
    pub column: String,
    pub rows: Vec<usize>,
}

/// What a column tells of each image of a folder.
pub struct Told {
    /// The file, and what its column is called.
    pub file: PathBuf,
    pub column: String,
    /// As in [`Parts`]; `None` for images that the file does not list.
    pub parts: Vec<Option<usize>>,
}

/// Whether a column tells the part in words, by its name.
pub fn is_called_so(name: &str) -> bool {
    name.to_lowercase().split(|c: char| !c.is_alphabetic()).any(|word| WORDS.contains(&word))
}

/// Whether a column has to do with parts, by its name in small letters.
pub fn is_about_parts(name: &str) -> bool {
    name == FOLD || is_called_so(name) || FLAGS.iter().any(|(flag, _)| *flag == name)
}

/// The column of a table that tells the part of each row, by its name or by its values; `header` is in small letters, and
/// the columns `except` tell something else.
///
/// Fails where a column that is called so has values that tell no part.
pub fn find(path: &Path, header: &[String], rows: &[Vec<String>], except: [usize; 2]) -> Result<Option<Parts>> {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let columns = || (0..width).filter(|column| !except.contains(column));
    let values = |column: usize| rows.iter().map(move |row| row.get(column).map_or("", |cell| cell.trim()));
    let title = |column: usize| header.get(column).map_or("", String::as_str);
    let is_one = |column: usize| values(column).all(|value| Some(value) == values(column).next());
    let told = |column: usize, rows| {
        let name = if title(column).is_empty() { (column + 1).to_string() } else { title(column).to_owned() };
        Ok(Some(Parts { column: name, rows }))
    };
    if let Some(column) = columns().find(|&column| is_called_so(title(column))) {
        return match all(path, title(column), values(column), part_of, "train, val or test") {
            // One word for all rows tells no parts, if it is not the word for one.
            Err(_) if is_one(column) => Ok(None),
            found => told(column, found?),
        };
    }
    let flags = FLAGS.iter().filter_map(|flag| Some((columns().find(|&column| title(column) == flag.0)?, flag.1)));
    let (mut flagged, mut first) = (vec![0; rows.len()], None);
    for (column, parts) in flags {
        let part = |value: &str| Some(parts[usize::from(!truth(value)?)]);
        let found = all(path, title(column), values(column), part, "true or false")?;
        first.get_or_insert(column);
        flagged.iter_mut().zip(found).filter(|(before, _)| **before == 0).for_each(|(before, found)| *before = found);
    }
    if let Some(column) = first {
        return told(column, flagged);
    }
    if columns().any(|column| title(column) == FOLD && !is_one(column)) {
        let problem = "its column fold puts the images into parts, and does not say which to hold out; write train or \
                       val for each image into a column split, or rename the column if all are to train on";
        return Err(Error::data(path, problem));
    }
    match columns().find(|&column| !is_one(column) && values(column).all(is_part)) {
        Some(column) => told(column, values(column).filter_map(part_of).collect()),
        None => Ok(None),
    }
}

/// What a word of yes or no says.
fn truth(value: &str) -> Option<bool> {
    let value = value.to_lowercase();
    let is_one_of = |words: &[&str]| words.contains(&&*value);
    match is_one_of(&["1", "1.0", "true", "t", "yes", "y"]) {
        true => Some(true),
        false => is_one_of(&["0", "0.0", "false", "f", "no", "n"]).then_some(false),
    }
}

/// The part of each value.
///
/// Fails where some tell none, with these and how often each is there.
fn all<'a>(
    path: &Path,
    title: &str,
    values: impl Iterator<Item = &'a str>,
    part: impl Fn(&str) -> Option<usize>,
    expected: &str,
) -> Result<Vec<usize>> {
    let (mut parts, mut strange) = (Vec::new(), BTreeMap::new());
    for value in values {
        match part(value) {
            Some(part) => parts.push(part),
            None => *strange.entry(value).or_insert(0) += 1,
        }
    }
    if strange.is_empty() {
        return Ok(parts);
    }
    let mut seen: Vec<String> =
        strange.iter().take(4).map(|(value, count)| format!("{value:?} in {}", counted(*count, "row[s]"))).collect();
    if strange.len() > 4 {
        seen.push(counted(strange.len() - 4, "other value[s]"));
    }
    let problem = format!(
        "its column {title} has {}; expected {expected}. Correct them, or rename the column if it does not tell the part \
         of an image",
        seen.join(", ")
    );
    Err(Error::data(path, problem))
}

impl Told {
    /// The images to train on and those to hold out; `None` where all are to train on.
    ///
    /// Fails where none is to train on.
    pub fn split(&self, all: &Places, notes: &mut Notes) -> Result<Option<[Places; 2]>> {
        let has = |part: usize| self.parts.contains(&Some(part));
        if !has(1) && !has(2) {
            return Ok(None);
        }
        if !has(0) {
            let problem = format!(
                "its column {} says of none of {} here that it is to train on; give the folder of the whole set, or \
                 rename the column if all are to train on",
                self.column,
                counted(all.items.len(), "image[s]")
            );
            return Err(Error::data(&self.file, problem));
        }
        let held_out = if has(1) { 1 } else { 2 };
        let mut parts = [Places::default(), Places::default()];
        let file = self.file.display();
        notes.line(format!("the column {} of {file} tells which images are held out", self.column));
        for ((item, place), part) in all.items.iter().zip(&all.places).zip(&self.parts) {
            match part {
                None => notes.add_about("image[s] that {} does not list not read", &file, 1, &item.name),
                Some(part) if *part != 0 && *part != held_out => {
                    notes.add("image[s] of a test set not read", &item.name);
                }
                Some(part) => parts[usize::from(*part != 0)].push(item.name.clone(), item.class, place.clone()),
            }
        }
        Ok(Some(parts))
    }

    /// Fails at an image that lies in the folder of another part than the column tells.
    pub fn check(&self, all: &Places, is_train: bool) -> Result<()> {
        let other = |part: &Option<usize>| part.is_some_and(|part| (part == 0) != is_train);
        let Some(at) = self.parts.iter().position(other) else { return Ok(()) };
        let [here, there] = if is_train { ["train on", "hold out"] } else { ["hold out", "train on"] };
        let problem = format!(
            "its column {} says that {} is to {there}, but it lies in a folder of images to {here}; correct the one that \
             is wrong, or rename the column if it does not tell the part of an image",
            self.column, all.items[at].name
        );
        Err(Error::data(&self.file, problem))
    }
}
