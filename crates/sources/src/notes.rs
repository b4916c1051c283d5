//! What was seen in a data set and left alone, counted by kind: a line each.

use std::fmt::Display;

use crate::plurals::with_example;

/// Something that was left alone.
struct Kind {
    /// What it is, as [`counted`] takes it; `{}` stands for `about`.
    what: &'static str,
    about: String,
    count: usize,
    first: String,
}

/// Kinds in the order in which they were met, how often each was, and the first example; before them lines of their own.
#[derive(Default)]
pub struct Notes {
    lines: Vec<String>,
    kinds: Vec<Kind>,
    used: Vec<String>,
}

impl Notes {
    /// Counts one more of a kind, such as "file[s] not read".
    pub fn add(&mut self, what: &'static str, example: impl Display) {
        self.add_many(what, 1, example);
    }

    /// Counts several of a kind.
    pub fn add_many(&mut self, what: &'static str, count: usize, example: impl Display) {
        self.add_about(what, "", count, example);
    }

    /// Counts several of a kind that has to do with a file or another thing, whose name is for `{}`.
    pub fn add_about(&mut self, what: &'static str, about: impl Display, count: usize, example: impl Display) {
        let (about, first) = (about.to_string(), example.to_string());
        if self.used.contains(&first) {
            return;
        }
        match self.kinds.iter_mut().find(|known| known.what == what && known.about == about) {
            Some(known) => known.count += count,
            None => self.kinds.push(Kind { what, about, count, first }),
        }
    }

    /// Adds a line that counts nothing.
    pub fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Keeps what is used after all, such as a file of labels, from being counted.
    pub fn uses(&mut self, example: impl Display) {
        self.used.push(example.to_string());
    }

    /// A line a kind.
    pub fn say(&self) -> Vec<String> {
        self.lines.iter().cloned().chain(self.kinds.iter().map(Kind::say)).collect()
    }
}

impl Kind {
    fn say(&self) -> String {
        with_example(self.count, self.what, &self.first).replacen("{}", &self.about, 1)
    }
}
