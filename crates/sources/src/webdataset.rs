//! WebDataset's form: tars in which the files of a sample have one name but for the ending (`0001.jpg`, `0001.cls`).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::folders::{ENDINGS, is_called_an_image};
use super::notes::Notes;
use super::places::{Place, Places};
use super::shard_files::{ShardFiles, TWIN};
use super::tars::{MAX_UNPACKED, Member, Tar, members};
use super::{Found, Source, SourceOptions};
use crate::error::{Error, Result};
use crate::names;
use crate::plurals::counted;

/// What describes a set that `prepare` has made, which is one of WebDataset's form.
pub const PREPARED: &str = "dataset.json";

/// Opens a folder of tars, or a single one.
pub fn open(path: &Path, files: ShardFiles, options: &SourceOptions) -> Result<Found> {
    let folder = if path.is_file() { path.parent().unwrap_or(Path::new("")) } else { path };
    let known = match &options.classes {
        Some(file) => Some((file.clone(), names::read(file)?)),
        None => names_beside(folder)?,
    };
    // A prepared set's labels are numbers, also where its classes are called by numbers.
    let names = known.as_ref().filter(|_| !folder.join(PREPARED).is_file());
    let mut reader = Reader::new(names.map(|(_, names)| &**names));
    let train = reader.read(&files.train)?;
    reader.trained = std::mem::take(&mut reader.seals);
    let val = if files.val.is_empty() { None } else { Some(reader.read(&files.val)?) };
    let items = train.items().iter().chain(val.iter().flat_map(|val| val.items()));
    let highest = items.map(|item| item.class).max().unwrap_or(0) as usize;
    let notes = [files.notes, reader.notes.say()].concat();
    Ok(Found { form: "WebDataset tars", train, val, classes: class_names(folder, known, highest)?, notes })
}

/// Stands for the class of a sample whose label says that it has none (-1).
const NONE: u32 = u32::MAX;

/// More than any set has; a name is made for each.
const MAX_CLASSES: usize = 1 << 20;

/// The names that are known, with their file, unless a label is beyond them; numbers where none are.
pub fn class_names(folder: &Path, known: Option<(PathBuf, Vec<String>)>, highest: usize) -> Result<Vec<String>> {
    match known {
        Some((path, names)) if highest >= names.len() => {
            let names = counted(names.len(), "class[es]");
            Err(Error::data(path, format!("names {names}, but there is a label {highest}")))
        }
        Some((_, names)) => Ok(names),
        None if highest >= MAX_CLASSES => {
            Err(Error::data(folder, format!("there is a label {highest}, expected the number of a class")))
        }
        None => Ok((0..=highest).map(|class| format!("class {class}")).collect()),
    }
}

/// The class names that lie in a set's folder, and their file: of a prepared set its description, else `classes.txt` or
/// `classnames.txt`.
pub fn names_beside(folder: &Path) -> Result<Option<(PathBuf, Vec<String>)>> {
    let prepared = folder.join(PREPARED);
    if prepared.is_file() {
        let bytes = std::fs::read(&prepared).map_err(Error::io("read", &prepared))?;
        let classes = |value: serde_json::Value| serde_json::from_value(value.get("classes")?.clone()).ok();
        let names: Option<Vec<String>> = serde_json::from_slice(&bytes).ok().and_then(classes);
        let wrong = || Error::data(&prepared, "not the description of a prepared set: it names no classes");
        return Ok(Some((folder.to_owned(), names.ok_or_else(wrong)?)));
    }
    let paths = ["classes.txt", "classnames.txt"].map(|name| folder.join(name));
    let path = paths.into_iter().find(|path| path.is_file());
    path.map(|path| names::read(&path).map(|names| (path, names))).transpose()
}

/// What a tar has of a sample.
#[derive(Default)]
struct Sample {
    image: Option<Member>,
    /// Images with more in their endings (`.seg.png`): masks and the like, unless one is all that there is.
    others: Vec<Member>,
    class: Option<u32>,
    /// What is wrong with a label that tells no class.
    bad_label: Option<String>,
    /// The endings of all its files.
    endings: Vec<String>,
}

/// Reads samples.
struct Reader<'a> {
    /// The class of each name, where names are known; `None` for the name of several.
    names: Option<HashMap<&'a str, Option<u32>>>,
    notes: Notes,
    /// Tars that have been read, by a hash of what they hold; those of another part.
    seals: HashMap<u64, PathBuf>,
    trained: HashMap<u64, PathBuf>,
    /// Bytes that may yet be unpacked.
    left: u64,
}

impl<'a> Reader<'a> {
    fn new(names: Option<&'a [String]>) -> Self {
        let by_name = |names: &'a [String]| {
            let mut by_name = HashMap::new();
            for (name, class) in names.iter().zip(0..) {
                by_name.entry(&**name).and_modify(|class| *class = None).or_insert(Some(class));
            }
            by_name
        };
        let (seals, trained) = (HashMap::new(), HashMap::new());
        Reader { names: names.map(by_name), notes: Notes::default(), seals, trained, left: MAX_UNPACKED }
    }

    /// All samples of some tars.
    fn read(&mut self, paths: &[PathBuf]) -> Result<Arc<dyn Source>> {
        let mut places = Places::default();
        for path in paths {
            let tar = Tar::open(path, &mut self.left)?;
            let samples = self.samples(&tar)?;
            if !samples.is_empty() && self.is_twin(&tar, &samples)? {
                continue;
            }
            for (key, sample) in samples {
                let name = format!("{}/{key}", path.display());
                if let Some((class, image)) = self.image_of(&name, &key, sample)? {
                    let image = image.piece(path)?;
                    let archive = places.archives.len();
                    places.push(name, class, Place::Piece { archive, offset: image.offset, bytes: image.bytes });
                }
            }
            tar.keep(&mut places.archives);
        }
        if places.items.is_empty() {
            let seen = [vec![String::new()], self.notes.say()].concat().join("; ");
            let problem = format!("no samples in it, which are files such as 0001.jpg and 0001.cls{seen}");
            return Err(Error::data(&paths[0], problem));
        }
        Ok(Arc::new(places))
    }

    /// Whether a tar holds the same as one that has been read of its part, which is noted; noted, too, if one of the other
    /// part does.
    fn is_twin(&mut self, tar: &Tar, samples: &[(String, Sample)]) -> Result<bool> {
        let mut hash = DefaultHasher::new();
        let mut images = samples.iter().filter_map(|(_, sample)| sample.image.as_ref());
        for (key, sample) in samples {
            let piece = sample.image.as_ref().and_then(|image| image.content.as_ref().ok());
            (key, sample.class, piece.map(|piece| (piece.offset, piece.bytes))).hash(&mut hash);
        }
        if let Some(Ok(first)) = images.next().map(|image| image.content.clone()) {
            let mut bytes = vec![0; first.bytes.min(1 << 20) as usize];
            tar.file.read_exact_at(&mut bytes, first.offset).map_err(Error::io("read", &tar.path))?;
            bytes.hash(&mut hash);
        }
        let seal = hash.finish();
        let both = |other: &PathBuf| format!("{} and {}", tar.path.display(), other.display());
        if let Some(other) = self.trained.get(&seal) {
            self.notes.add(TWIN, both(other));
        }
        if let Some(other) = self.seals.get(&seal) {
            self.notes.add("file[s] that hold[s|] the same as [another|others], read once", both(other));
            return Ok(true);
        }
        self.seals.insert(seal, tar.path.clone());
        Ok(false)
    }

    /// The files of a tar by their keys, in the order of the tar.
    fn samples(&mut self, tar: &Tar) -> Result<Vec<(String, Sample)>> {
        let mut samples: Vec<(String, Sample)> = Vec::new();
        let mut by_key: HashMap<(usize, String), usize> = HashMap::new();
        for member in members(&tar.path, &tar.file, [0, tar.bytes], &mut self.notes)? {
            // The key is all before the first dot of the last part.
            let base = member.name.len() - member.base().len();
            let Some(dot) = member.base().find('.').filter(|dot| *dot > 0) else {
                self.notes.add(
                    "file[s] that [is no sample|are no samples] not read",
                    format!("{}/{}", tar.path.display(), member.name),
                );
                continue;
            };
            let (key, ending) = (member.name[..base + dot].to_owned(), member.name[base + dot + 1..].to_lowercase());
            let place = *by_key.entry((member.tar, key.clone())).or_insert_with(|| {
                samples.push((key, Sample::default()));
                samples.len() - 1
            });
            self.add(tar, &mut samples[place].1, member, ending)?;
        }
        Ok(samples)
    }

    /// Takes a file into its sample.
    fn add(&self, tar: &Tar, sample: &mut Sample, member: Member, ending: String) -> Result<()> {
        match &*ending {
            "cls" | "json" => {
                let text = String::from_utf8_lossy(&member.read(&tar.path, &tar.file)?).into_owned();
                match self.class_of(&ending, text.trim_start_matches('\u{feff}')) {
                    Ok(Some(class)) if sample.class.is_some_and(|other| other != class) => {
                        let problem =
                            format!("{}: class {class}, but another file of the sample tells another", member.name);
                        return Err(Error::data(&tar.path, problem));
                    }
                    Ok(class) => sample.class = sample.class.or(class),
                    Err(why) if ending == "cls" => {
                        return Err(Error::data(&tar.path, format!("{}: {why}", member.name)));
                    }
                    Err(why) => sample.bad_label = Some(why),
                }
            }
            _ if ENDINGS.contains(&&*ending) => {
                if let Some(first) = &sample.image {
                    let problem = format!("two images of one sample, {} and {}", first.name, member.name);
                    return Err(Error::data(&tar.path, problem));
                }
                sample.image = Some(member);
            }
            _ if is_called_an_image(Path::new(&member.name)) => sample.others.push(member),
            _ => {}
        }
        sample.endings.push(ending);
        Ok(())
    }

    /// The class that a label file tells, or `None` where it is one of other things.
    ///
    /// Fails with the reason where there is a label that is no class.
    fn class_of(&self, ending: &str, text: &str) -> Result<Option<u32>, String> {
        if ending == "cls" {
            return self.class(text.trim()).map(Some);
        }
        let json: Value = serde_json::from_str(text).map_err(|error| format!("the .json is damaged: {error}"))?;
        let labels = ["label", "cls", "class"].iter().filter_map(|key| json.get(key));
        let mut why = None;
        for label in labels.chain(Some(&json).filter(|json| json.is_number())) {
            let text = label.as_str().map_or_else(|| label.to_string(), |text| text.trim().to_owned());
            match self.class(&text) {
                Ok(class) => return Ok(Some(class)),
                Err(problem) => why = why.or(Some(problem)),
            }
        }
        why.map_or(Ok(None), Err)
    }

    /// The class that a label tells: a number, also written as 1.0, or one of the names.
    fn class(&self, label: &str) -> Result<u32, String> {
        let whole = |value: &f64| value.fract() == 0. && (0. ..f64::from(NONE)).contains(value);
        let number = label.parse::<f64>().ok().filter(whole).map(|value| value as u32);
        let named = self.names.as_ref().and_then(|names| names.get(label).copied().flatten());
        match (number, named) {
            (Some(number), Some(named)) if number != named => Err(format!(
                "label {label} is class {label} by its number and class {named} by its name; give classes names that \
                 are no numbers, or no names"
            )),
            (Some(class), _) | (None, Some(class)) => Ok(class),
            (None, None) if label.parse() == Ok(-1.) => Ok(NONE),
            (None, None) if self.names.as_ref().is_some_and(|names| names.contains_key(label)) => {
                Err(format!("label {label:?} is the name of several classes"))
            }
            (None, None) => Err(match &self.names {
                Some(names) => {
                    format!("label {label:?} is neither a number nor one of the {} class names", names.len())
                }
                None => format!(
                    "label {label:?} is not the number of a class; if it is a name, write all names into classes.txt \
                     beside the tars, one a line, in the order of their numbers"
                ),
            }),
        }
    }

    /// A sample's class and image; `None` where it is something else.
    fn image_of(&mut self, name: &str, key: &str, mut sample: Sample) -> Result<Option<(u32, Member)>> {
        if let Some(dotted) = sample.dotted_key() {
            let base = key.rsplit('/').next().unwrap_or_default();
            let problem = format!(
                "{} files in one sample: its key ends at the first dot of a file's name, so {base}.{dotted} has the key \
                 {base}; write the tars with another sign than a dot in the keys ({base}_{dotted})",
                sample.endings.len()
            );
            return Err(Error::data(name, problem));
        }
        let only = if sample.others.len() == 1 && sample.image.is_none() { sample.others.pop() } else { None };
        let seen = || sample.endings.iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(", ");
        match (sample.image.or(only), sample.class) {
            (Some(image), Some(NONE)) => {
                self.notes.add("sample[s] without a label (-1) not read", image.name);
                Ok(None)
            }
            (Some(image), Some(class)) => {
                if let Some(other) = sample.others.first() {
                    self.notes.add_many(
                        "image[s] beside those of the samples not read",
                        sample.others.len(),
                        &other.name,
                    );
                }
                Ok(Some((class, image)))
            }
            (Some(_), None) => {
                let why = sample.bad_label.map(|why| format!(" ({why})")).unwrap_or_default();
                let problem = format!(
                    "an image without a class{why}: expected a .cls, or a label in .json, found {}; if the tar holds \
                     folders of classes, unpack it with `tar -xf`, and give its folder",
                    seen()
                );
                Err(Error::data(name, problem))
            }
            (None, Some(_)) if !sample.others.is_empty() => {
                let names: Vec<&str> = sample.others.iter().map(|member| &*member.name).collect();
                Err(Error::data(name, format!("which of {} is the image? Call it {key}.jpg", names.join(", "))))
            }
            (None, Some(_)) => Err(Error::data(name, format!("a sample without an image, found {}", seen()))),
            (None, None) => {
                self.notes.add("file[s] that [is no sample|are no samples] not read", name);
                Ok(None)
            }
        }
    }
}

impl Sample {
    /// The ending of an image that has a label of its own with the same words in its ending: what comes before the
    /// first dot is then not the whole key.
    fn dotted_key(&self) -> Option<&str> {
        self.endings.iter().map(String::as_str).find(|ending| {
            let Some((words, kind)) = ending.rsplit_once('.') else { return false };
            let label = |kind: &str| self.endings.iter().any(|other| *other == format!("{words}.{kind}"));
            ENDINGS.contains(&kind) && (label("cls") || label("json"))
        })
    }
}
