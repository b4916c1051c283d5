//! Files that tell the classes of images by the images' names: `metadata.csv`, `val_annotations.txt` and others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::classes::Classes;
use crate::error::{Error, Result};
use crate::names;

/// What columns are called that name the image; the first that is there counts.
const FILES: [&str; 14] = [
    "file_name",
    "filename",
    "file",
    "image_name",
    "image_path",
    "filepath",
    "path",
    "image_id",
    "imageid",
    "image",
    "img",
    "id_code",
    "id",
    "name",
];

/// What columns are called that name its class.
const LABELS: [&str; 13] = [
    "label",
    "labels",
    "class",
    "class_name",
    "classname",
    "class_id",
    "label_name",
    "category",
    "target",
    "breed",
    "species",
    "wnid",
    "predictionstring",
];

/// What columns are called that tell the part of the set.
const PARTS: [&str; 6] = ["split", "is_valid", "is_test", "subset", "partition", "fold"];

/// Rows of a file, and the names of its columns if it has any.
struct Table {
    path: PathBuf,
    /// In small letters.
    header: Vec<String>,
    /// As they are written.
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The classes of images.
pub struct Labels {
    /// The file that tells them.
    pub path: PathBuf,
    /// In the order of their numbers: of names that of their bytes, of numbers their own.
    pub classes: Vec<String>,
    /// The class of each image that the file names.
    pub images: Vec<u32>,
    /// The images by the names that the file has for them.
    by_name: HashMap<String, usize>,
    /// Those by the ends of their names, with and without the last folder; `None` where there are several.
    by_end: HashMap<String, Option<(usize, String)>>,
}

impl Labels {
    /// Reads a file of labels. `column` names the labels' column; `known` are the classes that there may be.
    ///
    /// Fails where it does not say which column has the labels, or has a label that is no class.
    pub fn read(path: &Path, column: Option<&str>, known: Option<&Classes>) -> Result<Labels> {
        let mut table = Table::read(path)?;
        let files = FILES.iter().find_map(|name| table.column(name)).unwrap_or(0);
        if column.is_none() {
            table.fold_one_hot(files)?;
        }
        let labels = table.labels(files, column, known)?;
        table.check_parts()?;
        let is_prediction = table.header.get(labels).is_some_and(|name| name == "predictionstring");
        let mut pairs = Vec::new();
        for row in &table.rows {
            let (Some(file), Some(label)) = (row.get(files), row.get(labels)) else { continue };
            let first = label.split_whitespace().next().unwrap_or_default();
            let is_known = |label: &str| known.is_some_and(|known| known.index(label).is_some());
            let label = if is_prediction || (!is_known(label) && is_known(first)) { first } else { label };
            if file.is_empty() || (is_missing(label) && !is_known(label)) {
                continue;
            }
            if label.starts_with(['[', '{']) {
                return Err(Error::data(
                    path,
                    format!("label {label} of {file:?} is a list or an object, not a class"),
                ));
            }
            pairs.push((file.replace('\\', "/").trim_start_matches("./").to_owned(), label));
        }
        let found = Classes::found(match known {
            Some(known) => known.keys.clone(),
            None => classes_of(pairs.iter().map(|(_, label)| *label)),
        });
        let (path, classes) = (path.to_owned(), found.keys.clone());
        let (images, by_name, by_end) = (Vec::new(), HashMap::new(), HashMap::new());
        let mut all = Labels { path, classes, images, by_name, by_end };
        for (file, label) in pairs {
            let class = known.unwrap_or(&found).index(label).ok_or_else(|| table.strange(label, known))?;
            all.add(file, class)?;
        }
        Ok(all)
    }

    fn add(&mut self, file: String, class: u32) -> Result<()> {
        match self.by_name.get(&file) {
            Some(&before) if self.images[before] != class => {
                return Err(Error::data(&self.path, format!("gives {file:?} two classes; it needs one")));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let image = self.images.len();
        self.images.push(class);
        for end in ends(&file) {
            let found = Some((image, file.clone()));
            self.by_end.entry(end.to_owned()).and_modify(|several| *several = None).or_insert(found);
        }
        self.by_name.insert(file, image);
        Ok(())
    }

    /// The number of an image in [`Labels::images`]. The file may have its path below `folder` or below the file's own, its
    /// name, or either without the ending; or a longer path that ends so. One in another folder is another image.
    pub fn find(&self, image: &Path, folder: &Path) -> Option<usize> {
        let below = |folder: Option<&Path>| image.strip_prefix(folder?).ok();
        let paths = [below(self.path.parent()), below(Some(folder)), image.file_name().map(Path::new)];
        let paths = || paths.iter().flatten().map(|path| path.to_path_buf());
        let names = paths().chain(paths().map(|path| path.with_extension("")));
        let found = names.into_iter().find_map(|name| self.by_name.get(name.to_str()?).copied());
        found.or_else(|| {
            let known = ends(image.to_str()?).find_map(|end| self.by_end.get(end)?.as_ref());
            known
                .filter(|(_, listed)| paths().take(2).any(|path| are_ends(&path, Path::new(listed))))
                .map(|found| found.0)
        })
    }
}

/// Whether a label says that there is none, as spreadsheets and Python write it.
fn is_missing(label: &str) -> bool {
    ["", "-1", "-1.0", "nan", "null", "<na>", "#n/a"].contains(&&*label.to_lowercase())
}

/// Says that a line is no object of JSON.
fn not_an_object(path: &Path, line: usize, error: &serde_json::Error) -> Error {
    let problem = format!(
        "line {line}: not a JSON object, expected one a line, as {{\"file_name\": \"0001.jpg\", \"label\": \"cat\"}} \
         ({error})"
    );
    Error::data(path, problem)
}

/// A file's name with the folder that it lies in, and without.
fn ends(path: &str) -> impl Iterator<Item = &str> {
    let starts = path.rmatch_indices('/').map(|(at, _)| at + 1).take(2).collect::<Vec<_>>();
    let whole = (starts.len() < 2).then_some(path);
    whole.into_iter().chain(starts.into_iter().rev().map(|start| &path[start..]))
}

/// Whether two paths may be of one file: the shorter one is the end of the longer one.
fn are_ends(one: &Path, other: &Path) -> bool {
    one.ends_with(other) || other.ends_with(one)
}

/// Fails at a row that reads otherwise than it is meant.
fn check_rows(path: &Path, rows: &[csv::StringRecord]) -> Result<()> {
    let width = rows.first().map_or(0, csv::StringRecord::len);
    for row in rows {
        let line = row.position().map_or(0, csv::Position::line);
        if row.len() > width {
            let problem = format!(
                "line {line} has {} fields, the first line has {width}; put names with commas in quotes",
                row.len()
            );
            return Err(Error::data(path, problem));
        }
        if row.iter().any(|field| field.contains('\n')) {
            let problem = format!("line {line}: a field with a line break; a quote may not be closed");
            return Err(Error::data(path, problem));
        }
    }
    Ok(())
}

/// The different labels, in order.
fn classes_of<'a>(labels: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut classes: Vec<&str> = labels.collect();
    classes.sort_unstable();
    classes.dedup();
    if classes.iter().all(|class| class.parse::<u64>().is_ok()) {
        classes.sort_by_key(|class| class.parse::<u64>().unwrap_or_default());
    }
    classes.into_iter().map(str::to_owned).collect()
}

impl Table {
    fn read(path: &Path) -> Result<Table> {
        let text = &*names::text(path)?;
        let first = text.lines().next().unwrap_or_default();
        let has = |c: char| first.contains(c);
        let rows = if path.extension().is_some_and(|ending| ending == "jsonl") {
            return Table::of_json_lines(path, text);
        } else if has('\t') || has(',') || has(';') {
            let delimiter = [b'\t', b',', b';'].into_iter().find(|&byte| has(byte.into())).unwrap_or(b',');
            let mut reader = csv::ReaderBuilder::new();
            reader.has_headers(false).flexible(true).delimiter(delimiter).trim(csv::Trim::All);
            let records = reader.from_reader(text.as_bytes()).into_records();
            let rows: Vec<csv::StringRecord> =
                records.collect::<csv::Result<_>>().map_err(|error| Error::data(path, format!("damaged: {error}")))?;
            check_rows(path, &rows)?;
            rows.iter().map(|row| row.iter().map(str::to_owned).collect()).collect()
        } else {
            text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
        };
        let mut table = Table { path: path.to_owned(), header: Vec::new(), titles: Vec::new(), rows };
        let names: Vec<String> = table.rows.first().into_iter().flatten().map(|name| name.to_lowercase()).collect();
        if names.iter().any(|name| FILES.contains(&&**name) || LABELS.contains(&&**name)) {
            table.header = names;
            table.titles = table.rows.remove(0);
        }
        Ok(table)
    }

    /// An object a line; its keys are the columns.
    fn of_json_lines(path: &Path, text: &str) -> Result<Table> {
        let mut table = Table { path: path.to_owned(), header: Vec::new(), titles: Vec::new(), rows: Vec::new() };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).map_err(|error| not_an_object(path, number + 1, &error))?;
            for key in object.keys().map(|key| key.to_lowercase()) {
                if !table.header.contains(&key) {
                    table.header.push(key);
                }
            }
            let mut row = vec![String::new(); table.header.len()];
            for (key, value) in object {
                let cell = match value {
                    serde_json::Value::Null => String::new(),
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                };
                if let Some(column) = table.column(&key.to_lowercase()) {
                    row[column] = cell;
                }
            }
            table.rows.push(row);
        }
        Ok(table)
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|known| known == name)
    }

    /// Makes one column of labels of those that have a 1 for the image's class and 0 for all others: the class is called
    /// as its column.
    ///
    /// Fails where an image has several such labels, or none.
    fn fold_one_hot(&mut self, files: usize) -> Result<()> {
        let digit = |cell: &String| cell.parse::<f64>().ok().filter(|value| [0., 1.].contains(value));
        let is_flag = |column: usize| self.rows.iter().all(|row| row.get(column).and_then(digit).is_some());
        let is_named = |column: usize| self.header.get(column).is_some_and(|name| !PARTS.contains(&&**name));
        let flags: Vec<usize> =
            (0..self.titles.len()).filter(|&column| column != files && is_named(column) && is_flag(column)).collect();
        if flags.len() < 2 || self.rows.is_empty() || self.header.iter().any(|name| LABELS.contains(&&**name)) {
            return Ok(());
        }
        let mut labels = Vec::new();
        for row in &self.rows {
            let set: Vec<&str> =
                flags.iter().filter(|&&at| digit(&row[at]) == Some(1.)).map(|&at| &*self.titles[at]).collect();
            let [label] = set[..] else {
                let all: Vec<&str> = flags.iter().map(|&at| &*self.titles[at]).collect();
                let problem = format!(
                    "has 1 for {} in {} of its columns of 0 and 1 ({}); an image needs one class. --label-column NAME \
                     takes one column as the label",
                    row.get(files).map_or("an image", String::as_str),
                    set.len(),
                    all.join(", ")
                );
                return Err(Error::data(&self.path, problem));
            };
            labels.push(label.to_owned());
        }
        let width = self.header.len();
        self.header.push(LABELS[0].to_owned());
        self.rows.iter_mut().for_each(|row| row.resize(width, String::new()));
        self.rows.iter_mut().zip(labels).for_each(|(row, label)| row.push(label));
        Ok(())
    }

    /// Fails where a column tells the parts of the set: nothing here reads it, and images to test with would be trained on.
    fn check_parts(&self) -> Result<()> {
        let Some(column) = PARTS.iter().find_map(|name| self.column(name)) else { return Ok(()) };
        let mut parts: Vec<&str> = self.rows.iter().filter_map(|row| row.get(column)).map(|part| &**part).collect();
        parts.sort_unstable();
        parts.dedup();
        if parts.len() < 2 {
            return Ok(());
        }
        let problem = format!(
            "its column {} puts the images into parts ({}), which is not read; make a folder of images and a file of \
             labels for each part, or remove the column if all are one set",
            self.header[column],
            parts.iter().take(4).copied().collect::<Vec<_>>().join(", ")
        );
        Err(Error::data(&self.path, problem))
    }

    /// The column of the labels: the one named, the only one called so, the one that names known classes, or the only one
    /// beside that of the images.
    fn labels(&self, files: usize, named: Option<&str>, known: Option<&Classes>) -> Result<usize> {
        let unclear = |problem: String| {
            let columns = if self.header.is_empty() { "none has a name".into() } else { self.header.join(", ") };
            Error::data(&self.path, format!("{problem} (columns: {columns}); name it with --label-column"))
        };
        if let Some(named) = named {
            let column = self.column(&named.to_lowercase());
            return column.ok_or_else(|| unclear(format!("there is no column {named:?}")));
        }
        let width = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let others: Vec<usize> = (0..width).filter(|&column| column != files).collect();
        let called: Vec<usize> = others
            .iter()
            .copied()
            .filter(|&column| self.header.get(column).is_some_and(|name| LABELS.contains(&&**name)))
            .collect();
        let by_classes = || {
            let known = known?;
            let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
            let is_class =
                |cell: &String| known.has(cell) || cell.split_whitespace().next().is_some_and(|first| known.has(first));
            let counts: Vec<usize> =
                others.iter().map(|&column| cells(column).filter(|cell| is_class(cell)).count()).collect();
            let most = *counts.iter().max()?;
            let mut best = others.iter().zip(&counts).filter(|(_, count)| **count == most).map(|(column, _)| *column);
            best.next().filter(|_| most > 0 && best.next().is_none())
        };
        match (&called[..], &others[..]) {
            ([only], _) => Ok(*only),
            _ if by_classes().is_some() => Ok(by_classes().unwrap_or_default()),
            // Under a name that is no label's there may be captions.
            ([], [only]) if self.header.is_empty() => Ok(*only),
            (_, []) => Err(Error::data(
                &self.path,
                "has one word a line, expected the name of an image and its class, as in 0001.jpg,cat; labels in the order \
                 of the images are not read, for one missing image would move the rest",
            )),
            _ => Err(unclear("does not say which column has the classes".into())),
        }
    }

    /// Says that a label is no class.
    fn strange(&self, label: &str, known: Option<&Classes>) -> Error {
        let origin = known.map(Classes::origin).unwrap_or_default();
        let advice = if label.parse::<u32>().is_ok() {
            "; where labels are numbers, give --classes FILE with the class names in the order of the numbers"
        } else {
            ""
        };
        Error::data(&self.path, format!("label {label:?} is not among {origin}{advice}"))
    }
}
