//! Text for people: printing to a standard output that may be closed (`| head -1`) or full, for which no run ends, and
//! numbers as they are read.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};
use std::sync::{Mutex, PoisonError};

/// The first failure that is not a reader's having had enough.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Prints; what [`outln`](crate::outln) and [`out`](crate::out) expand to.
pub fn print(text: Arguments<'_>) {
    let mut stdout = stdout().lock();
    let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) else { return };
    if error.kind() != ErrorKind::BrokenPipe {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Prints to standard error, where somebody may read it; what [`errln`](crate::errln) expands to.
pub fn print_error(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// A loss as people read it.
pub fn loss_text(loss: f64) -> String {
    if loss.abs() < 1e6 || !loss.is_finite() { format!("{loss:.3}") } else { format!("{loss:.3e}") }
}

/// The candidate that a misspelled word is most like, if one is like it.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    alike.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// The reason why something was not printed, if anything was not.
pub fn failure() -> Option<std::io::Error> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// As `println!`, without its panic where nobody reads any more.
#[macro_export]
macro_rules! outln {
    () => { $crate::text::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::text::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `eprintln!`, without its panic where nobody reads any more.
#[macro_export]
macro_rules! errln {
    ($($text:tt)*) => { $crate::text::print_error(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `print!`, without its panic where nobody reads any more.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::text::print(format_args!($($text)*)) };
}
