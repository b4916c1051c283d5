//! Text for people: printing to a standard output that may be closed (`| head -1`) or full, which does not end a run;
//! numbers and times as text for people, and words quoted for a shell.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};
use std::sync::{Mutex, PoisonError};

pub use alexnet_split_charts::numbers::{grouped, short, show_bytes};
pub use alexnet_split_sources::plurals::{counted, with_example};

/// The first failure other than a closed pipe.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Prints; what `outln!` and `out!` expand to.
pub fn print(text: Arguments<'_>) {
    let mut stdout = stdout().lock();
    let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) else { return };
    if error.kind() != ErrorKind::BrokenPipe {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Prints to standard error; what `errln!` expands to.
pub fn print_error(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// The reason why something was not printed, if anything was not.
pub fn failure() -> Option<std::io::Error> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// As `println!`, without the panic where the reader has closed the pipe.
macro_rules! outln {
    () => { $crate::text::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::text::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `eprintln!`, without the panic where the reader has closed the pipe.
macro_rules! errln {
    ($($text:tt)*) => { $crate::text::print_error(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `print!`, without the panic where the reader has closed the pipe.
macro_rules! out {
    ($($text:tt)*) => { $crate::text::print(format_args!($($text)*)) };
}

/// A loss as text for people.
pub fn loss_text(loss: f64) -> String {
    if loss.abs() < 1e6 || !loss.is_finite() { format!("{loss:.3}") } else { format!("{loss:.3e}") }
}

/// The candidate that is most similar to a misspelled word, if one is similar.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    alike.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// The first `most` characters of a text, and an ellipsis where there are more.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// A share of 0 to 1 as percent; "–" where there is none.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1}%", 100. * share) } else { "–".into() }
}

/// A duration in words, two units of it.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.).round() as u64;
    match whole {
        0 => format!("{:.1} s", seconds.max(0.)),
        1..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {:02} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// The time from `unix_s` to `now_unix_s`, in one unit.
pub fn ago(unix_s: f64, now_unix_s: f64) -> String {
    match (now_unix_s - unix_s).max(0.) as u64 {
        0..60 => "just now".into(),
        s @ 60..3600 => format!("{} min ago", s / 60),
        s @ 3600..86_400 => format!("{} h ago", s / 3600),
        s @ 86_400..864_000 => format!("{} d ago", s / 86_400),
        _ => utc(unix_s)[..10].to_owned(),
    }
}

/// Seconds since 1970 as `2026-11-25 04:05:06`, UTC.
pub fn utc(unix_s: f64) -> String {
    // Years of nearly everything that a clock can say; also keeps the text's length.
    let seconds = unix_s.clamp(0., 250_000_000_000.) as u64;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: years begin in March, eras have 400 of them.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02} {:02}:{:02}:{:02}", second / 3600, second % 3600 / 60, second % 60)
}

/// A word of a command line, quoted for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%[]".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_can_be_copied_to_a_shell() {
        assert_eq!(["--set", "a=[1,2]", "my run", "it's"].map(quoted), ["--set", "a=[1,2]", "'my run'", "'it'\\''s'"]);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("äöü", 3), "äöü");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0.), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400.), "2000-02-29 00:00:00");
        assert_eq!(utc(1_764_039_000.5), "2025-11-25 02:50:00");
        assert_eq!(utc(f64::NAN), "1970-01-01 00:00:00");
        assert_eq!(duration(0.25), "0.2 s");
        assert_eq!(duration(118.4), "1 min 58 s");
        assert_eq!(duration(100_000.), "1 d 03 h");
        assert_eq!(ago(1000., 1000. + 7300.), "2 h ago");
    }
}
