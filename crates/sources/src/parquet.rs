//! Parquet shards as Hugging Face keeps them: a column of images, structs of `bytes` and `path` or the bytes alone, and a
//! column of labels: integers, whose names are in the file's own metadata, or names.

use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rayon::prelude::*;

use super::class_lists::ClassLists;
use super::columns::{self, Chosen, Column, Kind};
use super::encrypted;
use super::notes::Notes;
use super::parts;
use super::places::OPEN_FILES;
use super::shard_files::{ShardFiles, TWIN, part_of};
use super::table::{columns_of, damaged, open_file, read, read_bytes, read_labels, read_texts};
use super::webdataset::{class_names, names_beside};
use super::{Found, Item, Picture, Source, SourceOptions};
use crate::error::{Error, Result};
use crate::plurals::counted;

/// Where an image is.
struct RowPlace {
    file: usize,
    group: usize,
    row: usize,
}

/// One file, and the number of its column of image bytes.
struct Shard {
    path: PathBuf,
    /// Open in the first files of a set; the others are opened to be read.
    reader: Option<Mutex<SerializedFileReader<File>>>,
    images: usize,
    /// The bytes of its images as they are stored, and a hash of its labels: equal in files that hold the same.
    seal: (i64, u64),
}

#[derive(Default)]
struct Shards {
    shards: Vec<Arc<Shard>>,
    items: Vec<Item>,
    places: Vec<RowPlace>,
    /// Rows without a label.
    unlabelled: usize,
}

/// What all shards of a set have in common.
struct Set<'a> {
    options: &'a SourceOptions,
    /// The columns of the first shard, and its path.
    columns: Option<(Chosen, PathBuf)>,
    classes: ClassLists,
    /// Files so far.
    files: usize,
    /// The shards to train on, while those to hold out are read.
    trained: Option<Shards>,
    /// Whether a column may tell the parts of rows; not where files are those of a part.
    has_parts: bool,
    lines: Vec<String>,
    notes: Notes,
}

/// Opens a set of shards.
pub fn open(folder: &Path, files: ShardFiles, options: &SourceOptions) -> Result<Found> {
    let (classes, notes) = (ClassLists::default(), Notes::default());
    let mut set = Set {
        options,
        columns: None,
        classes,
        files: 0,
        trained: None,
        has_parts: options.train.is_none() && options.val.is_none(),
        lines: files.notes,
        notes,
    };
    let [mut train, mut by_column, test] = set.read(&files.train)?;
    if train.items.is_empty() && train.unlabelled > 0 {
        let count = counted(train.unlabelled, "row[s] [has|have]");
        let problem = format!("its {count} no label (-1 or null); it cannot be trained on");
        return Err(Error::data(files.train.first().map_or(folder, PathBuf::as_path), problem));
    }
    if by_column.items.is_empty() && files.val.is_empty() {
        by_column = test;
    } else if let Some(first) = test.items.first() {
        set.notes.add_many("row[s] of a test set not read", test.items.len(), &first.name);
    }
    set.close(&train);
    if let Some(places) = set.classes.close() {
        let items = train.items.iter_mut().chain(&mut by_column.items);
        items.for_each(|item| item.class = places[item.class as usize]);
    }
    let val = match (files.val.is_empty(), by_column.items.is_empty()) {
        (false, true) => Some(set.read(&files.val)?.into_iter().next().unwrap_or_default()),
        (false, false) => {
            let problem = format!(
                "is to hold out, but so are rows of {} by their column; move one elsewhere",
                files.train[0].display()
            );
            return Err(Error::data(&files.val[0], problem));
        }
        (true, _) => (by_column.items.len() + by_column.unlabelled > 0).then_some(by_column),
    };
    for part in [Some(&train), val.as_ref()].into_iter().flatten().filter(|part| part.unlabelled > 0) {
        let first = part.shards.first().map_or(folder, |shard| &shard.path).display();
        set.notes.add_many(
            "row[s] without a label (-1 or null) not read",
            part.unlabelled,
            format!("those of {first}"),
        );
    }
    // A test set without labels: what is held out comes from the training set.
    let val = val.filter(|val| !val.items.is_empty() || val.unlabelled == 0);
    let items = train.items.iter().chain(val.iter().flat_map(|val| &val.items));
    let highest = items.map(|item| item.class).max().unwrap_or(0);
    let Set { classes, mut lines, mut notes, .. } = set;
    let classes = match classes.finish(highest, &mut notes)? {
        Some(names) => names,
        None => class_names(folder, names_beside(folder)?, highest as usize)?,
    };
    lines.extend(notes.say());
    let val = val.map(|val| Arc::new(val) as Arc<dyn Source>);
    Ok(Found { form: "Hugging Face parquet shards", train: Arc::new(train), val, classes, notes: lines })
}

impl Set<'_> {
    /// Ends what is trained on.
    fn close(&mut self, train: &Shards) {
        self.has_parts = false;
        self.trained = Some(Shards { shards: train.shards.clone(), ..Shards::default() });
    }

    /// The rows of some files: those without a word of another part, those to hold out, and those to test with.
    fn read(&mut self, paths: &[PathBuf]) -> Result<[Shards; 3]> {
        let mut parts = [(); 3].map(|()| Shards::default());
        for path in paths {
            read(path, || self.add(&mut parts, path))?;
        }
        Ok(parts)
    }

    /// The part of each row of a file, where a column tells it.
    fn parts(
        &mut self,
        path: &Path,
        reader: &SerializedFileReader<File>,
        columns: &[Column],
    ) -> Result<Option<Vec<usize>>> {
        let is_part = |column: &Column| column.kind == Kind::Text && parts::is_called_so(&column.path);
        let Some(column) = columns.iter().position(is_part).filter(|_| self.has_parts) else { return Ok(None) };
        encrypted::check(path, columns, &[column])?;
        let values = read_texts(path, reader, column)?;
        let parts: Option<Vec<usize>> = values.iter().map(|value| part_of(value.as_deref()?)).collect();
        let column = &columns[column].path;
        let Some(parts) = parts else {
            let what = "file[s] whose column {} does not tell the part of the set, and is not read";
            self.notes.add_about(what, column, 1, path.display());
            return Ok(None);
        };
        // The name of a file tells as much about all of its rows.
        let names = [Some(path), path.parent()].map(|path| path?.file_name()?.to_str().and_then(part_of));
        if names != [None, None] && parts.iter().all(|part| *part == parts[0]) {
            return Ok(None);
        }
        self.notes.add_about("file[s] whose column {} tells the part of each row", column, 1, path.display());
        Ok(Some(parts))
    }

    /// Takes in a file.
    fn add(&mut self, parts: &mut [Shards; 3], path: &Path) -> Result<()> {
        let reader = open_file(path)?;
        let metadata = reader.metadata().file_metadata();
        let pairs = metadata.key_value_metadata();
        let text = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_deref());
        let features = columns::features(text.unwrap_or_default());
        let columns = columns_of(metadata);
        if self.columns.is_none() {
            let chosen = columns::choose(&columns, &features, self.options);
            let (chosen, others) = chosen.map_err(|problem| Error::data(path, problem))?;
            if !others.is_empty() {
                let read = format!("columns {} and {} are read", chosen.image, chosen.label);
                self.lines.push(format!("{read}, not {}", others.join(", ")));
            }
            self.columns = Some((chosen, path.to_owned()));
        }
        let Some((chosen, first)) = &self.columns else { return Ok(()) };
        let find = |name: &str| {
            let problem = || format!("has no column {name}, which {} has", first.display());
            columns.iter().position(|column| column.path == name).ok_or_else(|| Error::data(path, problem()))
        };
        let (images, labels) = (find(&chosen.image)?, find(&chosen.label)?);
        encrypted::check(path, &columns, &[images, labels])?;
        let names = columns::class_names(&features, &chosen.label);
        let labels = read_labels(path, &reader, labels, names)?;
        let numbers = self.classes.number(path, labels)?;
        let told = self.parts(path, &reader, &columns)?;
        let groups = reader.metadata().row_groups();
        let counts: Vec<usize> = groups.iter().map(|group| group.num_rows().max(0) as usize).collect();
        let bytes = groups.iter().map(|group| group.column(images).compressed_size()).sum();
        let seal = (bytes, BuildHasherDefault::<DefaultHasher>::default().hash_one(&numbers));
        let reader = (self.files < OPEN_FILES).then(|| Mutex::new(reader));
        self.files += 1;
        let shard = Arc::new(Shard { path: path.to_owned(), reader, images, seal });
        if let Some(twin) = parts.iter().find_map(|part| part.twin(&shard)) {
            let example = format!("{} and {}", path.display(), twin.display());
            self.notes.add("file[s] that hold[s|] the same as [another|others], read once", example);
            return Ok(());
        }
        if let Some(twin) = self.trained.as_ref().and_then(|trained| trained.twin(&shard)) {
            self.notes.add(TWIN, format!("{} and {}", path.display(), twin.display()));
        }
        let file = parts[0].shards.len();
        parts.iter_mut().for_each(|part| part.shards.push(shard.clone()));
        let rows = counts.iter().enumerate().flat_map(|(group, count)| (0..*count).map(move |row| (group, row)));
        for (number, ((group, row), class)) in rows.zip(numbers).enumerate() {
            let part = &mut parts[told.as_ref().map_or(0, |told| told[number])];
            let Some(class) = class else {
                part.unlabelled += 1;
                continue;
            };
            part.items.push(Item { name: format!("{} row {row} of group {group}", path.display()), class });
            part.places.push(RowPlace { file, group, row });
        }
        Ok(())
    }
}

impl Shards {
    /// The file that holds the same as another, whatever it is called.
    fn twin(&self, shard: &Shard) -> Option<&Path> {
        let first = |shard: &Shard| shard.read(0, &[0]).ok();
        let is_twin =
            |other: &&Arc<Shard>| other.seal == shard.seal && first(other).is_some_and(|it| Some(it) == first(shard));
        self.shards.iter().find(is_twin).map(|shard| &*shard.path)
    }
}

impl Shard {
    /// The images of some rows of a group, which must rise; `None` where a row has none.
    fn read(&self, group: usize, rows: &[usize]) -> Result<Vec<Option<Vec<u8>>>> {
        let read = |reader: &SerializedFileReader<File>| self.read_with(reader, group, rows);
        let images = match &self.reader {
            Some(reader) => read(&reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner)),
            None => read(&open_file(&self.path)?),
        };
        images.map_err(damaged(&self.path))
    }

    fn read_with(
        &self,
        reader: &SerializedFileReader<File>,
        group: usize,
        rows: &[usize],
    ) -> Result<Vec<Option<Vec<u8>>>, ParquetError> {
        let ColumnReader::ByteArrayColumnReader(mut column) =
            reader.get_row_group(group)?.get_column_reader(self.images)?
        else {
            return Err(ParquetError::General("the images are not byte arrays".into()));
        };
        let (mut images, mut at) = (Vec::new(), 0);
        for &row in rows {
            column.skip_records(row - at)?;
            images.push(read_bytes(&mut column)?);
            at = row + 1;
        }
        Ok(images)
    }
}

impl Source for Shards {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, indices: &[u32], work: &(dyn Fn(usize, Result<Picture>) + Sync)) {
        // Runs of rows of one group are read together, then given to the threads.
        let mut from = 0;
        while from < indices.len() {
            let place = |at: usize| &self.places[indices[at] as usize];
            let first = place(from);
            let follows = |at: usize| {
                let (before, here) = (place(at - 1), place(at));
                (here.file, here.group) == (before.file, before.group) && here.row > before.row
            };
            let end = (from + 1..indices.len()).find(|&at| !follows(at)).unwrap_or(indices.len());
            let rows: Vec<usize> = (from..end).map(|at| place(at).row).collect();
            let shard = &self.shards[first.file];
            let images = read(&shard.path, || shard.read(first.group, &rows));
            match images {
                Ok(images) => images.into_par_iter().enumerate().for_each(|(at, bytes)| {
                    let name = &self.items[indices[from + at] as usize].name;
                    work(from + at, bytes.map(Picture::File).ok_or_else(|| Error::data(name, "has no image")));
                }),
                Err(error) => {
                    (from..end).for_each(|at| work(at, Err(Error::data(&shard.path, error.problem()))));
                }
            }
            from = end;
        }
    }
}
