//! Numbers as people read them.

/// 1234567 as 1,234,567.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(",")
}

/// A number of bytes as text for people.
pub fn show_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} KB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A number with about three significant digits.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
