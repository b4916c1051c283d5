//! Text, numbers, times and pictures as HTML.

use std::fmt::Write;

use crate::net::describe::grouped;

/// Text that may stand anywhere in HTML, in attributes too.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // HTML has no way to write them.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The first `most` characters of a text, and an ellipsis where there are more.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// A number with about three digits that matter.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return if value.is_nan() { "NaN".into() } else { format!("{}∞", if value < 0. { "−" } else { "" }) };
    }
    if size != 0. && !(1e-4..1e15).contains(&size) {
        return format!("{value:.2e}");
    }
    match size {
        s if s >= 999.5 => format!("{}{}", if value < 0. { "−" } else { "" }, grouped(s.round() as u64)),
        s if s >= 99.95 => format!("{value:.0}"),
        s if s >= 9.995 => format!("{value:.1}"),
        s if s >= 0.9995 || s == 0. => format!("{value:.2}"),
        s => {
            let decimals = (2. - s.log10().floor()) as usize;
            let digits = format!("{value:.decimals$}");
            // "0.005", but "0.100" beside "0.104".
            if s < 0.01 { digits.trim_end_matches('0').to_owned() } else { digits }
        }
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

/// How long before `now_unix_s` something was, in one unit.
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

/// A moment that the reader's browser shows in their own time zone, and UTC where it runs no scripts.
pub fn time(unix_s: f64) -> String {
    let text = utc(unix_s);
    format!("<time datetime=\"{}Z\">{text} UTC</time>", text.replace(' ', "T"))
}

/// A PNG file as a `data:` address.
pub fn png_address(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(png))
}

/// Width and height of a PNG file, in pixels; `None` where it is none.
pub fn png_size(png: &[u8]) -> Option<[u32; 2]> {
    let header = png.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(8..16)?;
    let (sizes, _) = header.as_chunks::<4>();
    Some([u32::from_be_bytes(sizes[0]), u32::from_be_bytes(sizes[1])]).filter(|[w, h]| *w > 0 && *h > 0)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize] as char;
            out.push(if place <= group.len() { letter } else { '=' });
        }
    }
    out
}

/// A table: heads (the first column is text, the others numbers where `numbers`), and rows of HTML.
pub fn table(heads: &[&str], rows: &[Vec<String>], numbers: bool) -> String {
    let mut out =
        format!("<div class=\"scroll\"><table class=\"{}\"><thead><tr>", if numbers { "numbers" } else { "" });
    for head in heads {
        let _ = write!(out, "<th>{}</th>", escape(head));
    }
    out += "</tr></thead><tbody>";
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = write!(out, "<tr>{cells}</tr>");
    }
    out + "</tbody></table></div>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<b onload='x'>\"&\u{1b}"), "&lt;b onload=&#39;x&#39;&gt;&quot;&amp;\u{fffd}");
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("äöü", 3), "äöü");
    }

    #[test]
    fn numbers_keep_what_matters() {
        let cases = [
            (0., "0.00"),
            (1.23456, "1.23"),
            (0.0123456, "0.0123"),
            (0.1, "0.100"),
            (0.005, "0.005"),
            (74.04, "74.0"),
            (432.1, "432"),
            (12_345.6, "12,346"),
            (1e-7, "1.00e-7"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "∞"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
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

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(png_size(b"GIF89a"), None);
    }
}
