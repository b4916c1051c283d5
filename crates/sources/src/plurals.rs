//! Counts in words.

/// A count and what is counted, with its words in the number that they need: of `[s]` and `[is|are]` one thing has the
/// first or nothing, several the last. `counted(1, "image[s] that [is|are] grey")` is "1 image that is grey".
pub fn counted(count: usize, what: &str) -> String {
    let mut text = count.to_string() + " ";
    let mut rest = what;
    while let Some((before, (choice, after))) =
        rest.split_once('[').and_then(|(before, inner)| Some((before, inner.split_once(']')?)))
    {
        let (one, several) = choice.split_once('|').unwrap_or(("", choice));
        text += before;
        text += if count == 1 { one } else { several };
        rest = after;
    }
    text + rest
}

/// The same with one of the things: "1 file: a.txt", "2 files, a.txt among them".
pub fn with_example(count: usize, what: &str, first: &str) -> String {
    let counted = counted(count, what);
    if count == 1 { format!("{counted}: {first}") } else { format!("{counted}, {first} among them") }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_thing_is_no_several_things() {
        assert_eq!(counted(1, "image[s] that [is|are] grey"), "1 image that is grey");
        assert_eq!(counted(2, "image[s] that [is|are] grey"), "2 images that are grey");
        assert_eq!(counted(0, "class[es]"), "0 classes");
        assert_eq!(counted(1, "batch"), "1 batch");
        assert_eq!(counted(7, "a[b"), "7 a[b");
    }
}
