//! Text, times and pictures as HTML.

use std::fmt::Write;

use crate::text::utc;

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
