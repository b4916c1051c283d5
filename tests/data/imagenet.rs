//! The files of ILSVRC 2012 as people have them: packed again, half unpacked, with other files within. Labels belong to
//! the numbers in names, never to places.

use std::fs;
use std::path::Path;

use alexnet_split::data::sources::{self, SourceOptions};
use tempfile::TempDir;

use super::contents;
use super::support::forms::*;
use super::support::prepared::{options, prepared, refused};

const TRAIN: &str = "ILSVRC2012_img_train.tar";
const VAL: &str = "ILSVRC2012_img_val.tar";
const KIT: &str = "ILSVRC2012_devkit_t12.tar.gz";

/// Files by name.
type Files = Vec<(String, Vec<u8>)>;

/// The official files after a change.
fn official(change: impl Fn(&Path)) -> TempDir {
    let folder = TempDir::new().unwrap();
    as_official_files(folder.path());
    change(folder.path());
    folder
}

/// The files of a tar.
fn unpacked(tar: &Path) -> Files {
    use std::io::Read;
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    let file = |entry: std::io::Result<tar::Entry<fs::File>>| {
        let (mut entry, mut bytes) = (entry.unwrap(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    };
    archive.entries().unwrap().map(file).collect()
}

/// Packs a tar again, its files changed.
fn packed(tar: &Path, change: impl Fn(&mut Files)) {
    let mut files = unpacked(tar);
    change(&mut files);
    fs::write(tar, tar_of(&files)).unwrap();
}

/// The class folder of an image to validate with, by the order in which the files are made.
fn folder_of(number: usize) -> &'static str {
    CLASSES[images()[1][number].0]
}

/// The set has the same images with the same labels as the official files.
fn is_the_same(folder: &Path) {
    let plain = official(|_| ());
    let [plain, found] = [plain.path(), folder].map(|path| prepared(path, &options()).unwrap().0);
    assert!(contents(&found) == contents(&plain), "other images or labels");
}

fn notes(folder: &Path) -> Vec<String> {
    sources::open(folder, &SourceOptions::holding_out(0.)).unwrap().notes
}

fn noted(folder: &Path, parts: &[&str]) {
    let notes = notes(folder);
    let told = |note: &String| parts.iter().all(|part| note.contains(part));
    assert!(notes.iter().any(told), "{parts:?} in {notes:?}");
}

#[test]
fn a_val_tar_packed_again_with_class_folders_keeps_its_labels() {
    let folders = official(|folder| {
        packed(&folder.join(VAL), |files| {
            files.iter_mut().enumerate().for_each(|(i, file)| file.0 = format!("val/{}/{}", folder_of(i), file.0));
            files.sort();
            files.reverse();
        });
    });
    is_the_same(folders.path());
    // A folder settles what has no number, and one that says otherwise is not believed.
    let renamed = official(|folder| {
        packed(&folder.join(VAL), |files| files[4].0 = format!("{}/fourth.JPEG", folder_of(4)));
    });
    is_the_same(renamed.path());
    let wrong =
        official(|folder| packed(&folder.join(VAL), |files| files[0].0 = format!("{}/{}", folder_of(1), files[0].0)));
    refused(wrong.path(), &["ILSVRC2012_val_00000001", folder_of(1), folder_of(0), "for its number"]);
}

#[test]
fn missing_images_and_other_files_do_not_move_labels() {
    let lacking = official(|folder| {
        packed(&folder.join(VAL), |files| {
            files.remove(2);
            files.insert(1, ("ILSVRC2012_val_00000001.txt".into(), b"no image".to_vec()));
            files.push(("extra.JPEG".into(), jpeg(&picture(1))));
            files.push(("._ILSVRC2012_val_00000001.JPEG".into(), b"x".to_vec()));
        });
    });
    let plain = official(|_| ());
    let mut expected = contents(&prepared(plain.path(), &options()).unwrap().0)[1].clone();
    let found = contents(&prepared(lacking.path(), &options()).unwrap().0)[1].clone();
    assert_eq!(found.len(), 5);
    expected.retain(|image| found.contains(image));
    assert!(found == expected, "a label moved");
    noted(lacking.path(), &["1 answer of the kit without an image", "number 3"]);
    noted(lacking.path(), &["2 files that are no images not read", "ILSVRC2012_val_00000001.txt"]);
    noted(lacking.path(), &["1 image without the number of an answer", "extra.JPEG"]);

    let rename = |to: &'static str| official(move |folder| packed(&folder.join(VAL), |files| files[5].0 = to.into()));
    refused(rename("ILSVRC2012_val_00000007.JPEG").path(), &["00000007", "answers for 1 to 6"]);
    refused(rename("again/ILSVRC2012_val_00000005.JPEG").path(), &["a second image of number 5"]);
    let nameless = official(|folder| {
        packed(&folder.join(VAL), |files| files.iter_mut().zip(0..).for_each(|(file, i)| file.0 = format!("{i}.JPEG")));
    });
    refused(nameless.path(), &["0.JPEG", "expected names such as ILSVRC2012_val_00000001.JPEG"]);
}

#[test]
fn the_train_tar_may_hold_other_files_and_other_spellings() {
    let odd = official(|folder| {
        packed(&folder.join(TRAIN), |files| {
            files.iter_mut().for_each(|file| file.0 = format!("./x/{}", file.0));
            files.insert(0, ("._n01000001.tar".into(), b"Mac".to_vec()));
            files.push(("README".into(), b"no class".to_vec()));
        });
    });
    is_the_same(odd.path());
    noted(odd.path(), &["1 hidden file not read", "._n01000001.tar"]);
    noted(odd.path(), &["1 file that is no tar of a class not read", "README"]);

    // As it is packed by those who have unpacked it.
    let loose = official(|folder| {
        packed(&folder.join(TRAIN), |files| {
            let classes = std::mem::take(files);
            for (name, bytes) in classes {
                let tar = folder.join("class.tar");
                fs::write(&tar, bytes).unwrap();
                let class = name.trim_end_matches(".tar");
                files.extend(unpacked(&tar).into_iter().map(|(name, bytes)| (format!("{class}/{name}"), bytes)));
            }
        });
    });
    is_the_same(loose.path());

    let twice = |files: &mut Files| files.push((format!("again/{}", files[0].0), files[0].1.clone()));
    refused(official(|folder| packed(&folder.join(TRAIN), twice)).path(), &["n01000003", "is there twice"]);
    let swapped = official(|folder| {
        packed(&folder.join(TRAIN), |files| {
            let first = files[0].0.clone();
            files[0].0 = std::mem::replace(&mut files[1].0, first);
        });
    });
    refused(swapped.path(), &["an image of n0100000", "but in the tar of n0100000"]);
    let empty = official(|folder| packed(&folder.join(TRAIN), |files| files[0].1 = tar_of(&[])));
    refused(empty.path(), &[TRAIN, "n01000003.tar", "a class without images"]);
    let none = official(|folder| packed(&folder.join(TRAIN), |files| *files = vec![("a.txt".into(), Vec::new())]));
    refused(none.path(), &[TRAIN, "expected tars of classes"]);
}

/// Unpacks the tar of tars into a folder.
fn unpack_train(folder: &Path, to: &str) {
    for (name, bytes) in unpacked(&folder.join(TRAIN)) {
        write(folder.join(to).join(name), &bytes);
    }
    fs::remove_file(folder.join(TRAIN)).unwrap();
}

#[test]
fn the_outer_tar_may_be_unpacked() {
    for to in ["train", "", "ILSVRC2012_img_train"] {
        is_the_same(official(|folder| unpack_train(folder, to)).path());
    }
    // And the tar to validate with, flat or into folders.
    for by_class in [false, true] {
        let all = official(|folder| {
            unpack_train(folder, "train");
            for (i, (name, bytes)) in unpacked(&folder.join(VAL)).into_iter().enumerate() {
                write(folder.join("val").join(if by_class { folder_of(i) } else { "" }).join(name), &bytes);
            }
            fs::remove_file(folder.join(VAL)).unwrap();
        });
        is_the_same(all.path());
    }
    // Nothing else is there.
    let alone = official(|folder| {
        unpack_train(folder, "train");
        [VAL, KIT].iter().for_each(|name| fs::remove_file(folder.join(name)).unwrap());
    });
    let found = sources::open(alone.path(), &SourceOptions::holding_out(0.4)).unwrap();
    assert_eq!((found.train.len(), found.val.len(), &found.classes[..]), (6, 3, &CLASSES.map(String::from)[..]));
    noted(alone.path(), &["no ILSVRC2012_devkit_t12.tar.gz is there: classes are called by their WordNet numbers"]);
}

#[test]
fn tars_of_classes_beside_their_folders_are_not_both_read() {
    let unpack_class = |folder: &Path, class: &str| {
        for (name, bytes) in unpacked(&folder.join("train").join(format!("{class}.tar"))) {
            write(folder.join("train").join(class).join(name), &bytes);
        }
    };
    let half = official(|folder| {
        unpack_train(folder, "train");
        unpack_class(folder, CLASSES[1]);
    });
    refused(half.path(), &["n01000002.tar", "is unpacked beside itself, but", "n01000001.tar is not"]);
    let whole = official(|folder| {
        unpack_train(folder, "train");
        CLASSES.iter().for_each(|class| unpack_class(folder, class));
        fs::remove_file(folder.join(VAL)).unwrap();
    });
    let found = sources::open(&whole.path().join("train"), &SourceOptions::holding_out(0.4)).unwrap();
    assert_eq!((found.form, found.train.len() + found.val.len()), ("a folder a class", 9));
}

#[test]
fn the_kit_may_be_gunzipped_or_unpacked_or_not_needed() {
    let gunzipped = |folder: &Path| {
        use std::io::Read;
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(fs::File::open(folder.join(KIT)).unwrap()).read_to_end(&mut bytes).unwrap();
        fs::remove_file(folder.join(KIT)).unwrap();
        bytes
    };
    for name in [KIT, "ILSVRC2012_devkit_t12.tar"] {
        is_the_same(official(|folder| write(folder.join(name), &gunzipped(folder))).path());
    }
    let files = official(|folder| {
        let tar = folder.join("kit.tar");
        fs::write(&tar, gunzipped(folder)).unwrap();
        unpacked(&tar).into_iter().for_each(|(name, bytes)| write(folder.join(name), &bytes));
    });
    is_the_same(files.path());
    let without = |by_class: bool| {
        official(move |folder| {
            fs::remove_file(folder.join(KIT)).unwrap();
            packed(&folder.join(VAL), |files| {
                let in_folder =
                    |(i, file): (usize, &mut (String, Vec<u8>))| file.0 = format!("{}/{}", folder_of(i), file.0);
                files.iter_mut().enumerate().filter(|_| by_class).for_each(in_folder);
            });
        })
    };
    is_the_same(without(true).path());
    refused(without(false).path(), &[KIT, "ILSVRC2012_val_00000001.JPEG", "fetch it too"]);
    refused(official(|folder| fs::remove_file(folder.join(VAL)).unwrap()).path(), &[TRAIN, VAL, "fetch it too"]);
}

#[test]
fn the_train_tar_and_the_val_tar_may_be_gzipped() {
    let gzipped = official(|folder| {
        for name in [TRAIN, VAL] {
            let path = folder.join(name);
            fs::write(&path, gzip(&fs::read(&path).unwrap())).unwrap();
        }
    });
    is_the_same(gzipped.path());
    let within = official(|folder| packed(&folder.join(TRAIN), |files| files[0].1 = gzip(&files[0].1)));
    refused(within.path(), &[TRAIN, "n01000003.tar", "gzip"]);
}
