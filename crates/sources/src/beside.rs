//! What lies beside images and is not read: lists of classes, such as `classes.txt` (the order of the classes is that of
//! their names, and `--classes FILE` gives another), archives and tables.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::classes::is_wordnet_number;
use super::layouts::{Images, is_flat};
use super::notes::Notes;
use crate::names;

/// What they are called, in small letters, without ending and without other signs than letters.
const CALLED: [&str; 14] = [
    "class",
    "classes",
    "classname",
    "classnames",
    "classlist",
    "classdict",
    "classindices",
    "categories",
    "names",
    "label",
    "labels",
    "labelnames",
    "labelmap",
    "synsets",
];

/// Endings of such files.
const ENDINGS: [&str; 4] = ["txt", "names", "json", "csv"];

/// Endings of files that may hold more of the set: archives that nobody has unpacked, and tables.
const MORE: [&str; 15] =
    ["tar", "gz", "tgz", "zst", "xz", "bz2", "zip", "rar", "7z", "parquet", "arrow", "csv", "tsv", "jsonl", "xlsx"];

/// Notes what is not read in the folder of a set and in that of its images to train on: lists of classes that say otherwise
/// than the names of the classes do, which `classes` has in order, and what may belong to the set.
pub fn note(set: &Path, images: &Images, read: &[PathBuf], classes: Option<&Vec<String>>, notes: &mut Notes) {
    let above: Vec<&Path> = images.folder.ancestors().take_while(|folder| folder.starts_with(set)).collect();
    let folders = if above.is_empty() { vec![&*images.folder] } else { above };
    for folder in folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = entries.filter(|path| !read.contains(path) && !is_hidden(path)).collect();
        files.sort();
        // What lies between images is counted with these.
        let is_counted = folder == images.folder && is_flat(folder);
        for path in files {
            if is_called_so(&path) {
                classes.into_iter().for_each(|classes| note_one(&path, classes, notes));
            } else if !is_counted && MORE.contains(&&*lower(path.extension())) && path.is_file() {
                let what = "file[s] beside the folders of images, which may belong to the set, not read";
                notes.add(what, path.display());
            }
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn lower(part: Option<&std::ffi::OsStr>) -> String {
    part.unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Notes one list, if it says otherwise.
pub fn note_one(path: &Path, classes: &[String], notes: &mut Notes) {
    if let Some(why) = differs(path, classes) {
        let advice = "--classes FILE takes the classes and their order from a file with a name a line";
        notes.line(format!("{} not read: it {why} ({advice})", path.display()));
    }
}

fn is_called_so(path: &Path) -> bool {
    let stem: String = lower(path.file_stem()).chars().filter(|c| c.is_alphabetic()).collect();
    CALLED.contains(&&*stem) && ENDINGS.contains(&&*lower(path.extension())) && path.is_file()
}

/// Whether a file lists these classes and nothing else, in any order.
pub fn lists(path: &Path, classes: &[String]) -> bool {
    entries(path, classes).is_some_and(|found| {
        let found: HashSet<&str> = found.iter().map(|entry| &**entry).collect();
        found == classes.iter().map(|class| &**class).collect()
    })
}

/// How a list differs from the classes, if it does.
fn differs(path: &Path, classes: &[String]) -> Option<String> {
    let Some(found) = entries(path, classes) else { return Some("may list the classes in its own way".into()) };
    let without = |all: &[String], some: &[String]| {
        let some: HashSet<&String> = some.iter().collect();
        all.iter().find(|name| !some.contains(name)).cloned()
    };
    if let Some(other) = without(&found, classes) {
        return Some(format!("lists {other:?}, and no class here is called so"));
    }
    if let Some(other) = without(classes, &found) {
        return Some(format!("does not list {other:?}"));
    }
    (found != classes).then(|| "has the classes in another order than that of their names".into())
}

/// The classes that a text lists, a line each; `None` where it is no such text.
fn entries(path: &Path, classes: &[String]) -> Option<Vec<String>> {
    let text = names::text(path).ok().filter(|text| !text.trim_start().starts_with(['{', '[']))?;
    let known: HashSet<&str> = classes.iter().map(|class| &**class).collect();
    Some(
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| entry(line, &known).to_owned())
            .collect(),
    )
}

/// The class that a line names, perhaps with its number before or behind it, or with other words behind its WordNet number.
fn entry<'a>(line: &'a str, known: &HashSet<&str>) -> &'a str {
    let is_sign = |c: char| c.is_whitespace() || [',', ':', ';', '='].contains(&c);
    let is_number = |word: &str| word.parse::<u32>().is_ok();
    let behind = line.split_once(is_sign).filter(|(number, _)| is_number(number)).map(|(_, name)| name);
    let before = line.rsplit_once(is_sign).filter(|(_, number)| is_number(number)).map(|(name, _)| name);
    let first = line.split(is_sign).next().filter(|word| is_wordnet_number(word));
    let words = [Some(line), behind, before, first].into_iter().flatten().map(|name| name.trim_matches(is_sign));
    words.into_iter().find(|name| known.contains(name)).unwrap_or(line)
}
