//! The official files of ILSVRC 2012, as they are fetched, with nothing unpacked: a tar of one tar a class to train on,
//! a tar to validate with, and the development kit, which has the answers to that.
//!
//! Classes are in the order of their WordNet numbers (as torchvision's); names are the kit's.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;

use super::matlab::{self, Value};
use super::places::{Place, Places};
use super::{Found, tars};
use crate::error::{Error, Result};

const TRAIN: &str = "ILSVRC2012_img_train.tar";
const VAL: &str = "ILSVRC2012_img_val.tar";
const KIT: &str = "ILSVRC2012_devkit_t12.tar.gz";

/// Whether a folder has the official files.
pub fn is_there(folder: &Path) -> bool {
    folder.join(TRAIN).is_file()
}

/// A class by the development kit.
struct Synset {
    id: u32,
    wnid: String,
    words: String,
}

/// Opens a folder with the official files.
pub fn open(folder: &Path) -> Result<Found> {
    for name in [VAL, KIT] {
        if !folder.join(name).is_file() {
            return Err(Error::data(folder, format!("has {TRAIN}, but not {name}; fetch it too")));
        }
    }
    let (synsets, answers) = read_kit(&folder.join(KIT))?;
    let train = folder.join(TRAIN);
    let (file, bytes) = tars::open_tar(&train)?;
    let mut classes = tars::members(&train, &file, [0, bytes])?;
    classes.sort_by(|a, b| a.name.cmp(&b.name));
    let (mut places, mut wnids) = (Places::default(), Vec::new());
    for (class, member) in classes.iter().enumerate() {
        let Some(wnid) = member.name.strip_suffix(".tar") else {
            return Err(Error::data(
                &train,
                format!("{}: expected tars of classes, such as n01440764.tar", member.name),
            ));
        };
        for image in tars::members(&train, &file, [member.offset, member.bytes])? {
            let name = format!("{}/{wnid}/{}", train.display(), image.name);
            places.push(name, class as u32, Place::Piece { archive: 0, offset: image.offset, bytes: image.bytes });
        }
        wnids.push(wnid.to_owned());
    }
    places.archives.push((train.clone(), Some(file)));
    let names = wnids.iter().map(|wnid| {
        let found = synsets.iter().find(|synset| synset.wnid == *wnid);
        found
            .map(|synset| synset.words.clone())
            .ok_or_else(|| Error::data(&train, format!("class {wnid} is not in {KIT}")))
    });
    let names = names.collect::<Result<_>>()?;

    let val = folder.join(VAL);
    let (file, bytes) = tars::open_tar(&val)?;
    let mut images = tars::members(&val, &file, [0, bytes])?;
    images.sort_by(|a, b| a.name.cmp(&b.name));
    if images.len() != answers.len() {
        return Err(Error::data(&val, format!("{} images, but {KIT} has {} answers", images.len(), answers.len())));
    }
    let mut held_out = Places::default();
    for (image, id) in images.iter().zip(answers) {
        let wnid = synsets.iter().find(|synset| synset.id == id).map(|synset| &synset.wnid);
        let class = wnid.and_then(|wnid| wnids.iter().position(|known| known == wnid));
        let Some(class) = class else {
            return Err(Error::data(&val, format!("{}: its class {id} is not among those to train on", image.name)));
        };
        let place = Place::Piece { archive: 0, offset: image.offset, bytes: image.bytes };
        held_out.push(format!("{}/{}", val.display(), image.name), class as u32, place);
    }
    held_out.archives.push((val, Some(file)));
    let (form, notes) = ("the official files of ILSVRC 2012", Vec::new());
    Ok(Found { form, train: Arc::new(places), val: Some(Arc::new(held_out)), classes: names, notes })
}

/// The classes, and the class of each image to validate with, by the kit's own numbers.
fn read_kit(path: &Path) -> Result<(Vec<Synset>, Vec<u32>)> {
    let damaged = |error: std::io::Error| Error::data(path, format!("damaged or truncated: {error}"));
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut archive = tar::Archive::new(GzDecoder::new(std::io::BufReader::new(file)));
    let [mut meta, mut answers] = [None, None];
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let wanted = match &*name {
            name if name.ends_with("data/meta.mat") => &mut meta,
            name if name.ends_with("data/ILSVRC2012_validation_ground_truth.txt") => &mut answers,
            _ => continue,
        };
        let mut bytes = Vec::new();
        entry.by_ref().take(1 << 28).read_to_end(&mut bytes).map_err(damaged)?;
        *wanted = Some(bytes);
    }
    let (Some(meta), Some(answers)) = (meta, answers) else {
        return Err(Error::data(path, "has no data/meta.mat and data/ILSVRC2012_validation_ground_truth.txt"));
    };
    let rows =
        matlab::structs(&meta, "synsets").map_err(|problem| Error::data(path, format!("meta.mat: {problem}")))?;
    let synset = |row: &std::collections::HashMap<String, Value>| {
        Some(Synset {
            id: row.get("ILSVRC2012_ID")?.number()? as u32,
            wnid: row.get("WNID")?.text()?.to_owned(),
            words: row.get("words")?.text()?.to_owned(),
        })
    };
    let synsets: Option<Vec<Synset>> = rows.iter().map(synset).collect();
    let synsets =
        synsets.ok_or_else(|| Error::data(path, "meta.mat: a synset without ILSVRC2012_ID, WNID or words"))?;
    let text = String::from_utf8_lossy(&answers);
    let answers: Result<Vec<u32>, _> = text.split_whitespace().map(str::parse).collect();
    let answers = answers.map_err(|error| Error::data(path, format!("the answers are not numbers: {error}")))?;
    Ok((synsets, answers))
}
