//! The classes of a set of several files, each of which may number them in its own way: a class is its name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::notes::Notes;
use crate::error::{Error, Result};
use crate::plurals::counted;

/// The labels of a file, as it has them.
pub struct FileLabels {
    /// The class of each image by the file's own numbers; `None` for an image without one.
    pub numbers: Vec<Option<u32>>,
    /// The names of the file's classes, if it has them.
    pub names: Option<Vec<String>>,
    /// Whether the labels are names, of those that the file happens to have, and not numbers in a list.
    pub are_names: bool,
}

/// The names of all classes while the files are read.
#[derive(Default)]
pub struct ClassLists {
    names: Vec<String>,
    /// The file that they are from.
    from: Option<PathBuf>,
    /// Whether labels are names. Then files to train on may add some.
    are_names: bool,
    is_closed: bool,
    /// Files that number classes without naming them.
    nameless: Vec<PathBuf>,
}

impl ClassLists {
    /// A file's labels by the set's numbers.
    ///
    /// Fails where the file names a class that is not among those of the set, or its labels are of another kind.
    pub fn number(&mut self, path: &Path, labels: FileLabels) -> Result<Vec<Option<u32>>> {
        let FileLabels { mut numbers, names, are_names } = labels;
        if numbers.iter().all(Option::is_none) {
            return Ok(numbers);
        }
        let others = if are_names { self.nameless.first() } else { self.from.as_ref().filter(|_| self.are_names) };
        if let Some(other) = others.filter(|_| are_names || names.is_none()) {
            let [here, there] = if are_names { ["names", "numbers"] } else { ["numbers", "names"] };
            let problem =
                format!("its labels are {here}, those of {} {there}; all files must have one kind", other.display());
            return Err(Error::data(path, problem));
        }
        let Some(names) = names else {
            self.nameless.push(path.to_owned());
            return Ok(numbers);
        };
        let Some(from) = &self.from else {
            (self.names, self.from, self.are_names) = (names, Some(path.to_owned()), are_names);
            return Ok(numbers);
        };
        if names == self.names {
            return Ok(numbers);
        }
        let mut known: HashMap<String, u32> = self.names.iter().cloned().zip(0..).collect();
        if known.len() < self.names.len() {
            let problem = format!("names its classes in another order than {}, which has a name twice", from.display());
            return Err(Error::data(path, problem));
        }
        let mut places = Vec::new();
        for name in names {
            let next = known.len() as u32;
            places.push(match known.get(&name) {
                Some(place) => *place,
                None if self.are_names && !self.is_closed => {
                    self.names.push(name.clone());
                    known.insert(name, next);
                    next
                }
                None => {
                    let problem = format!(
                        "has a class {name:?}, which is not among the {} classes of {}; all files of a set must name the \
                         same classes",
                        known.len(),
                        from.display()
                    );
                    return Err(Error::data(path, problem));
                }
            });
        }
        for number in numbers.iter_mut().flatten() {
            let Some(place) = places.get(*number as usize) else {
                let problem = format!("names {}, but has a label {number}", counted(places.len(), "class[es]"));
                return Err(Error::data(path, problem));
            };
            *number = *place;
        }
        Ok(numbers)
    }

    /// Ends what is trained on: its names are all that there are. Names that came one after another are sorted; gives
    /// the new number of each class then.
    pub fn close(&mut self) -> Option<Vec<u32>> {
        self.is_closed = true;
        if !self.are_names {
            return None;
        }
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        order.sort_by(|&a, &b| self.names[a].cmp(&self.names[b]));
        let mut places = vec![0; order.len()];
        order.iter().zip(0..).for_each(|(&class, place)| places[class] = place);
        self.names.sort();
        Some(places)
    }

    /// The names, if a file has them, and a note about files that have none.
    ///
    /// Fails where there are more classes than names.
    pub fn finish(self, highest: u32, notes: &mut Notes) -> Result<Option<Vec<String>>> {
        let Some(from) = self.from else { return Ok(None) };
        if highest as usize >= self.names.len() {
            let problem = format!("names {}, but there is a label {highest}", counted(self.names.len(), "class[es]"));
            return Err(Error::data(from, problem));
        }
        if let Some(first) = self.nameless.first() {
            let kind = "file[s] that [does not name its|do not name their] classes, which are taken by the numbers of the others";
            notes.add_many(kind, self.nameless.len(), first.display());
        }
        Ok(Some(self.names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(numbers: &[u32], names: &[&str], are_names: bool) -> FileLabels {
        let names = Some(names.iter().map(|name| (*name).to_owned()).collect());
        FileLabels { numbers: numbers.iter().copied().map(Some).collect(), names, are_names }
    }

    #[test]
    fn a_class_is_its_name() {
        let mut classes = ClassLists::default();
        let mut number = |numbers: &[u32], names: &[&str]| {
            let numbers = classes.number(Path::new("x"), labels(numbers, names, false));
            numbers.map(|numbers| numbers.into_iter().flatten().collect::<Vec<_>>())
        };
        assert_eq!(number(&[0, 1, 2], &["cat", "dog", "emu"]).unwrap(), [0, 1, 2]);
        assert_eq!(number(&[0, 1, 2], &["dog", "emu", "cat"]).unwrap(), [1, 2, 0]);
        assert_eq!(number(&[0], &["emu"]).unwrap(), [2]);
        assert!(number(&[0], &["fox"]).unwrap_err().to_string().contains("\"fox\""));
        assert!(number(&[1], &["emu"]).unwrap_err().to_string().contains("names 1 class, but has a label 1"));
        assert_eq!(classes.close(), None);
        assert_eq!(classes.finish(2, &mut Notes::default()).unwrap().unwrap(), ["cat", "dog", "emu"]);
    }

    #[test]
    fn labels_that_are_names_are_sorted_and_end_with_the_training_set() {
        let mut classes = ClassLists::default();
        let mut number = |numbers: &[u32], names: &[&str]| {
            classes.number(Path::new("x"), labels(numbers, names, true)).map(|numbers| numbers[0].unwrap())
        };
        assert_eq!((number(&[0], &["dog", "fox"]).unwrap(), number(&[0], &["cat", "dog"]).unwrap()), (0, 2));
        assert_eq!(classes.close(), Some(vec![1, 2, 0]));
        assert_eq!(classes.number(Path::new("x"), labels(&[0], &["fox"], true)).unwrap(), [Some(2)]);
        assert!(classes.number(Path::new("x"), labels(&[0], &["emu"], true)).is_err());
    }
}
