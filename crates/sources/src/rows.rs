//! Files of labels as tables: which of their columns name images, and which their classes.

use std::path::{Path, PathBuf};

use super::classes::{Classes, is_wordnet_number};
use super::folders::is_called_an_image;
use super::parts;
use super::roles::{Role, role};
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
const LABELS: [&str; 14] = [
    "label",
    "labels",
    "class",
    "class_label",
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

/// Rows of a file, and the names of its columns if it has any.
pub struct Table {
    path: PathBuf,
    /// In small letters.
    pub header: Vec<String>,
    /// As they are written.
    titles: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// The class that a cell tells: the first word of several, where that is one and what follows is numbers (of a box, of a
/// score) or the names of a WordNet number; else all of it.
pub fn class_in(cell: &str, is_class: impl Fn(&str) -> bool) -> &str {
    let (first, rest) = cell.split_once(char::is_whitespace).unwrap_or((cell, ""));
    let is_all = is_class(cell) || !(is_wordnet_number(first) || rest.split_whitespace().all(is_number));
    if is_all || !is_class(first) { cell } else { first }
}

fn is_number(word: &str) -> bool {
    word.parse::<f64>().is_ok()
}

/// Whether a cell is called like an image.
fn is_image(cell: &String) -> bool {
    is_called_an_image(Path::new(cell))
}

/// Whether the first row has the names of the columns: one that is known, or no image where all others have one.
fn has_header(rows: &[Vec<String>]) -> bool {
    let Some((first, others)) = rows.split_first() else { return false };
    let is_known = |name: &String| is_among(name, &FILES) || is_among(name, &LABELS);
    let others_have_images = !others.is_empty() && others.iter().all(|row| row.iter().any(is_image));
    !first.iter().any(is_image) && (first.iter().any(is_known) || others_have_images)
}

/// Whether a column has one of these names, with any signs between its words.
fn is_among(name: &str, names: &[&str]) -> bool {
    names.contains(&&*name.to_lowercase().replace([' ', '-'], "_"))
}

/// Says that a line is no object of JSON.
fn not_an_object(path: &Path, line: usize, error: &serde_json::Error) -> Error {
    let problem = format!(
        "line {line}: not a JSON object, expected one a line, as {{\"file_name\": \"0001.jpg\", \"label\": \"cat\"}} \
         ({error})"
    );
    Error::data(path, problem)
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

impl Table {
    pub fn read(path: &Path) -> Result<Table> {
        let text = &*names::text(path)?;
        // Excel's line that tells the sign between the columns.
        let is_sign = |line: &str| line.strip_prefix("sep=").is_some_and(|sign| sign.chars().count() == 1);
        let text = text.split_once('\n').filter(|(line, _)| is_sign(line)).map_or(text, |(_, rest)| rest);
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
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
        };
        let mut table = Table { path: path.to_owned(), header: Vec::new(), titles: Vec::new(), rows };
        if has_header(&table.rows) {
            table.titles = table.rows.remove(0);
            table.header = table.titles.iter().map(|name| name.to_lowercase()).collect();
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
                    serde_json::Value::String(text) => text.trim().to_owned(),
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
        self.header.iter().position(|known| known == name || is_among(known, &[name]))
    }

    /// The column that names the images: by its name, or because all that is in it is called so.
    pub fn files(&self) -> usize {
        let named = FILES.iter().find_map(|name| Some((*name, self.column(name)?)));
        let has_images = |column: usize| self.rows.iter().all(|row| row.get(column).is_some_and(is_image));
        let is_mask = |column: usize| self.header.get(column).is_some_and(|name| role(name) == Some(Role::Masks));
        let width = self.rows.first().map_or(0, Vec::len);
        let called = (0..width).find(|&column| has_images(column) && !is_mask(column));
        match named {
            // Numbers of the rows are called so, too.
            Some(("id" | "name", column)) if !has_images(column) => called.unwrap_or(column),
            Some((_, column)) => column,
            None => called.unwrap_or(0),
        }
    }

    /// Makes one column of labels of those that have a 1 for the image's class and 0 for all others: the class is called
    /// as its column.
    ///
    /// Fails where an image has several such labels, or none.
    pub fn fold_one_hot(&mut self, files: usize) -> Result<()> {
        let digit = |cell: &String| cell.parse::<f64>().ok().filter(|value| [0., 1.].contains(value));
        let is_flag = |column: usize| self.rows.iter().all(|row| row.get(column).and_then(digit).is_some());
        let is_named = |column: usize| self.header.get(column).is_some_and(|name| !parts::is_about_parts(name));
        let flags: Vec<usize> =
            (0..self.titles.len()).filter(|&column| column != files && is_named(column) && is_flag(column)).collect();
        if flags.len() < 2 || self.rows.is_empty() || self.header.iter().any(|name| is_among(name, &LABELS)) {
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

    /// The column of the labels: the one named, the only one called so, the one that names known classes, or the only one
    /// beside that of the images.
    pub fn labels(&self, files: usize, named: Option<&str>, known: Option<&Classes>) -> Result<usize> {
        let unclear = |problem: String| {
            let advice = match self.header.is_empty() {
                true => "write the names of the columns into a first line, such as file_name,label".to_owned(),
                false => format!("name it with --label-column (columns: {})", self.header.join(", ")),
            };
            Error::data(&self.path, format!("{problem}; {advice}"))
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
            .filter(|&column| self.header.get(column).is_some_and(|name| is_among(name, &LABELS)))
            .collect();
        let by_classes = || {
            let known = known?;
            let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
            let is_class = |cell: &String| known.has(class_in(cell, |word| known.has(word)));
            let counts: Vec<usize> =
                others.iter().map(|&column| cells(column).filter(|cell| is_class(cell)).count()).collect();
            let most = *counts.iter().max()?;
            let mut best = others.iter().zip(&counts).filter(|(_, count)| **count == most).map(|(column, _)| *column);
            let best = best.next().filter(|_| most > 0 && best.next().is_none())?;
            // Words behind a class may be the rest of its name.
            let are_numbers = |column: usize| cells(column).all(|cell| is_number(cell));
            let is_clear = !self.header.is_empty() || others.iter().all(|&other| other == best || are_numbers(other));
            is_clear.then_some(best)
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
    pub fn strange(&self, label: &str, known: &Classes) -> Error {
        let advice = if label.parse::<u32>().is_ok() {
            "; where labels are numbers, give --classes FILE with the class names in the order of the numbers"
        } else {
            ""
        };
        Error::data(&self.path, format!("label {label:?} is not among {}{advice}", known.origin()))
    }
}
