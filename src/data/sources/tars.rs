//! Tar files: what is in them and where, without unpacking; and WebDataset's form, in which the files of a sample have
//! one name but for the ending (`0001.jpg`, `0001.cls`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folders::{ENDINGS, is_called_an_image};
use super::places::{Place, Places};
use super::{Found, Source};
use crate::data::shards::{self, Description};
use crate::error::{Error, Result};

/// A file in a tar.
pub struct Member {
    pub name: String,
    /// From the beginning of the outermost file.
    pub offset: u64,
    pub bytes: u64,
}

/// A piece of a file, read as if it were one.
struct Section<'a> {
    file: &'a File,
    start: u64,
    bytes: u64,
    at: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (buffer.len() as u64).min(self.bytes.saturating_sub(self.at)) as usize;
        let read = self.file.read_at(&mut buffer[..count], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// The files in a tar that is `bytes` long and begins at `start` of `file`; `path` is for messages.
///
/// Fails where it is damaged, or ends before its files do.
pub fn members(path: &Path, file: &File, [start, bytes]: [u64; 2]) -> Result<Vec<Member>> {
    let damaged = |error: io::Error| Error::data(path, format!("damaged or truncated tar: {error}"));
    let mut archive = tar::Archive::new(Section { file, start, bytes, at: 0 });
    let (mut members, mut end) = (Vec::new(), 0);
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > bytes) {
            return Err(Error::data(path, format!("truncated tar: {name} goes on beyond its end; fetch it again")));
        }
        end = (offset + size).next_multiple_of(512);
        members.push(Member { name, offset: start + offset, bytes: size });
    }
    // A block of zeros tells that there is no more.
    if !members.is_empty() && end + 512 > bytes {
        let problem = format!("truncated tar: it has no end after {} files; fetch it again", members.len());
        return Err(Error::data(path, problem));
    }
    Ok(members)
}

/// Opens a tar, and tells how long it is.
pub fn open_tar(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let bytes = file.metadata().map_err(Error::io("read", path))?.len();
    Ok((file, bytes))
}

/// The shards of a set.
pub struct ShardFiles {
    pub train: Vec<PathBuf>,
    /// None where the set is in one piece.
    pub val: Vec<PathBuf>,
    /// What was left alone, for people.
    pub notes: Vec<String>,
}

/// The part that a file's name tells, by its words: 0 to train on, 1 to hold out, 2 to hold out where there is no 1.
fn part_of(name: &str) -> usize {
    let lower = name.to_lowercase();
    let has = |wanted: &[&str]| lower.split(|c: char| !c.is_ascii_alphabetic()).any(|word| wanted.contains(&word));
    if has(&["train", "training"]) {
        0
    } else if has(&["val", "valid", "validation", "dev"]) {
        1
    } else {
        2 * usize::from(has(&["test", "testing"]))
    }
}

/// The shards of a folder (or of `data` in it) whose names end so, or `None` where there are none to train on.
pub fn find(folder: &Path, ending: &str) -> Result<Option<ShardFiles>> {
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    for folder in [folder.to_owned(), folder.join("data")] {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.ends_with(ending) || name.starts_with('.') {
                continue;
            }
            parts[part_of(&name)].push(path);
        }
    }
    parts.iter_mut().for_each(|paths| paths.sort());
    let [train, mut val, test] = parts;
    let mut notes = Vec::new();
    if val.is_empty() {
        val = test;
    } else if let Some(first) = test.first() {
        // Hugging Face's ImageNet has one without labels.
        notes.push(format!("{} shards of a test set not read, {} among them", test.len(), first.display()));
    }
    Ok((!train.is_empty()).then_some(ShardFiles { train, val, notes }))
}

/// Opens a folder of WebDataset's tars.
pub fn open(folder: &Path, files: ShardFiles) -> Result<Found> {
    let mut notes = files.notes;
    let train = read_samples(&files.train, &mut notes)?;
    let val = if files.val.is_empty() { None } else { Some(read_samples(&files.val, &mut notes)?) };
    let items = train.items().iter().chain(val.iter().flat_map(|val| val.items()));
    let highest = items.map(|item| item.class).max().unwrap_or(0) as usize;
    let classes = class_names(folder, highest)?;
    Ok(Found { form: "WebDataset tars", train, val, classes, notes })
}

/// Names from a prepared set's description, from `classes.txt` or `classnames.txt`, a name a line; numbers where there
/// is none.
pub fn class_names(folder: &Path, highest: usize) -> Result<Vec<String>> {
    if shards::is_prepared(folder) {
        return Ok(Description::load(folder)?.classes);
    }
    for name in ["classes.txt", "classnames.txt"] {
        let path = folder.join(name);
        if !path.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let names: Vec<String> =
            text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
        if highest >= names.len() {
            let problem = format!("names {} classes, but there is a label {highest}", names.len());
            return Err(Error::data(path, problem));
        }
        return Ok(names);
    }
    Ok((0..=highest).map(|class| format!("class {class}")).collect())
}

/// What a tar has of a sample.
#[derive(Default)]
struct Sample {
    image: Option<Member>,
    /// Images with more in their endings (`.seg.png`): masks and the like, unless one is all that there is.
    others: Vec<Member>,
    class: Option<u32>,
}

fn read_samples(paths: &[PathBuf], notes: &mut Vec<String>) -> Result<Arc<dyn Source>> {
    let mut places = Places::default();
    let mut left: Vec<String> = Vec::new();
    for (archive, path) in paths.iter().enumerate() {
        let (file, bytes) = open_tar(path)?;
        let mut samples: Vec<(String, Sample)> = Vec::new();
        let mut by_key: HashMap<String, usize> = HashMap::new();
        for member in members(path, &file, [0, bytes])? {
            // The key is all before the first dot of the last part.
            let base = member.name.rfind('/').map_or(0, |slash| slash + 1);
            let Some(dot) = member.name[base..].find('.').filter(|dot| *dot > 0) else {
                left.push(format!("{}/{}", path.display(), member.name));
                continue;
            };
            let (key, ending) = (member.name[..base + dot].to_owned(), member.name[base + dot + 1..].to_lowercase());
            let place = *by_key.entry(key.clone()).or_insert_with(|| {
                samples.push((key, Sample::default()));
                samples.len() - 1
            });
            let sample = &mut samples[place].1;
            match &*ending {
                "cls" | "json" => {
                    let mut text = vec![0; member.bytes.min(1 << 20) as usize];
                    file.read_exact_at(&mut text, member.offset).map_err(Error::io("read", path))?;
                    let class = class_of(&ending, &String::from_utf8_lossy(&text));
                    if ending == "cls" && class.is_none() {
                        return Err(Error::data(path, format!("{}: not the number of a class", member.name)));
                    }
                    sample.class = sample.class.or(class);
                }
                _ if ending == "ppm" || ENDINGS.contains(&&*ending) => {
                    if let Some(first) = &sample.image {
                        let problem = format!("two images of one sample, {} and {}", first.name, member.name);
                        return Err(Error::data(path, problem));
                    }
                    sample.image = Some(member);
                }
                _ if is_called_an_image(Path::new(&member.name)) => sample.others.push(member),
                _ => {}
            }
        }
        for (key, mut sample) in samples {
            let name = format!("{}/{key}", path.display());
            let only = if sample.others.len() == 1 { sample.others.pop() } else { None };
            match (sample.image.or(only), sample.class) {
                (Some(image), Some(class)) => {
                    let place = Place::Piece { archive, offset: image.offset, bytes: image.bytes };
                    places.push(name, class, place);
                }
                (Some(_), None) => {
                    return Err(Error::data(name, "an image without a class (.cls, or a label in .json)"));
                }
                (None, Some(_)) if !sample.others.is_empty() => {
                    let names: Vec<&str> = sample.others.iter().map(|member| &*member.name).collect();
                    let problem = format!("which of {} is the image? Call it {key}.jpg", names.join(", "));
                    return Err(Error::data(name, problem));
                }
                (None, Some(_)) => return Err(Error::data(name, "a sample without an image")),
                (None, None) => left.push(name),
            }
        }
        places.archives.push((path.clone(), Some(file)));
    }
    if let Some(first) = left.first() {
        notes.push(format!("{} files that are no samples not read, {first} among them", left.len()));
    }
    Ok(Arc::new(places))
}

fn class_of(ending: &str, text: &str) -> Option<u32> {
    if ending == "cls" {
        return text.trim().parse().ok();
    }
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    ["label", "cls", "class"].iter().find_map(|key| json[key].as_u64()).and_then(|class| class.try_into().ok())
}
