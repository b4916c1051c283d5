//! The official files of ILSVRC 2012: a tar of one tar a class to train on, or those tars in a folder; a tar to validate
//! with, or a folder of its images; and the development kit, which has the answers to that.
//!
//! Classes are in the order of their WordNet numbers (as torchvision's); names are the kit's. An image to validate with
//! is of the class that the kit has for the number in its name, or of that whose folder it is in; both must agree.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folders::is_called_an_image;
use super::kit::{self, KIT, Kit, number_in};
use super::notes::Notes;
use super::places::{Place, Places};
use super::tars::{MAX_UNPACKED, Member, Tar, members};
use super::{Found, Source};
use crate::error::{Error, Result};

const TRAIN: &str = "ILSVRC2012_img_train.tar";
const VAL: &str = "ILSVRC2012_img_val.tar";

/// Folders into which people unpack them.
const TRAIN_FOLDERS: [&str; 3] = ["train", "ILSVRC2012_img_train", ""];
const VAL_FOLDERS: [&str; 2] = ["val", "ILSVRC2012_img_val"];

/// Whether a folder has the official files.
pub fn is_there(folder: &Path) -> bool {
    folder.join(TRAIN).is_file() || !class_tars(folder).is_empty()
}

/// Whether a name is a WordNet number: `n01440764`.
fn is_wnid(name: &str) -> bool {
    name.strip_prefix('n').is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The WordNet number that is the name of the folder that a file is in.
fn folder_wnid(name: &str) -> Option<&str> {
    name.rsplit('/').nth(1).filter(|folder| is_wnid(folder))
}

/// What is in a folder under such names, in order; nothing where there is no such folder.
fn files_in(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let wanted = entries.filter(|entry| is_wanted(&entry.file_name().to_string_lossy()));
    let mut paths: Vec<PathBuf> = wanted.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The tars of classes in a folder; none where each is unpacked beside itself.
fn class_tars(folder: &Path) -> Vec<PathBuf> {
    let is_class_tar = |name: &str| name.strip_suffix(".tar").is_some_and(is_wnid);
    let mut tars = TRAIN_FOLDERS.iter().map(|name| files_in(&folder.join(name), is_class_tar));
    tars.find(|tars| !tars.iter().all(|tar| tar.with_extension("").is_dir())).unwrap_or_default()
}

/// Opens a folder with the official files.
pub fn open(folder: &Path) -> Result<Found> {
    let mut left = MAX_UNPACKED;
    let kit = kit::read(folder, &mut left)?;
    let mut train = Reader { left, ..Reader::default() };
    let mut val = Reader { left, ..Reader::default() };
    let held_out = val.held_out(folder)?;
    let official = folder.join(TRAIN);
    if official.is_file() {
        if held_out.is_empty() {
            return Err(Error::data(folder, format!("has {TRAIN}, but no images of {VAL}; fetch it too")));
        }
        train.outer_tar(&official)?;
    } else {
        train.class_tars(&class_tars(folder))?;
    }
    let wnids: Vec<String> = train.classes.keys().cloned().collect();
    let has_val = !held_out.is_empty();
    let held_out = Answers { kit: kit.as_ref(), wnids: &wnids, folder }.label(held_out, &mut val.notes)?;
    let mut notes = [train.notes.say(), val.notes.say()].concat();
    let classes = match &kit {
        Some(kit) => wnids.iter().map(|wnid| kit.words(wnid)).collect::<Result<_>>()?,
        None => {
            notes.push(format!("no {KIT} is there: classes are called by their WordNet numbers"));
            wnids.clone()
        }
    };
    let labelled = std::mem::take(&mut train.classes).into_values().zip(0..);
    let labelled = labelled.flat_map(|(images, class)| images.into_iter().map(move |image| (class, image)));
    let source = |labelled: &mut dyn Iterator<Item = (u32, Image)>, archives| -> Arc<dyn Source> {
        let mut places = Places { archives, ..Places::default() };
        labelled.for_each(|(class, image)| places.push(image.name, class, image.place));
        Arc::new(places)
    };
    Ok(Found {
        form: "the official files of ILSVRC 2012",
        train: source(&mut { labelled }, train.archives),
        val: has_val.then(|| source(&mut held_out.into_iter(), val.archives)),
        classes,
        notes,
    })
}

/// An image and its place.
struct Image {
    name: String,
    place: Place,
}

/// Reads what is in tars.
#[derive(Default)]
struct Reader {
    archives: Vec<(PathBuf, Option<File>)>,
    /// Images to train on by WordNet number.
    classes: BTreeMap<String, Vec<Image>>,
    notes: Notes,
    /// Bytes that may yet be unpacked.
    left: u64,
}

impl Reader {
    /// An image of the archive that comes next.
    fn image(&self, path: &Path, folder: &str, member: &Member) -> Result<Image> {
        let piece = member.piece(path)?;
        let place = Place::Piece { archive: self.archives.len(), offset: piece.offset, bytes: piece.bytes };
        Ok(Image { name: format!("{}/{folder}{}", path.display(), member.name), place })
    }

    /// The tar of tars. Images that are in it as they are belong to the class of their folder.
    fn outer_tar(&mut self, path: &Path) -> Result<()> {
        let tar = Tar::open(path, &mut self.left)?;
        for member in members(path, &tar.file, [0, tar.bytes], &mut self.notes)? {
            if member.base().starts_with('.') {
                self.notes.add("hidden file[s] not read", format!("{}/{}", path.display(), member.name));
            } else if let Some(wnid) = member.base().strip_suffix(".tar").filter(|wnid| is_wnid(wnid)) {
                let piece = member.piece(path)?;
                self.class_tar(&tar, wnid, &format!("{wnid}/"), [piece.offset, piece.bytes])?;
            } else if let Some(wnid) = folder_wnid(&member.name).filter(|_| is_called_an_image(Path::new(&member.name)))
            {
                let image = self.image(path, "", &member)?;
                self.classes.entry(wnid.to_owned()).or_default().push(image);
            } else {
                self.notes.add(
                    "file[s] that [is no tar|are no tars] of a class not read",
                    format!("{}/{}", path.display(), member.name),
                );
            }
        }
        if self.classes.is_empty() {
            return Err(Error::data(path, "expected tars of classes in it, such as n01440764.tar"));
        }
        tar.keep(&mut self.archives);
        Ok(())
    }

    /// The tars of classes in a folder.
    fn class_tars(&mut self, paths: &[PathBuf]) -> Result<()> {
        if let Some(unpacked) = paths.iter().find(|path| path.with_extension("").is_dir()) {
            let whole = paths.iter().find(|path| !path.with_extension("").is_dir()).unwrap_or(unpacked);
            let problem = format!(
                "is unpacked beside itself, but {} is not: which is meant? Unpack all, each into a folder of its name, or \
                 move the folders elsewhere",
                whole.display()
            );
            return Err(Error::data(unpacked, problem));
        }
        for path in paths {
            let tar = Tar::open(path, &mut self.left)?;
            self.class_tar(&tar, &name_of(&path.with_extension("")), "", [0, tar.bytes])?;
            tar.keep(&mut self.archives);
        }
        Ok(())
    }

    /// The images of a class, which lie in a tar or a part of one.
    fn class_tar(&mut self, tar: &Tar, wnid: &str, folder: &str, section: [u64; 2]) -> Result<()> {
        let mut images = Vec::new();
        let path = if folder.is_empty() { tar.path.clone() } else { tar.path.join(format!("{wnid}.tar")) };
        for member in members(&path, &tar.file, section, &mut self.notes)? {
            let name = format!("{}/{folder}{}", tar.path.display(), member.name);
            if member.base().starts_with('.') {
                self.notes.add("hidden file[s] not read", name);
            } else if !is_called_an_image(Path::new(&member.name)) {
                self.notes.add("file[s] that no image is called like not read", name);
            } else if let Some(other) = member.base().get(..9).filter(|other| is_wnid(other) && *other != wnid) {
                return Err(Error::data(
                    name,
                    format!("an image of {other} by its name, but in the tar of {wnid}; fetch it again"),
                ));
            } else {
                images.push(self.image(&tar.path, folder, &member)?);
            }
        }
        if images.is_empty() {
            return Err(Error::data(&path, "a class without images; fetch its tar again"));
        }
        if self.classes.insert(wnid.to_owned(), images).is_some() {
            return Err(Error::data(&tar.path, format!("class {wnid} is there twice; leave one of the two")));
        }
        Ok(())
    }

    /// The images to validate with: those of the tar, or of the folder into which it was unpacked.
    fn held_out(&mut self, folder: &Path) -> Result<Vec<Image>> {
        let path = folder.join(VAL);
        let mut images = Vec::new();
        if path.is_file() {
            let tar = Tar::open(&path, &mut self.left)?;
            for member in members(&path, &tar.file, [0, tar.bytes], &mut self.notes)? {
                if member.base().starts_with('.') || !is_called_an_image(Path::new(&member.name)) {
                    self.notes.add(
                        "file[s] that [is no image|are no images] not read",
                        format!("{}/{}", path.display(), member.name),
                    );
                } else {
                    images.push(self.image(&path, "", &member)?);
                }
            }
            tar.keep(&mut self.archives);
        } else {
            let top = VAL_FOLDERS.map(|name| files_in(&folder.join(name), |_| true)).into_iter().flatten();
            let all = top.flat_map(|path| if path.is_dir() { files_in(&path, |_| true) } else { vec![path] });
            for path in all {
                if name_of(&path).starts_with('.') || !is_called_an_image(&path) {
                    self.notes.add("file[s] that [is no image|are no images] not read", path.display());
                } else {
                    images.push(Image { name: path.display().to_string(), place: Place::File(path) });
                }
            }
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }
}

/// What tells the classes of the images to validate with.
struct Answers<'a> {
    kit: Option<&'a Kit>,
    /// The classes to train on.
    wnids: &'a [String],
    folder: &'a Path,
}

impl Answers<'_> {
    /// Images with their classes.
    fn label(&self, images: Vec<Image>, notes: &mut Notes) -> Result<Vec<(u32, Image)>> {
        let (mut seen, mut labelled, mut strange) = (HashSet::new(), Vec::new(), None);
        for image in images {
            let number = number_in(&image.name);
            if let Some(number) = number.filter(|number| !seen.insert(*number)) {
                return Err(Error::data(
                    image.name,
                    format!("a second image of number {number}; leave one of the two"),
                ));
            }
            match self.wnid(&image.name, number)? {
                Some(wnid) => {
                    let class = self.wnids.iter().position(|known| known == wnid);
                    let class = class.ok_or_else(|| {
                        Error::data(
                            &image.name,
                            format!("its class {wnid} is not among the {} to train on", self.wnids.len()),
                        )
                    })?;
                    labelled.push((class as u32, image));
                }
                None => {
                    notes.add("image[s] without the number of an answer in the name not read", &image.name);
                    strange = strange.or(Some(image.name));
                }
            }
        }
        if let (true, Some(name)) = (labelled.is_empty(), strange) {
            return Err(Error::data(
                name,
                "expected names such as ILSVRC2012_val_00000001.JPEG, whose number tells the class",
            ));
        }
        if let Some(kit) = self.kit.filter(|_| !seen.is_empty()) {
            kit.note_missing(&seen, notes);
        }
        Ok(labelled)
    }

    /// The class of an image by its number and by its folder, which must agree; `None` where neither tells.
    fn wnid<'b>(&'b self, name: &'b str, number: Option<usize>) -> Result<Option<&'b str>> {
        let by_folder = folder_wnid(name);
        let by_number = match (number, self.kit) {
            (Some(number), Some(kit)) => Some(kit.answer(number).map_err(|problem| Error::data(name, problem))?),
            (Some(_), None) if by_folder.is_none() => {
                return Err(Error::data(
                    self.folder,
                    format!("has no {KIT}, which tells the class of {name}; fetch it too"),
                ));
            }
            _ => None,
        };
        match (by_number, by_folder) {
            (Some(number), Some(folder)) if number != folder => {
                Err(Error::data(name, format!("is in the folder of {folder}, but {KIT} has {number} for its number")))
            }
            _ => Ok(by_number.or(by_folder)),
        }
    }
}
