//! Columns of a parquet file that are encrypted while its footer is not: the library's reader passes over what says so, and
//! takes their pages for damaged ones.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::columns::Column;
use crate::error::{Error, Result};

/// What is said about what is encrypted.
pub const ADVICE: &str =
    "encrypted, which is not read; write it again without encryption, with a program that has its keys";

/// Bytes at the end of a file: the length of the footer, and PAR1.
const TAIL: u64 = 8;

/// How deep the values of a footer may lie in one another.
const DEPTH: usize = 32;

/// Kinds of values in Thrift's compact protocol.
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Fails where one of these columns of a file is encrypted.
pub fn check(path: &Path, columns: &[Column], read: &[usize]) -> Result<()> {
    let encrypted = columns_of(path);
    match read.iter().find(|column| encrypted.contains(column)) {
        Some(column) => Err(Error::data(path, format!("its column {} is {ADVICE}", columns[*column].path))),
        None => Ok(()),
    }
}

/// The numbers of the columns that are encrypted; none where the footer cannot be read.
pub fn columns_of(path: &Path) -> BTreeSet<usize> {
    let mut columns = BTreeSet::new();
    if let Some(bytes) = footer(path) {
        // What was found before damage is encrypted all the same.
        let _ = find(&mut Compact { bytes: &bytes, depth: 0 }, &mut columns);
    }
    columns
}

/// The bytes of the footer.
fn footer(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut tail = [0; TAIL as usize];
    file.read_exact_at(&mut tail, length.checked_sub(TAIL)?).ok()?;
    let count = u64::from(u32::from_le_bytes(tail[..4].try_into().ok()?));
    let start = (length - TAIL).checked_sub(count)?;
    let mut bytes = vec![0; count as usize];
    file.read_exact_at(&mut bytes, start).ok()?;
    (tail[4..] == *b"PAR1").then_some(bytes)
}

/// Fields 8 (how it is encrypted) and 9 (its encrypted description) of the columns (field 1) of row groups (field 4).
fn find(footer: &mut Compact, columns: &mut BTreeSet<usize>) -> Option<()> {
    footer.fields(&mut |footer, field, kind| {
        if (field, kind) != (4, LIST) {
            return footer.skip(kind);
        }
        footer.list(&mut |group, _, kind| match kind {
            STRUCT => group.fields(&mut |group, field, kind| match (field, kind) {
                (1, LIST) => group.list(&mut |column, number, kind| match kind {
                    STRUCT => column.fields(&mut |column, field, kind| {
                        if [8, 9].contains(&field) {
                            columns.insert(number);
                        }
                        column.skip(kind)
                    }),
                    _ => column.skip_element(kind),
                }),
                _ => group.skip(kind),
            }),
            _ => group.skip_element(kind),
        })
    })
}

/// The rest of bytes in Thrift's compact protocol. Its methods give `None` where they end too early or are too deep.
struct Compact<'a> {
    bytes: &'a [u8],
    depth: usize,
}

impl Compact<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Gives each field of a structure to `work`, which reads its value: with its number and its kind.
    fn fields(&mut self, work: &mut dyn FnMut(&mut Self, i64, u8) -> Option<()>) -> Option<()> {
        self.depth += 1;
        let mut field = 0;
        while self.depth <= DEPTH {
            let head = self.byte()?;
            if head == 0 {
                self.depth -= 1;
                return Some(());
            }
            field = match head >> 4 {
                0 => self.number().map(|number| (number >> 1) as i64 ^ -((number & 1) as i64))?,
                more => field + i64::from(more),
            };
            work(self, field, head & 15)?;
        }
        None
    }

    /// Gives each element of a list or set to `work`, which reads it: with its place and its kind.
    fn list(&mut self, work: &mut dyn FnMut(&mut Self, usize, u8) -> Option<()>) -> Option<()> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.number()? } else { u64::from(head >> 4) };
        (0..usize::try_from(count).ok()?).try_for_each(|place| work(self, place, head & 15))
    }

    /// Passes over the value of a field.
    fn skip(&mut self, kind: u8) -> Option<()> {
        match kind {
            // The kind of a truth is the truth itself.
            1 | 2 => Some(()),
            3 => self.byte().map(drop),
            4..=6 => self.number().map(drop),
            7 => self.take(8).map(drop),
            8 => {
                let count = self.number()?;
                self.take(usize::try_from(count).ok()?).map(drop)
            }
            LIST | 10 => self.nested(|all| all.list(&mut |all, _, kind| all.skip_element(kind))),
            11 => self.nested(Self::skip_map),
            STRUCT => self.fields(&mut |all, _, kind| all.skip(kind)),
            _ => None,
        }
    }

    /// Passes over an element of a list, in which a truth is a byte.
    fn skip_element(&mut self, kind: u8) -> Option<()> {
        self.skip(if kind == 1 || kind == 2 { 3 } else { kind })
    }

    fn skip_map(&mut self) -> Option<()> {
        let count = self.number()?;
        if count == 0 {
            return Some(());
        }
        let kinds = self.byte()?;
        (0..count).try_for_each(|_| {
            self.skip_element(kinds >> 4)?;
            self.skip_element(kinds & 15)
        })
    }

    fn nested(&mut self, work: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        let done = if self.depth <= DEPTH { work(self) } else { None };
        self.depth -= 1;
        done
    }
}
