//! Names of folders that tell of no class: parts of a set, plain containers of images, masks, and what systems leave
//! behind.

/// What a folder's name says that is in it, if it names no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Images to train on.
    Train,
    /// Images to hold out.
    Val,
    /// Images to hold out, which often have no labels.
    Test,
    /// Images, without a word of their part or class.
    Images,
    /// Masks, boxes and other answers that are not classes.
    Masks,
}

/// Words by role. Of several words the first row with one of them counts: `test_masks` holds masks.
const WORDS: [(Role, &[&str]); 5] = [
    (
        Role::Masks,
        &[
            "mask",
            "masks",
            "annotation",
            "annotations",
            "trimap",
            "trimaps",
            "segmentation",
            "segmentations",
            "label",
            "labels",
            "groundtruth",
            "gt",
            "bbox",
            "bboxes",
            "boxes",
            "depth",
            "depths",
            "keypoints",
        ],
    ),
    (Role::Train, &["train", "training", "trainset", "trainval"]),
    (
        Role::Val,
        &[
            "val",
            "valid",
            "validation",
            "validate",
            "valset",
            "dev",
            "devel",
            "eval",
            "evaluation",
            "holdout",
            "heldout",
        ],
    ),
    (Role::Test, &["test", "testing", "testset", "pred", "predict", "prediction", "unlabeled", "unlabelled"]),
    (
        Role::Images,
        &[
            "image",
            "images",
            "img",
            "imgs",
            "jpg",
            "jpgs",
            "jpeg",
            "jpegs",
            "jpegimages",
            "png",
            "pngs",
            "photo",
            "photos",
            "pic",
            "pics",
            "picture",
            "pictures",
            "data",
            "dataset",
            "raw",
        ],
    ),
];

/// Words that change nothing beside those.
const FILLERS: [&str; 10] = ["set", "sets", "seg", "split", "folder", "dir", "part", "full", "small", "new"];

/// Folders that systems leave behind, and those of thumbnails.
const JUNK: [&str; 11] = [
    "__macosx",
    "@eadir",
    "lost+found",
    "$recycle.bin",
    "#recycle",
    "@recycle",
    "system volume information",
    "__pycache__",
    "thumbnails",
    "thumbs",
    "_thumbs",
];

/// What a folder's name says: `training_set` and `Train2017` are to train on, `bullet_train` may be a class.
pub fn role(name: &str) -> Option<Role> {
    let words = words(name);
    let mut words = words.iter().filter(|word| word.len() > 1 && !FILLERS.contains(&&***word)).peekable();
    words.peek()?;
    let roles: Option<Vec<Role>> =
        words.map(|word| WORDS.iter().find(|(_, words)| words.contains(&&**word)).map(|(role, _)| *role)).collect();
    let roles = roles?;
    WORDS.iter().map(|(role, _)| *role).find(|role| roles.contains(role))
}

/// The words of a name, in small letters: what other characters part, and capitals after small letters.
fn words(name: &str) -> Vec<String> {
    let (mut words, mut last) = (vec![String::new()], ' ');
    for c in name.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && last.is_lowercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphabetic()) {
            word.extend(c.to_lowercase());
        }
        last = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a folder is one that systems leave behind.
pub fn is_junk(name: &str) -> bool {
    JUNK.contains(&&*name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_told_from_names_of_classes() {
        for (name, expected) in [
            ("train", Some(Role::Train)),
            ("seg_train", Some(Role::Train)),
            ("Training_Set", Some(Role::Train)),
            ("trainA", Some(Role::Train)),
            ("TrainImages", Some(Role::Train)),
            ("val2017", Some(Role::Val)),
            ("validation_set", Some(Role::Val)),
            ("dev", Some(Role::Val)),
            ("test1", Some(Role::Test)),
            ("seg_pred", Some(Role::Test)),
            ("test_masks", Some(Role::Masks)),
            ("images", Some(Role::Images)),
            ("trimaps", Some(Role::Masks)),
            ("bullet_train", None),
            ("no_mask", None),
            ("seg", None),
            ("invalid", None),
            ("n01440764", None),
            ("2017", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(role(name), expected, "{name}");
        }
        assert!(is_junk("__MACOSX") && is_junk("$RECYCLE.BIN") && !is_junk("cats"));
    }
}
