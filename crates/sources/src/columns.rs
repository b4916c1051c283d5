//! Columns of tables: which holds the images and which the labels. It must be clear, or the user names it.

use serde_json::Value;

use super::SourceOptions;

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bytes,
    Text,
    Integers,
    Fractions,
    Other,
}

impl Kind {
    /// For messages.
    fn name(self) -> &'static str {
        match self {
            Kind::Bytes => "bytes",
            Kind::Text => "text",
            Kind::Integers => "whole numbers",
            Kind::Fractions => "fractions",
            Kind::Other => "lists or others",
        }
    }
}

/// A column without columns in it.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name, behind the names of those that it lies in: `image.bytes`.
    pub path: String,
    pub kind: Kind,
}

/// The columns that are read, by their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub image: String,
    pub label: String,
}

/// Names that tell a column of images, and one of labels.
const IMAGES: [&str; 6] = ["image", "img", "jpg", "jpeg", "png", "webp"];
const LABELS: [&str; 7] = ["label", "labels", "fine_label", "cls", "class", "target", "class_label"];

/// Words in the names of pictures that are not what is to be recognized.
const MASKS: [&str; 9] =
    ["mask", "masks", "segmentation", "annotation", "annotations", "depth", "trimap", "label", "labels"];

/// The table's columns as the `datasets` library describes them in its files.
pub fn features(text: &str) -> Value {
    serde_json::from_str::<Value>(text).map_or(Value::Null, |mut json| json["info"]["features"].take())
}

/// The names of a column's classes, in the order of their numbers, if its description has them.
pub fn class_names(features: &Value, column: &str) -> Option<Vec<String>> {
    let names = features[column]["names"].as_array()?;
    names.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
}

/// Chooses the columns of images and labels, and says which others might have been meant.
///
/// Fails with what there is, and the flag that settles it.
pub fn choose(columns: &[Column], features: &Value, options: &SourceOptions) -> Result<(Chosen, Vec<String>), String> {
    let stem = |column: &Column| column.path.strip_suffix(".bytes").unwrap_or(&column.path).to_owned();
    let is_image = |column: &&Column| {
        column.kind == Kind::Bytes && (column.path.ends_with(".bytes") || !column.path.contains('.'))
    };
    let images: Vec<&Column> = columns.iter().filter(is_image).collect();
    let is_label = |column: &&Column| {
        matches!(column.kind, Kind::Integers | Kind::Fractions | Kind::Text) && !column.path.contains('.')
    };
    let labels: Vec<&Column> = columns.iter().filter(is_label).collect();

    let image = match &options.image_column {
        Some(name) => images.iter().find(|column| stem(column) == *name || column.path == *name).copied(),
        None => {
            let usual = only(images.iter().filter(|column| IMAGES.contains(&&*stem(column))));
            let is_mask = |column: &Column| {
                column.path.to_lowercase().split(|c: char| !c.is_alphanumeric()).any(|word| MASKS.contains(&word))
            };
            let single = only(images.iter()).filter(|column| !is_mask(column));
            usual.or(single).copied()
        }
    };
    let Some(image) = image else {
        let names: Vec<String> = images.iter().map(|column| stem(column)).collect();
        return Err(unclear("images", "image", &names, columns, options.image_column.as_deref()));
    };
    let label = match &options.label_column {
        Some(name) => labels.iter().find(|column| column.path == *name).copied(),
        None => {
            let has_names = |column: &&&Column| class_names(features, &column.path).is_some();
            let mut usual = labels.iter().filter(|column| LABELS.contains(&&*column.path)).peekable();
            // Only where no name tells do the described classes.
            if usual.peek().is_some() { only(usual) } else { only(labels.iter().filter(has_names)) }.copied()
        }
    };
    let Some(label) = label else {
        let names: Vec<String> = labels.iter().map(|column| column.path.clone()).collect();
        return Err(unclear("labels", "label", &names, columns, options.label_column.as_deref()));
    };
    let others = images.iter().filter(|column| column.path != image.path && column.path.ends_with(".bytes"));
    let mut left: Vec<String> = others.map(|column| stem(column)).collect();
    let is_other = |column: &&&Column| column.path != label.path && class_names(features, &column.path).is_some();
    left.extend(labels.iter().filter(is_other).map(|column| column.path.clone()));
    Ok((Chosen { image: image.path.clone(), label: label.path.clone() }, left))
}

/// The one thing that there is.
fn only<T>(mut things: impl Iterator<Item = T>) -> Option<T> {
    let first = things.next()?;
    things.next().is_none().then_some(first)
}

/// Why no column was taken.
fn unclear(what: &str, flag: &str, candidates: &[String], columns: &[Column], named: Option<&str>) -> String {
    let all = || {
        let seen = |column: &Column| format!("{} ({})", column.path, column.kind.name());
        columns.iter().map(seen).collect::<Vec<_>>().join(", ")
    };
    let could_be = || candidates.join(", ");
    let expected = match what {
        "images" => "image files as bytes",
        _ => "whole numbers or names, not in another column",
    };
    match (named, candidates) {
        (Some(name), []) => {
            format!("--{flag}-column {name}: no column can hold {what}, expected {expected}; there are {}", all())
        }
        (Some(name), _) => {
            format!("--{flag}-column {name}: no such column of {what}; those that can be: {}", could_be())
        }
        (None, []) => format!("no column holds {what}, expected {expected}; there are {}", all()),
        (None, _) => {
            format!("which column holds the {what} is not clear: {}; name it with --{flag}-column", could_be())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(columns: &[(&str, Kind)], features: &Value, options: &SourceOptions) -> Result<[String; 2], String> {
        let columns: Vec<Column> = columns.iter().map(|&(path, kind)| Column { path: path.to_owned(), kind }).collect();
        choose(&columns, features, options).map(|(chosen, _)| [chosen.image, chosen.label])
    }

    #[test]
    fn columns_are_clear_or_named() {
        use Kind::{Bytes, Integers, Other, Text};
        let nothing = SourceOptions::default();
        let clear = |columns: &[(&str, Kind)], image: &str, label: &str| {
            assert_eq!(chosen(columns, &Value::Null, &nothing), Ok([image.to_owned(), label.to_owned()]));
        };
        clear(&[("image.bytes", Bytes), ("image.path", Text), ("label", Integers)], "image.bytes", "label");
        clear(&[("jpg", Bytes), ("__key__", Text), ("cls", Integers)], "jpg", "cls");
        clear(
            &[("photo.bytes", Bytes), ("photo.path", Bytes), ("id", Integers), ("class", Text)],
            "photo.bytes",
            "class",
        );
        clear(&[("mask.bytes", Bytes), ("image.bytes", Bytes), ("label", Integers)], "image.bytes", "label");
        clear(&[("img", Bytes), ("fine_label", Integers), ("coarse_label", Integers)], "img", "fine_label");

        let unclear = |columns: &[(&str, Kind)], parts: &[&str]| {
            let problem = chosen(columns, &Value::Null, &nothing).unwrap_err();
            parts.iter().for_each(|part| assert!(problem.contains(part), "no {part:?} in: {problem}"));
        };
        unclear(
            &[("mask.bytes", Bytes), ("photo.bytes", Bytes), ("label", Integers)],
            &["mask, photo", "--image-column"],
        );
        unclear(&[("image", Text), ("mask.bytes", Bytes), ("label", Integers)], &["mask", "--image-column"]);
        unclear(&[("image", Bytes), ("labels", Integers), ("label", Integers)], &["labels, label", "--label-column"]);
        unclear(&[("image", Bytes), ("id", Integers)], &["id", "--label-column"]);
        unclear(
            &[("image", Bytes), ("label", Other)],
            &["no column holds labels", "image (bytes), label (lists or others)", "whole numbers"],
        );
        unclear(
            &[("image", Text), ("label", Integers)],
            &["no column holds images", "image (text)", "image files as bytes"],
        );

        let features = serde_json::json!({"species": {"names": ["a", "b"]}});
        let columns =
            [("image", Bytes), ("id", Integers), ("species", Integers), ("labels", Integers), ("label", Text)];
        assert_eq!(chosen(&columns[..3], &features, &nothing).unwrap()[1], "species");
        let named = |image: &str, label: &str| {
            let options = SourceOptions {
                image_column: Some(image.to_owned()),
                label_column: Some(label.to_owned()),
                ..SourceOptions::default()
            };
            chosen(&columns, &features, &options)
        };
        assert_eq!(named("image", "id"), Ok(["image".to_owned(), "id".to_owned()]));
        assert!(named("picture", "id").unwrap_err().contains("--image-column picture: no such column"));
        assert!(named("image", "nothing").unwrap_err().contains("id, species, labels, label"));
    }
}
