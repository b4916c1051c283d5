//! Images whose folders do not tell their classes: a file of labels does, the development kit of ILSVRC 2012, or their
//! names.

use std::collections::HashSet;
use std::path::Path;

use super::classes::{Classes, is_wordnet_number};
use super::doubts;
use super::folders::{Labelled, collect};
use super::kit::{Kit, number_in};
use super::labels::Labels;
use super::layouts::Images;
use super::listing::name_of;
use super::notes::Notes;
use super::parts::Told;
use super::places::Places;
use crate::error::{Error, Result};
use crate::plurals::counted;

/// All images of a part.
fn all(images: &Images, notes: &mut Notes) -> Result<Places> {
    let mut places = Places::default();
    collect(&images.folder, 0, &images.except, &mut HashSet::new(), &mut places, notes)?;
    Ok(places)
}

/// All images below a folder whose classes a file tells.
pub fn by_labels(images: &Images, labels: Labels, notes: &mut Notes) -> Result<Labelled> {
    let (all, folder) = (all(images, notes)?, &images.folder);
    let (mut places, count) = (Places::default(), all.items.len());
    let mut taken: Vec<Option<String>> = vec![None; labels.images.len()];
    let mut parts = Vec::new();
    for (item, place) in all.items.into_iter().zip(all.places) {
        let Some(number) = labels.find(Path::new(&item.name), folder) else {
            notes.add_about("image[s] that {} has no label for not read", labels.path.display(), 1, &item.name);
            continue;
        };
        if let Some(other) = taken[number].replace(item.name.clone()) {
            let problem = format!("has one label for {other} and {}; give each a label, by its whole name", item.name);
            return Err(Error::data(labels.path, problem));
        }
        places.push(item.name, labels.images[number], place);
        parts.push(labels.part(number));
    }
    if places.items.is_empty() {
        let problem = format!("has labels for none of {} in {}", counted(count, "image[s]"), folder.display());
        return Err(Error::data(labels.path, problem));
    }
    let missing = taken.iter().filter(|image| image.is_none()).count();
    if missing > 0 {
        notes.line(format!(
            "{}, of {}",
            counted(missing, "label[s] of [an image that is|images that are] not there"),
            labels.path.display()
        ));
    }
    let told = labels.parts.map(|(column, _)| Told { file: labels.path, column, parts });
    Ok(Labelled { classes: labels.classes, places, labelled: taken, told, ..Labelled::default() })
}

/// All images below a folder, whose names tell their classes.
pub fn by_names(images: &Images, known: Option<&Classes>, notes: &mut Notes) -> Result<Labelled> {
    let mut places = all(images, notes)?;
    let names: Vec<String> = places.items.iter().map(|item| class_in(&name_of(Path::new(&item.name)))).collect();
    let mut found = names.clone();
    found.sort_unstable();
    found.dedup();
    let found = Classes::found(found);
    let known = known.unwrap_or(&found);
    for (item, name) in places.items.iter_mut().zip(&names) {
        let class = known.index(name).filter(|_| !name.is_empty()).ok_or_else(|| {
            let problem = match &**name {
                "" => "its name begins with no class, as cat.12.jpg does".to_owned(),
                _ => format!("class {name:?} is not among {}", known.origin()),
            };
            Error::data(&item.name, problem)
        });
        item.class = class?;
    }
    Ok(Labelled { classes: known.keys.clone(), places, ..Labelled::default() })
}

/// The class that an image's name begins with: all before the first dot or digit, or a WordNet number.
fn class_in(name: &str) -> String {
    match name.get(..9) {
        Some(number) if is_wordnet_number(number) => number.to_owned(),
        _ => {
            let end = name.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(name.len());
            name[..end].trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned()
        }
    }
}

/// The images to validate with of ILSVRC 2012, whose classes the kit has for the numbers in their names.
pub fn by_kit(images: &Images, kit: &Kit, known: &Classes, notes: &mut Notes) -> Result<Labelled> {
    let (mut places, mut seen) = (Places::default(), HashSet::new());
    let all = all(images, notes)?;
    for (item, place) in all.items.into_iter().zip(all.places) {
        let wrong = |problem: String| Error::data(&item.name, problem);
        let Some(number) = number_in(&item.name) else {
            notes.add("image[s] without the number of an answer in the name not read", &item.name);
            continue;
        };
        if !seen.insert(number) {
            return Err(wrong(format!("a second image of number {number}; leave one of the two")));
        }
        let wnid = kit.answer(number).map_err(wrong)?;
        let class =
            known.index(wnid).ok_or_else(|| wrong(format!("its class {wnid} is not among {}", known.origin())))?;
        places.push(item.name, class, place);
    }
    if places.items.is_empty() {
        return Err(doubts::flat(&images.folder));
    }
    kit.note_missing(&seen, notes);
    notes.line(format!("{} tells the classes of the images of {}", kit.path.display(), images.folder.display()));
    let names = known.keys.iter().map(|wnid| kit.words(wnid).ok()).collect();
    Ok(Labelled { classes: known.keys.clone(), places, names, ..Labelled::default() })
}
