//! The development kit of ILSVRC 2012: the classes, and the class of each image to validate with.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::matlab::{self, Value};
use super::notes::Notes;
use super::tars::{MAX_UNPACKED, Tar, members};
use crate::error::{Error, Result};

/// The kit as it is fetched.
pub const KIT: &str = "ILSVRC2012_devkit_t12.tar.gz";

/// A class by the kit.
struct Synset {
    id: u32,
    wnid: String,
    words: String,
}

/// What the kit tells.
pub struct Kit {
    pub path: PathBuf,
    synsets: Vec<Synset>,
    /// By the number of the image, from 1 on: the kit's own number of its class.
    pub answers: Vec<u32>,
}

impl Kit {
    /// Whether it has the class.
    pub fn has(&self, wnid: &str) -> bool {
        self.synsets.iter().any(|synset| synset.wnid == wnid)
    }

    /// The names of a class.
    pub fn words(&self, wnid: &str) -> Result<String> {
        let synset = self.synsets.iter().find(|synset| synset.wnid == wnid);
        let problem = || Error::data(&self.path, format!("class {wnid} is not in it; is it the kit of ILSVRC 2012?"));
        synset.map(|synset| synset.words.clone()).ok_or_else(problem)
    }

    /// The WordNet number of an image's class; fails with the reason.
    pub fn answer(&self, number: usize) -> Result<&str, String> {
        let problem = || format!("has number {number}, but {KIT} has answers for 1 to {}", self.answers.len());
        let id = number.checked_sub(1).and_then(|at| self.answers.get(at)).ok_or_else(problem)?;
        let synset = self.synsets.iter().find(|synset| synset.id == *id);
        Ok(&synset.ok_or_else(|| format!("has the answer {id}, which is no class of {KIT}"))?.wnid)
    }
}

impl Kit {
    /// Notes the answers whose images are not among those of some numbers.
    pub fn note_missing(&self, numbers: &HashSet<usize>, notes: &mut Notes) {
        let missing = || (1..=self.answers.len()).filter(|number| !numbers.contains(number));
        if let Some(first) = missing().next() {
            notes.add_many("answer[s] of the kit without an image", missing().count(), format!("number {first}"));
        }
    }
}

/// The number in the name of an image to validate with: 4 in `ILSVRC2012_val_00000004.JPEG`.
pub fn number_in(name: &str) -> Option<usize> {
    let base = name.rsplit('/').next()?.to_ascii_lowercase();
    base.strip_prefix("ilsvrc2012_val_")?.split('.').next()?.parse().ok()
}

/// The kit that lies in the folder of images to validate with, beside it, or a folder above that.
pub fn beside(folder: &Path) -> Result<Option<Kit>> {
    for folder in folder.ancestors().take(3) {
        if let Some(kit) = read(folder, &mut MAX_UNPACKED.clone())? {
            return Ok(Some(kit));
        }
    }
    Ok(None)
}

const META: &str = "data/meta.mat";
const ANSWERS: &str = "data/ILSVRC2012_validation_ground_truth.txt";

/// Reads the kit of a folder: as it is fetched, no longer gzipped, or unpacked. `None` where it has none.
pub fn read(folder: &Path, left: &mut u64) -> Result<Option<Kit>> {
    let unpacked = folder.join(KIT.trim_end_matches(".tar.gz"));
    let tar = [KIT, KIT.trim_end_matches(".gz")].map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
    let (path, [meta, answers]) = match tar {
        Some(path) => {
            let tar = Tar::open(&path, left)?;
            let members = members(&path, &tar.file, [0, tar.bytes], &mut Notes::default())?;
            let file = |name: &str| -> Result<Vec<u8>> {
                let member = members.iter().find(|member| member.name.ends_with(name));
                member.ok_or_else(|| Error::data(&path, format!("has no {name}")))?.read(&path, &tar.file)
            };
            let files = [file(META)?, file(ANSWERS)?];
            (path, files)
        }
        None if unpacked.is_dir() => {
            let file = |name: &str| {
                let path = unpacked.join(name);
                std::fs::read(&path).map_err(Error::io("read", &path))
            };
            let files = [file(META)?, file(ANSWERS)?];
            (unpacked, files)
        }
        None => return Ok(None),
    };
    let rows =
        matlab::structs(&meta, "synsets").map_err(|problem| Error::data(&path, format!("meta.mat: {problem}")))?;
    let synset = |row: &HashMap<String, Value>| {
        Some(Synset {
            id: row.get("ILSVRC2012_ID")?.number()? as u32,
            wnid: row.get("WNID")?.text()?.to_owned(),
            words: row.get("words")?.text()?.to_owned(),
        })
    };
    let synsets: Option<Vec<Synset>> = rows.iter().map(synset).collect();
    let synsets =
        synsets.ok_or_else(|| Error::data(&path, "meta.mat: a synset without ILSVRC2012_ID, WNID or words"))?;
    let text = String::from_utf8_lossy(&answers);
    let answers: Result<Vec<u32>, _> = text.trim_start_matches('\u{feff}').split_whitespace().map(str::parse).collect();
    let answers = answers.map_err(|error| Error::data(&path, format!("the answers are not numbers: {error}")))?;
    Ok(Some(Kit { path, synsets, answers }))
}
