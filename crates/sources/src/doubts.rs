//! Doubts about sets of image files: what looks like another set than it would be read as is refused, with what was seen
//! and what settles it.

use std::path::Path;

use super::folders::Labelled;
use super::kit::{KIT, number_in};
use super::layouts::Images;
use super::listing::{Kind, Listing, count_images, folders_with_images, is_image, list, name_of};
use super::notes::Notes;
use super::roles::{Role, role};
use super::shard_files::is_part;
use super::{ClassesFrom, SourceOptions};
use crate::error::{Error, Result};
use crate::plurals::counted;
use alexnet_split_images::signature::Signature;

/// Names that classes have, too: of vehicles, of faces, of forms.
const CLASSES_TOO: [&str; 3] = ["train", "mask", "valid"];

const SETTLES: &str = "if these folders are the classes, give --classes-from folders";

/// Fails where the training images have classes that are hardly those that are meant.
pub fn check(train: &Labelled, images: &Images, options: &SourceOptions, notes: &mut Notes) -> Result<()> {
    let (folder, classes) = (&images.folder, &train.classes);
    if let [only] = &classes[..] {
        let seen = counted(train.places.items.len(), "image[s]");
        let or = match options.classes_from {
            Some(ClassesFrom::Names) => "",
            _ => ", or --classes-from names if the names of the images begin with their classes",
        };
        let problem = format!(
            "has one class, {only:?}, with {seen}; training needs two at least. Give the folder in which each class has \
             a folder{or}"
        );
        return Err(Error::data(folder, problem));
    }
    if let Some(labels) = images.labels.as_ref().filter(|_| options.label_column.is_none())
        && classes.iter().all(|class| is_part(class))
    {
        let problem = format!(
            "its labels ({}) are called like parts of a set, not like classes; if they are the classes, name their column \
             with --label-column (the first line has the names of the columns)",
            classes.join(", ")
        );
        return Err(Error::data(labels, problem));
    }
    // Asked for, or read from a file.
    if options.classes_from.is_some() || images.labels.is_some() {
        return Ok(());
    }
    let of_parts: Vec<&String> = classes.iter().filter(|class| role(class).is_some()).collect();
    let is_usual = |class: &&String| CLASSES_TOO.contains(&&*class.to_lowercase());
    let are_all = of_parts.len() == classes.len();
    if !of_parts.is_empty() && !are_all && of_parts.iter().all(is_usual) {
        let names: Vec<String> = of_parts.iter().map(|class| format!("{class:?}")).collect();
        notes.line(format!("read as a class, though parts of sets are called so: {}", names.join(", ")));
    } else if !of_parts.is_empty() {
        let seen = |class: &&&String| {
            let path = folder.join(class);
            format!("{} ({})", path.display(), counted(count_images(&path), "image[s]"))
        };
        let seen: Vec<String> = of_parts.iter().take(5).map(|class| seen(&class)).collect();
        let problem = format!(
            "has folders that are called like parts or masks, not like classes: {}. {}; {SETTLES}",
            seen.join(", "),
            what_to_give(folder, classes)
        );
        return Err(Error::data(folder, problem));
    }
    if train.is_deep {
        let first = folder.join(&classes[0]);
        let inner: Vec<String> = folders_with_images(&first).iter().take(3).map(|path| name_of(path)).collect();
        let problem = format!(
            "its images lie two folders deep: {} has {}. If the inner folders are the classes, give a folder that \
             holds them all, or links to them; {SETTLES}",
            first.display(),
            inner.join(", ")
        );
        return Err(Error::data(folder, problem));
    }
    Ok(())
}

/// The folder that may have been meant.
fn what_to_give(folder: &Path, classes: &[String]) -> String {
    let deep =
        |class: &&String| role(class) == Some(Role::Images) && !folders_with_images(&folder.join(class)).is_empty();
    match classes.iter().find(deep) {
        Some(class) => format!("The classes may be in {}: give that folder", folder.join(class).display()),
        None => "Name the parts with --train DIR and --val DIR, or give the folder that holds the classes".into(),
    }
}

/// Says that a folder has images whose classes nothing tells.
pub fn flat(folder: &Path) -> Error {
    let name = name_of(folder);
    let first =
        list(folder, &mut Notes::default()).ok().and_then(|all| all.files.into_iter().find(|file| is_image(file)));
    let first = first.map(|file| name_of(&file));
    let kit = if first.as_deref().and_then(number_in).is_some() {
        format!("Put {KIT} beside the folder, which has them; or put a file")
    } else {
        "Put a file".into()
    };
    let problem = format!(
        "holds {}, no folders of classes, and nothing tells the classes of {}. {kit} with columns file_name and \
         label beside them ({name}/metadata.csv), give --classes-from names if their names begin with their classes, or \
         name the folders with --train DIR and --val DIR. To hold out a part of the other images, give their folder \
         alone",
        counted(count_images(folder), "image[s]"),
        first.unwrap_or_default(),
    );
    Error::data(folder, problem)
}

/// Says that the folder of a class has no images.
pub fn empty(folder: &Path) -> Error {
    let seen = match list(folder, &mut Notes::default()) {
        Ok(Listing { folders, files }) => match files.first().or(folders.first()) {
            Some(first) => {
                let kind = match Kind::of(first) {
                    Kind::Other(Some(Signature { name, advice })) => format!(" ({name}: {advice})"),
                    _ => String::new(),
                };
                let (files, folders) = (counted(files.len(), "file[s]"), counted(folders.len(), "folder[s]"));
                format!("{files} and {folders}, {} among them{kind}", name_of(first))
            }
            None => "it is empty".into(),
        },
        Err(_) => "it cannot be read".into(),
    };
    let problem = format!(
        "a class without images: {seen}. Put its images there; if it is no class, move it elsewhere, or list the \
         classes with --classes FILE"
    );
    Error::data(folder, problem)
}
