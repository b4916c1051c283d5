//! The shards of a set: which files they are, which part each belongs to, and which are missing by the others' numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::SourceOptions;
use super::listing::holds_images;
use super::notes::Notes;
use crate::error::{Error, Result};

/// The shards of a set.
pub struct ShardFiles {
    pub train: Vec<PathBuf>,
    /// None where the set is in one piece.
    pub val: Vec<PathBuf>,
    /// What was left alone, for people.
    pub notes: Vec<String>,
}

/// Endings of tars, also of those that are compressed in ways that are not read: opening them tells so.
const TARS: [&str; 11] =
    [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.lz4", ".tar.lzma"];

/// What is said about a file to hold out that is one to train on.
pub const TWIN: &str =
    "file[s] to hold out that hold[s|] the same as [one|some] to train on, so that what is measured has been learned";

/// Words that tell the part.
const WORDS: [&[&str]; 3] = [
    &["train", "training"],
    &["val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "heldout"],
    &["test", "testing"],
];

/// The part that a name tells, by its words: 0 to train on, 1 to hold out, 2 to hold out where there is no 1.
pub fn part_of(name: &str) -> Option<usize> {
    let lower = name.to_lowercase();
    let found: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphabetic()).collect();
    WORDS.iter().position(|wanted| found.iter().any(|word| wanted.contains(word)))
}

/// Whether a folder is called like a part. Hugging Face calls the beginning of a large set "partial-train".
pub fn is_part(name: &str) -> bool {
    let name = name.to_lowercase();
    WORDS.iter().any(|words| words.contains(&name.trim_start_matches("partial-")))
}

/// The name before its ending, where it is that of a shard.
fn stem<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let endings: &[&str] = if ending == ".tar" { &TARS } else { &[ending] };
    endings.iter().find_map(|ending| name.strip_suffix(ending)).filter(|stem| !stem.is_empty())
}

/// The shards of a folder whose names end so: in it, in `data` in it, and in folders called like a part in these; or
/// the one that `path` is itself. `None` where there are none to train on.
///
/// Fails where shards of one name differ, or are of two editions.
pub fn find(path: &Path, ending: &str) -> Result<Option<ShardFiles>> {
    let mut found = Shards::default();
    if path.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let train = stem(&name, ending).map(|_| vec![path.to_owned()]);
        return Ok(train.map(|train| ShardFiles { train, val: Vec::new(), notes: Vec::new() }));
    }
    found.search(path, None, ending)?;
    found.search(&path.join("data"), None, ending)?;
    let Shards { mut parts, mut notes, .. } = found;
    parts.iter_mut().for_each(|paths| paths.sort());
    let [train, mut val, test] = parts;
    let is_unclear = |path: &&PathBuf| {
        let names = [Some(path.as_path()), path.parent()];
        names.iter().flatten().filter_map(|path| path.file_name()?.to_str().and_then(part_of)).next().is_none()
    };
    let unclear: Vec<&PathBuf> = train.iter().filter(is_unclear).collect();
    if let (Some(first), true, ".tar") = (unclear.first(), unclear.len() < train.len(), ending) {
        let problem = format!(
            "is called neither train, validation nor test, and lies beside {}, which is; name each tar after its part, \
             or move it elsewhere",
            train.iter().find(|path| !is_unclear(path)).map_or(String::new(), |path| path.display().to_string())
        );
        return Err(Error::data(*first, problem));
    }
    if train.is_empty() {
        return Ok(None);
    }
    if val.is_empty() {
        val = test;
    } else if let Some(first) = test.first() {
        // Hugging Face's ImageNet has one without labels.
        notes.add_many("shard[s] of a test set not read", test.len(), first.display());
    }
    tell_missing([&train, &val], ending, &mut notes)?;
    Ok(Some(ShardFiles { train, val, notes: notes.say() }))
}

/// The shards that `--train` and `--val` name, as files or as folders of them; a part that neither names is found by name.
/// `None` where they name no shards.
///
/// Fails where one flag names shards and the other does not.
pub fn given(path: &Path, options: &SourceOptions, ending: &str) -> Result<Option<ShardFiles>> {
    let named = |given: &Option<PathBuf>| given.as_ref().map(|given| (given.clone(), shards_at(path, given, ending)));
    let [train, val] = [&options.train, &options.val].map(named);
    let all = [&train, &val].into_iter().flatten();
    if !all.clone().any(|(_, shards)| !shards.is_empty()) {
        return Ok(None);
    }
    if let Some((without, _)) = all.clone().find(|(_, shards)| shards.is_empty()) {
        let problem =
            format!("no shards here ({ending}), but in the other of --train and --val; name shards with both");
        return Err(Error::data(without, problem));
    }
    let taken: HashSet<PathBuf> = all.flat_map(|(_, shards)| shards.iter().map(|path| real(path))).collect();
    let mut found = Shards::default();
    found.search(path, None, ending)?;
    found.search(&path.join("data"), None, ending)?;
    let Shards { parts, mut notes, .. } = found;
    let [by_name, held_out, test] = parts.map(|mut paths| {
        paths.retain(|path| !taken.contains(&real(path)));
        paths.sort();
        paths
    });
    let train = train.map_or(by_name, |(_, shards)| shards);
    let val = val.map_or(if held_out.is_empty() { test } else { held_out }, |(_, shards)| shards);
    if train.is_empty() {
        let problem = "there are no shards to train on but those of --val; name them with --train";
        return Err(Error::data(path, problem));
    }
    let held_out: HashSet<PathBuf> = val.iter().map(|path| real(path)).collect();
    if let Some(twice) = train.iter().find(|path| held_out.contains(&real(path))) {
        return Err(Error::data(twice, "cannot be trained on and held out; name it with one of --train and --val"));
    }
    tell_missing([&train, &val], ending, &mut notes)?;
    Ok(Some(ShardFiles { train, val, notes: notes.say() }))
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A file of this ending, or those directly in a folder, as the shell sees it or within the set; none if it is something
/// else, or holds images.
fn shards_at(set: &Path, given: &Path, ending: &str) -> Vec<PathBuf> {
    let Some(found) = [given.to_owned(), set.join(given)].into_iter().find(|path| path.exists()) else {
        return Vec::new();
    };
    if found.is_dir() && holds_images(&found) {
        return Vec::new();
    }
    let entries = fs::read_dir(&found).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = if found.is_dir() { entries.collect() } else { vec![found] };
    let is_shard = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && stem(&name, ending).is_some() && path.is_file()
    };
    files.retain(is_shard);
    files.sort();
    files
}

/// Shards as they are found.
#[derive(Default)]
struct Shards {
    parts: [Vec<PathBuf>; 3],
    /// By part and name without ending.
    by_name: HashMap<(usize, String), PathBuf>,
    notes: Notes,
}

impl Shards {
    /// Takes in those of a folder; `part` is what its name tells, and `None` of a folder of all parts.
    fn search(&mut self, folder: &Path, part: Option<usize>, ending: &str) -> Result<()> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry.map_err(Error::io("read", folder))?;
            // A folder may hold a million files: only links are looked at.
            let is_folder =
                entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink() && entry.path().is_dir());
            if is_folder { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
        files.sort();
        let names = |paths: &[PathBuf]| -> Vec<String> {
            paths.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect()
        };
        let folder_names = names(&folders);
        // Beside other folders a compressed tar is what they came in, not a shard.
        let is_above = |name: &String| !name.starts_with('.') && name != "data" && !is_part(name);
        let has_folders = folder_names.iter().any(is_above);
        for (path, name) in files.iter().zip(names(&files)) {
            let Some(stem) = stem(&name, ending) else {
                if ending == ".tar" && name.contains(".tar.") && !name.starts_with('.') {
                    self.notes.add("file[s] beside the shards not read", path.display());
                }
                continue;
            };
            if name.starts_with('.') {
                self.notes.add("hidden file[s] beside the shards not read", path.display());
            } else if folder_names.iter().any(|folder| folder == stem) || has_folders && !name.ends_with(ending) {
                self.notes.add("archive[s] beside folders not read", path.display());
            } else {
                self.add(path.clone(), part.or_else(|| part_of(&name)).unwrap_or(0), stem)?;
            }
        }
        for (folder, name) in folders.iter().zip(&folder_names).filter(|(_, name)| part.is_none() && is_part(name)) {
            self.search(folder, part_of(name), ending)?;
        }
        Ok(())
    }

    /// Takes in one, unless it is there already.
    fn add(&mut self, path: PathBuf, part: usize, stem: &str) -> Result<()> {
        let Some(first) = self.by_name.get(&(part, stem.to_owned())) else {
            self.by_name.insert((part, stem.to_owned()), path.clone());
            self.parts[part].push(path);
            return Ok(());
        };
        let bytes = |path: &Path| fs::metadata(path).map(|about| about.len()).map_err(Error::io("read", path));
        if first.file_name() == path.file_name() && bytes(first)? != bytes(&path)? {
            let problem = format!("is another file than {} of the same name; give the folder of one", first.display());
            return Err(Error::data(path, problem));
        }
        self.notes.add("shard[s] that [is|are] there twice, read once", path.display());
        Ok(())
    }
}

/// Shards that are numbered together: `train-00003-of-00010.parquet` and the others of the ten.
struct Series {
    /// One of them, its number's first digit and number of digits.
    example: (PathBuf, usize, usize),
    numbers: BTreeSet<u64>,
}

/// The part, the text before a shard's number, and the N of `-of-N`.
type SeriesKey = (usize, String, Option<u32>);

/// Counts the shards that are missing by the numbers of the others, or by `-of-N`.
///
/// Fails where there are shards of two editions: some `-of-2`, others `-of-10`.
fn tell_missing(parts: [&[PathBuf]; 2], ending: &str, notes: &mut Notes) -> Result<()> {
    let mut all: BTreeMap<SeriesKey, Series> = BTreeMap::new();
    for (part, path) in parts.iter().enumerate().flat_map(|(part, paths)| paths.iter().map(move |path| (part, path))) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(stem) = stem(&name, ending) else { continue };
        let of = stem.rfind("-of-").or_else(|| stem.rfind("_of_"));
        // A checksum may follow the N.
        let total = of.and_then(|at| {
            let rest = &stem[at + 4..];
            rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
        });
        let before = &stem[..total.and(of).unwrap_or(stem.len())];
        let first = before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let Ok(number) = before[first..].parse::<u32>() else { continue };
        let series = all.entry((part, before[..first].to_owned(), total)).or_insert_with(|| Series {
            example: (path.clone(), first, before.len() - first),
            numbers: BTreeSet::new(),
        });
        series.numbers.insert(number.into());
    }
    for ((key, series), (next_key, next)) in all.iter().zip(all.iter().skip(1)) {
        if let (Some(total), Some(other)) = (key.2, next_key.2)
            && (key.0, &key.1) == (next_key.0, &next_key.1)
        {
            let problem = format!(
                "is one of {other} shards, but {} one of {total}: two editions of the set in one folder; move one of \
                 them into another folder",
                series.example.0.display()
            );
            return Err(Error::data(&next.example.0, problem));
        }
    }
    for ((.., total), series) in &all {
        let (low, high) = series.range(*total, &all);
        let missing = (high + 1 - low).saturating_sub(series.numbers.len() as u64);
        if let Some(first) = (low..=high).find(|number| !series.numbers.contains(number)) {
            notes.add_many("shard[s] missing, by the numbers of the others", missing as usize, series.name(first));
        }
    }
    Ok(())
}

impl Series {
    /// The first and the last number that there should be.
    fn range(&self, total: Option<u32>, all: &BTreeMap<SeriesKey, Series>) -> (u64, u64) {
        let (least, most) =
            (self.numbers.first().copied().unwrap_or_default(), self.numbers.last().copied().unwrap_or_default());
        if let Some(total) = total {
            // Counted from 0, or from 1.
            let first = u64::from(least > 0 && most >= u64::from(total));
            return (first.min(least), (first + u64::from(total)).saturating_sub(1).max(most));
        }
        let digits = self.example.2;
        let is_padded = digits > 1 && least < 10u64.saturating_pow(digits as u32 - 1);
        if !is_padded && least >= 1000 {
            return (least, least); // years and dates have gaps
        }
        let goes_on = least < 2 || all.values().any(|series| series.numbers.contains(&(least - 1)));
        (if is_padded && !goes_on { 0 } else { least }, most)
    }

    /// The name that a shard of another number has.
    fn name(&self, number: u64) -> String {
        let (path, first, digits) = &self.example;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{}{number:0digits$}{}", &name[..*first], &name[first + digits..]);
        path.with_file_name(name).display().to_string()
    }
}
