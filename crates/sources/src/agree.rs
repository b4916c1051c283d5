//! Files of labels that are not read must not tell other classes than those that are read.

use std::path::Path;

use super::beside;
use super::classes::Classes;
use super::kit::{self, KIT, number_in};
use super::labels::Labels;
use super::layouts::Images;
use super::notes::Notes;
use super::parts::Told;
use super::places::Places;
use crate::error::{Error, Result};

/// Compares the classes of images with what other files say about them. Files without labels of these classes are noted.
/// Gives what the first file with a column for it tells about the parts of the images, if that is wanted.
///
/// Fails at an image with two classes.
pub fn check(
    images: &Images,
    places: &Places,
    known: &Classes,
    wants_parts: bool,
    notes: &mut Notes,
) -> Result<Option<Told>> {
    let mut told = None;
    for path in &images.others {
        if beside::lists(path, &known.keys) {
            beside::note_one(path, &known.keys, notes);
            continue;
        }
        // As labels of these classes, or else of any: a class that is not trained on is another one, too.
        let labels = Labels::read(path, None, Some(known)).or_else(|_| Labels::read(path, None, None));
        let compared = labels.as_ref().is_ok_and(|labels| labels.classes.iter().any(|class| known.has(class)));
        if let Ok(labels) = labels.as_ref().map_err(Error::problem)
            && compared
        {
            compare(images, places, known, labels)?;
            notes.uses(path.display());
            if wants_parts && told.is_none() {
                told = parts(images, places, labels);
                if told.is_some() {
                    continue;
                }
            }
        }
        notes.line(match &images.labels {
            Some(read) => format!("{} not read: {} tells the classes", path.display(), read.display()),
            None => format!("{} not read: the folders tell the classes (--label-column NAME reads it)", path.display()),
        });
    }
    if images.labels.is_none() {
        check_kit(&images.folder, places, known)?;
    }
    Ok(told)
}

/// The parts of images by a column of a file, if it has one, and lists any of them.
fn parts(images: &Images, places: &Places, labels: &Labels) -> Option<Told> {
    let (column, _) = labels.parts.as_ref()?;
    let part = |name: &str| labels.part(labels.find(Path::new(name), &images.folder)?);
    let parts: Vec<Option<usize>> = places.items.iter().map(|item| part(&item.name)).collect();
    let is_about_them = parts.iter().any(Option::is_some);
    is_about_them.then(|| Told { file: labels.path.clone(), column: column.clone(), parts })
}

/// Fails at an image that the file gives another class.
fn compare(images: &Images, places: &Places, known: &Classes, labels: &Labels) -> Result<()> {
    for item in &places.items {
        let Some(number) = labels.find(Path::new(&item.name), &images.folder) else { continue };
        let (ours, theirs) = (&known.keys[item.class as usize], &labels.classes[labels.images[number] as usize]);
        if ours != theirs {
            let read = match &images.labels {
                Some(read) => format!("{} says {ours:?}", read.display()),
                None => format!("it lies in the folder of {ours:?}"),
            };
            let problem = format!(
                "says that {} is of class {theirs:?}, but {read}; move the one that is wrong elsewhere",
                item.name
            );
            return Err(Error::data(&labels.path, problem));
        }
    }
    Ok(())
}

/// Fails at an image of ILSVRC's to validate with, whose folder is not that of the class that the kit beside it has.
fn check_kit(folder: &Path, places: &Places, known: &Classes) -> Result<()> {
    let numbered = || places.items.iter().filter_map(|item| Some((item, number_in(&item.name)?)));
    if numbered().next().is_none() {
        return Ok(());
    }
    let Some(kit) = kit::beside(folder)? else { return Ok(()) };
    for (item, number) in numbered() {
        let answer = kit.answer(number).map_err(|problem| Error::data(&item.name, problem))?;
        let ours = &known.keys[item.class as usize];
        if ours != answer && kit.has(ours) {
            let problem = format!("is in the folder of {ours}, but {KIT} has {answer} for its number");
            return Err(Error::data(&item.name, problem));
        }
    }
    Ok(())
}
