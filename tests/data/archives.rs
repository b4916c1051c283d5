//! Tars as people have them: with links and holes, one behind another, gzipped, numbered with gaps, with labels in words.

use std::fs;
use std::path::Path;

use alexnet_split::data::DataSet;
use alexnet_split::data::sources::{self, SourceOptions, Sources};
use tempfile::TempDir;

use super::support::forms::*;
use super::support::prepared::{options, prepared, refused};

/// Files by name.
type Files = Vec<(String, Vec<u8>)>;

/// A file by its name.
fn file(name: &str, bytes: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), bytes.to_vec())
}

/// A sample: its image and a label in `label`.
fn sample(key: &str, ending: &str, label: &str) -> Files {
    let number = key.bytes().map(u32::from).sum();
    vec![file(&format!("{key}.jpg"), &jpeg(&picture(number))), file(&format!("{key}.{ending}"), label.as_bytes())]
}

/// Samples of two classes.
fn samples(first: &str) -> Files {
    [sample(&format!("{first}0"), "cls", "0"), sample(&format!("{first}1"), "cls", "1")].concat()
}

/// A folder of files.
fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    files.iter().for_each(|(name, bytes)| write(folder.path().join(name), bytes));
    folder
}

/// A set of one tar to train on and one to hold out.
fn set(train: &[u8]) -> TempDir {
    folder(&[("train-0.tar", train.to_vec()), ("val-0.tar", tar_of(&samples("v")))])
}

fn open(path: &Path) -> Sources {
    sources::open(path, &SourceOptions::holding_out(0.)).unwrap_or_else(|error| panic!("{error}"))
}

/// Classes and bytes of the images to train on.
fn train(path: &Path) -> Vec<(u32, Vec<u8>)> {
    let found = open(path);
    let images = std::sync::Mutex::new(vec![Vec::new(); found.train.len()]);
    found.train.read(0..found.train.len(), &|at, picture| {
        let sources::Picture::File(bytes) = picture.unwrap() else { panic!("no file") };
        images.lock().unwrap()[at] = bytes;
    });
    let images = images.into_inner().unwrap();
    images.into_iter().enumerate().map(|(at, bytes)| (found.train.item(at).class, bytes)).collect()
}

/// A note has all of `parts`.
fn noted(path: &Path, parts: &[&str]) {
    let notes = open(path).notes;
    assert!(notes.iter().any(|note| parts.iter().all(|part| note.contains(part))), "{parts:?} in {notes:?}");
}

/// Adds a link to a tar.
fn link(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, to: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    tar.append_link(&mut header, name, to).unwrap();
}

/// A tar of files and links.
fn tar_with_links(files: &Files, links: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    // Links may come before what they point to.
    let (early, late) = links.split_at(links.len() / 2);
    early.iter().for_each(|(kind, name, to)| link(&mut tar, *kind, name, to));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    late.iter().for_each(|(kind, name, to)| link(&mut tar, *kind, name, to));
    tar.into_inner().unwrap()
}

#[test]
fn links_within_a_tar_are_what_they_point_to() {
    use tar::EntryType::{Link, Symlink};
    let files: Files = samples("a").into_iter().map(|(name, bytes)| (format!("x/{name}"), bytes)).collect();
    let links = [
        (Symlink, "x/2.jpg", "a0.jpg"),
        (Link, "x/2.cls", "x/a1.cls"),
        (Symlink, "y/z/3.jpg", "../../x/2.jpg"),
        (Link, "y/z/3.cls", "x/2.cls"),
    ];
    let linked = set(&tar_with_links(&files, &links));
    let mut found = train(linked.path());
    found.sort();
    let (first, second) = (files[0].1.clone(), files[2].1.clone());
    let mut expected = vec![(0, first.clone()), (1, second), (1, first.clone()), (1, first)];
    expected.sort();
    assert!(found == expected, "a link was not followed");

    // What points to nothing is told where it is no sample, and else refused.
    let readme = set(&tar_with_links(&samples("a"), &[(Symlink, "README", "../elsewhere")]));
    noted(readme.path(), &["1 file that is no sample not read", "README"]);
    for (kind, name, to) in [(Link, "a2.jpg", "b.jpg"), (Symlink, "a2.jpg", "../c.jpg"), (Symlink, "a2.jpg", "a2.jpg")]
    {
        let label = [samples("a"), vec![file("a2.cls", b"1")]].concat();
        refused(
            set(&tar_with_links(&label, &[(kind, name, to)])).path(),
            &["a2.jpg", "is a link to", "not in this tar"],
        );
    }
}

#[test]
fn tars_behind_one_another_are_all_read() {
    let other = |class: &str| tar_of(&[sample("a0", "cls", class), sample("a3", "cls", "1")].concat());
    let concatenated = set(&[tar_of(&samples("a")), vec![0; 9216], other("1")].concat());
    // Two samples of one key in two tars are two samples.
    let classes: Vec<u32> = train(concatenated.path()).into_iter().map(|image| image.0).collect();
    assert_eq!(classes, [0, 1, 1, 1]);
    let junk = set(&[tar_of(&samples("a")), b"no tar".repeat(200)].concat());
    assert_eq!(train(junk.path()).len(), 2);
    noted(junk.path(), &["1 tar with bytes behind the end that are no tar", "train-0.tar"]);
    let whole = [tar_of(&samples("a")), other("1")].concat();
    refused(
        set(&whole[..whole.len() - 2 * 512]).path(),
        &["train-0.tar", "truncated tar: it has no end after 8 files"],
    );
    // A download that was interrupted, into a file that had its length from the beginning.
    let zeros = set(&[tar_of(&samples("a")), vec![0; 5 << 20]].concat());
    noted(zeros.path(), &["zeros behind the end", "train-0.tar"]);
}

#[test]
fn sparse_files_are_refused_by_name() {
    let mut gnu = tar::Builder::new(Vec::new());
    let bytes = jpeg(&picture(1));
    let mut header = tar::Header::new_gnu();
    header.set_path("a0.jpg").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(512);
    let fields = header.as_gnu_mut().unwrap();
    fields.set_real_size(9216);
    fields.sparse[0].set_offset(0);
    fields.sparse[0].set_length(512);
    fields.sparse[1].set_offset(9216);
    fields.sparse[1].set_length(0);
    header.set_cksum();
    gnu.append(&header, &[1; 512][..]).unwrap();
    let mut pax = tar::Builder::new(Vec::new());
    pax.append_pax_extensions([("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.name", b"a0.jpg")]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    pax.append_data(&mut header, "GNUSparseFile.0/a0.jpg", &bytes[..]).unwrap();
    for tar in [gnu.into_inner().unwrap(), pax.into_inner().unwrap()] {
        refused(set(&tar).path(), &["train-0.tar", "a0.jpg", "sparse file (tar -S)", "pack it again without -S"]);
        let official = TempDir::new().unwrap();
        as_official_files(official.path());
        fs::write(official.path().join("ILSVRC2012_img_train.tar"), &tar).unwrap();
        refused(official.path(), &["ILSVRC2012_img_train.tar", "a0.jpg", "sparse file"]);
    }
}

#[test]
fn class_names_are_read_as_any_editor_saves_them() {
    let with = |names: &[u8]| {
        let tars = set(&tar_of(&samples("a")));
        write(tars.path().join("classes.txt"), names);
        let idx = TempDir::new().unwrap();
        as_idx(idx.path(), 4);
        write(idx.path().join("classes.txt"), &[names, b"three\nfour\n"].concat());
        (tars, idx)
    };
    for names in [&b"\xef\xbb\xbfcat\r\ndog\r\n"[..], b"cat\ndog\n", b"\xef\xbb\xbfcat\rdog\r", b" cat \n\tdog\n"] {
        let (tars, idx) = with(names);
        assert_eq!(open(tars.path()).classes, ["cat", "dog"]);
        assert_eq!(DataSet::load(idx.path()).unwrap().classes, ["cat", "dog", "three", "four"]);
    }
    for (names, problem) in [
        (&b"cat\n\ndog\n"[..], "line 2 is empty"),
        (b"\xff\xfec\0a\0t\0", "is not UTF-8"),
        (b"caf\xe9\nx", "save it as UTF-8"),
    ] {
        let (tars, idx) = with(names);
        refused(tars.path(), &["classes.txt", problem]);
        refused(idx.path(), &["classes.txt", problem]);
    }
}

#[test]
fn gzipped_tars_are_read_under_any_name() {
    let plain = set(&tar_of(&samples("a")));
    let expected = train(plain.path());
    for name in ["train-0.tar", "train-0.tar.gz", "train-0.tgz"] {
        let gzipped = folder(&[(name, gzip(&tar_of(&samples("a")))), ("val-0.tar.gz", gzip(&tar_of(&samples("v"))))]);
        assert!(train(gzipped.path()) == expected, "{name}");
        assert_eq!(prepared(gzipped.path(), &options()).unwrap().0.held_out.len(), 2);
    }
    let whole = gzip(&tar_of(&samples("a")));
    refused(set(&whole[..whole.len() / 2]).path(), &["train-0.tar", "damaged or truncated gzip", "fetch it again"]);
    // Both of a kind are read once.
    let both = set(&tar_of(&samples("a")));
    write(both.path().join("train-0.tar.gz"), &whole);
    assert!(train(both.path()) == expected);
    noted(both.path(), &["1 shard that is there twice", "train-0.tar.gz"]);
    // What a folder of classes came in is no set.
    let beside = folder(&[("pets.tgz", b"whatever".to_vec())]);
    for name in ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"] {
        write(beside.path().join("pets").join(name), &jpeg(&picture(1)));
        write(beside.path().join(name), &jpeg(&picture(1)));
    }
    assert_ne!(open(beside.path()).form, "WebDataset tars");
}

#[test]
fn labels_are_numbers_or_names_that_are_known() {
    let labelled = |ending: &str, labels: [&str; 2], names: &str| {
        let set = set(&tar_of(&[sample("a", ending, labels[0]), sample("b", ending, labels[1])].concat()));
        if !names.is_empty() {
            write(set.path().join("classes.txt"), names.as_bytes());
        }
        set
    };
    for (ending, labels, names) in [
        ("json", [r#"{"label": "1"}"#, r#"{"label": "0"}"#], ""),
        ("json", [r#"{"label": 1.0}"#, r#"{"cls": "0.0"}"#], ""),
        ("json", ["\u{feff}{\"label\": \"dog\"}", r#"{"class": " cat"}"#], "cat\ndog"),
        ("json", [r#"{"label": "a dog", "cls": 1}"#, "0"], ""),
        ("cls", ["dog", "cat\r\n"], "cat\ndog"),
        ("cls", ["1.0", "\u{feff}0"], ""),
        ("cls", ["1", "0"], "0\n1"),
    ] {
        let classes: Vec<u32> =
            train(labelled(ending, labels, names).path()).into_iter().map(|image| image.0).collect();
        assert_eq!(classes, [1, 0], "{labels:?}");
    }
    for (ending, label, names, parts) in [
        ("json", r#"{"label": 1.5}"#, "", ["an image without a class", "\"1.5\""]),
        ("json", "{", "", ["an image without a class", "the .json is damaged"]),
        ("json", r#"{"caption": "x"}"#, "", ["an image without a class", "found .jpg, .json"]),
        ("json", r#"{"label": "dog"}"#, "", ["\"dog\" is not the number", "classes.txt"]),
        ("cls", "dog", "", ["\"dog\" is not the number", "classes.txt"]),
        ("cls", "cow", "cat\ndog", ["\"cow\"", "nor one of the 2 class names"]),
        ("cls", "1", "1\n2", ["class 1 by its number and class 0 by its name", "are no numbers"]),
        ("cls", "2", "cat\ndog", ["names 2 classes", "a label 2"]),
        ("cls", "crane", "crane\ncrane", ["\"crane\"", "the name of several classes"]),
        ("cls", "4000000000", "", ["a label 4000000000", "expected the number of a class"]),
    ] {
        refused(labelled(ending, [label, if names == "1\n2" { "1" } else { "0" }], names).path(), &parts);
    }
    // What says that it has no class is left out, as in tables and files of labels.
    let samples = [("a", "cls", "-1"), ("b", "cls", "0"), ("c", "json", r#"{"label": -1.0}"#), ("d", "cls", "1")];
    let some = set(&tar_of(&samples.map(|(key, ending, label)| sample(key, ending, label)).concat()));
    assert_eq!(train(some.path()).len(), 2);
    noted(some.path(), &["2 samples without a label (-1) not read", "a.jpg"]);
    let both = [sample("a", "cls", "1"), vec![file("a.json", br#"{"label": 0}"#)], sample("b", "cls", "0")].concat();
    refused(set(&tar_of(&both)).path(), &["a.json", "class 0", "tells another"]);
}

#[test]
fn keys_with_dots_are_refused_with_what_they_become() {
    let dotted = [sample("n0144.000", "cls", "0"), sample("n0144.001", "cls", "1")].concat();
    refused(set(&tar_of(&dotted)).path(), &["/n0144", "4 files in one sample", "n0144.000.jpg has the key n0144"]);
    refused(set(&tar_of(&dotted[..2])).path(), &["2 files in one sample", "n0144_000.jpg"]);
    // Also where there is a sample of that key.
    let mixed = [samples("a"), sample("a0.b", "json", r#"{"label": 1}"#)].concat();
    refused(set(&tar_of(&mixed)).path(), &["/a0", "a0.b.jpg has the key a0"]);
    // Dots in folders are none in keys, and an image with more in its ending is a mask.
    let masked = [sample("v1.0/a0", "cls", "0"), sample("v1.0/a1", "cls", "1"), vec![file("v1.0/a0.seg.png", b"x")]];
    let masked = set(&tar_of(&masked.concat()));
    assert_eq!(train(masked.path()).len(), 2);
    noted(masked.path(), &["1 image beside those of the samples not read", "a0.seg.png"]);
    let tif = [samples("a"), vec![file("a2.xyz", b"x"), file("a2.cls", b"1")]].concat();
    refused(set(&tar_of(&tif)).path(), &["/a2", "a sample without an image, found .xyz, .cls"]);
}

#[test]
fn what_is_no_tar_is_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n".to_vec();
    for (bytes, parts) in [
        (pointer, ["is not a tar, but a Git LFS pointer", "git lfs pull"]),
        (b"<!DOCTYPE html><html><body>404".to_vec(), ["HTML", "download"]),
        ([&b"PK\x03\x04"[..], &[0; 600]].concat(), ["is not a tar, but a zip archive", "unpack it"]),
        ([&b"\x28\xb5\x2f\xfd"[..], &[7; 600]].concat(), ["is not a tar, but a zstd file", "unpack it"]),
        (vec![7; 2000], ["damaged or truncated tar", "fetch it again"]),
        (Vec::new(), ["is empty (0 bytes)", "fetch it again"]),
        (vec![0; 10240], ["no samples in it", "1 tar without a file in it"]),
    ] {
        refused(set(&bytes).path(), &["train-0.tar", parts[0], parts[1]]);
        let official = TempDir::new().unwrap();
        as_official_files(official.path());
        for name in ["ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz"] {
            let whole = fs::read(official.path().join(name)).unwrap();
            fs::write(official.path().join(name), &bytes).unwrap();
            refused(official.path(), &[name, if bytes.ends_with(b"\0\0") { "" } else { parts[0] }]);
            fs::write(official.path().join(name), whole).unwrap();
        }
    }
    // A compressed tar whose ending tells so is opened, and named by its bytes.
    let zstd = folder(&[("train-0.tar.zst", [&b"\x28\xb5\x2f\xfd"[..], &[7; 600]].concat())]);
    refused(zstd.path(), &["train-0.tar.zst", "a zstd file"]);
}
