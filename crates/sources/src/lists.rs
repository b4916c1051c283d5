//! Lists of images that put a set in one piece into parts, as Food-101 has them (`meta/train.txt` and `meta/test.txt`, with
//! `CLASS/NAME` in each line) and CUB (`images.txt` and `train_test_split.txt`, which number the images).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::folders::is_called_an_image;
use super::listing::name_of;
use super::notes::Notes;
use super::places::Places;
use super::roles::{Role, role};
use crate::error::{Error, Result};
use crate::names;
use crate::plurals::counted;

/// Files of the two parts; where there are several of one, the first counts.
const TRAIN: [&str; 1] = ["train.txt"];
const HELD_OUT: [&str; 4] = ["val.txt", "valid.txt", "validation.txt", "test.txt"];

/// CUB's files: the number of each image and its path, and which numbers are to train on (1) or to test with (0).
const NUMBERED: [&str; 2] = ["images.txt", "train_test_split.txt"];

/// Folders beside that of the images in which lists lie.
const BESIDE: [&str; 3] = ["", "meta", "splits"];

/// Which images are to train on and which to hold out.
pub struct Lists {
    /// Where they are written.
    pub files: Vec<PathBuf>,
    /// By path below the folder of the images, perhaps without the ending: the line, and whether it is to train on.
    images: HashMap<String, (usize, bool)>,
    lines: usize,
}

impl Lists {
    /// The lists for the images of a folder of classes: in it, or where it is called like images beside it. `None` where
    /// there are none for both parts.
    ///
    /// Fails where one cannot be read, or an image is in both.
    pub fn find(folder: &Path, notes: &mut Notes) -> Result<Option<Lists>> {
        let beside = folder.parent().filter(|_| role(&name_of(folder)) == Some(Role::Images));
        let beside = beside.into_iter().flat_map(|parent| BESIDE.map(|inner| parent.join(inner)));
        for place in std::iter::once(folder.to_owned()).chain(beside) {
            let first = |names: &[&str]| names.iter().map(|name| place.join(name)).find(|path| path.is_file());
            let [train, held_out] = [first(&TRAIN), first(&HELD_OUT)];
            let numbered = NUMBERED.map(|name| place.join(name));
            let lists = match (train, held_out) {
                _ if numbered.iter().all(|path| path.is_file()) => Lists::numbered(folder, numbered)?,
                (Some(train), Some(held_out)) => Lists::of(folder, [train, held_out])?,
                (Some(only), None) | (None, Some(only)) => {
                    notes.line(format!("{} not read: beside it is no list of the other part", only.display()));
                    continue;
                }
                (None, None) => continue,
            };
            return Ok(Some(lists));
        }
        Ok(None)
    }

    fn new(files: &[PathBuf]) -> Lists {
        Lists { files: files.to_vec(), images: HashMap::new(), lines: 0 }
    }

    /// A list for each part, with an image a line.
    fn of(folder: &Path, files: [PathBuf; 2]) -> Result<Lists> {
        let mut lists = Lists::new(&files);
        for (path, is_train) in files.iter().zip([true, false]) {
            for line in names::text(path)?.lines().map(str::trim).filter(|line| !line.is_empty()) {
                lists.add(folder, line, is_train)?;
            }
        }
        Ok(lists)
    }

    /// A list of all images, and one of their parts.
    fn numbered(folder: &Path, files: [PathBuf; 2]) -> Result<Lists> {
        let mut lists = Lists::new(&files);
        let [images, parts] = [names::text(&files[0])?, names::text(&files[1])?];
        let parts: HashMap<&str, &str> = parts.lines().filter_map(|line| line.trim().split_once(' ')).collect();
        for line in images.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (number, image) = line.split_once(' ').unwrap_or((line, ""));
            let is_train = match parts.get(number).map(|part| part.trim()) {
                Some("1") => true,
                Some("0") => false,
                _ => {
                    let problem = format!("expected 1 (to train on) or 0 for image {number}, {image:?}");
                    return Err(Error::data(&files[1], problem));
                }
            };
            lists.add(folder, image, is_train)?;
        }
        Ok(lists)
    }

    /// Takes in a line: a path below the folder or below the one above it, with or without ending, and perhaps a label.
    fn add(&mut self, folder: &Path, line: &str, is_train: bool) -> Result<()> {
        let path = line.replace('\\', "/");
        let path = path.trim_start_matches("./").trim_start_matches('/');
        let path = path.strip_prefix(&format!("{}/", name_of(folder))).unwrap_or(path);
        let unlabelled = path
            .rsplit_once(char::is_whitespace)
            .filter(|(image, label)| is_called_an_image(Path::new(image.trim_end())) && label.parse::<u32>().is_ok());
        let path = unlabelled.map_or(path, |(image, _)| image.trim_end());
        let entry = (self.lines, is_train);
        match self.images.insert(path.to_owned(), entry) {
            Some((_, other)) if other != is_train => {
                let problem = format!("{path:?} is to train on and to hold out; it must be in one list");
                Err(Error::data(&self.files[1], problem))
            }
            Some(_) => Ok(()),
            None => {
                self.lines += 1;
                Ok(())
            }
        }
    }

    /// The images to train on and those to hold out; `None` where the lists have none of these images.
    ///
    /// Fails where a class has none to train on.
    pub fn apply(
        &self,
        folder: &Path,
        all: &Places,
        classes: &[String],
        notes: &mut Notes,
    ) -> Result<Option<[Places; 2]>> {
        let mut parts = [Places::default(), Places::default()];
        let (mut seen, mut without) = (HashSet::new(), Vec::new());
        for (item, place) in all.items.iter().zip(&all.places) {
            let path = Path::new(&item.name).strip_prefix(folder).unwrap_or(Path::new(&item.name));
            let names = [path.to_owned(), path.with_extension("")];
            let found = names.iter().find_map(|name| self.images.get(&*name.to_string_lossy()));
            let Some(&(line, is_train)) = found else {
                without.push(&item.name);
                continue;
            };
            seen.insert(line);
            parts[usize::from(!is_train)].push(item.name.clone(), item.class, place.clone());
        }
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let files = files.join(" and ");
        if seen.is_empty() {
            notes.line(format!("{files} not read: no image is called as they say"));
            return Ok(None);
        }
        let trained: HashSet<u32> = parts[0].items.iter().map(|item| item.class).collect();
        if let Some(class) = (0..classes.len()).find(|class| !trained.contains(&(*class as u32))) {
            let problem = format!(
                "has no image of class {:?} to train on; list the classes with --classes FILE, without those that are \
                 not to be read",
                classes[class]
            );
            return Err(Error::data(&self.files[0], problem));
        }
        notes.line(format!("{files} tell which images are held out"));
        if let Some(first) = without.first() {
            notes.add_about("image[s] that {} do not list not read", &files, without.len(), first);
        }
        if seen.len() < self.lines {
            let what = counted(self.lines - seen.len(), "line[s] about [an image that is|images that are] not there");
            notes.line(format!("{files} have {what}"));
        }
        Ok(Some(parts))
    }
}
