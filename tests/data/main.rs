//! Data sets: every form that people have them in gives the same images, and nothing damaged passes unseen.

mod advice;
mod archives;
mod beside;
mod columns;
mod doubts;
mod encrypted;
mod hostile;
mod imagenet;
mod jpeg;
mod layouts;
mod listed;
mod output;
mod parts;
mod pictures;
mod shard_files;
mod silent;
mod small;
#[path = "../support/mod.rs"]
mod support;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use alexnet_split::data::DataSet;
use alexnet_split::data::prepare::{Observer, Options, prepare};
use alexnet_split::data::shards::Store;
use alexnet_split::data::sources::{self, SourceOptions};
use alexnet_split::error::Error;
use support::forms::*;
use support::place::{Place, TINY, checkpoint, failed, succeeded};
use support::prepared::{Quiet, options, prepared, refused};
use tempfile::TempDir;

type Contents = [Vec<(u32, Vec<u8>)>; 2];

fn contents(data: &DataSet) -> Contents {
    [&data.train, &data.held_out].map(|set| {
        let mut images: Vec<_> = (0..set.len()).map(|i| (set.labels[i], set.image(i).unwrap().into_owned())).collect();
        images.sort();
        images
    })
}

#[test]
fn every_form_gives_the_same_images() {
    let folder = TempDir::new().unwrap();
    let mut first: Option<(Contents, Vec<f32>)> = None;
    type Make = fn(&Path);
    let forms: [(&str, Make, &str); 4] = [
        ("folders", as_folders, "train and val with a folder a class"),
        ("webdataset", as_webdataset, "WebDataset tars"),
        ("official", as_official_files, "the official files of ILSVRC 2012"),
        ("parquet", as_parquet, "Hugging Face parquet shards"),
    ];
    for (name, make, form) in forms {
        let path = folder.path().join(name);
        make(&path);
        let (data, description) = prepared(&path, &options()).unwrap();
        assert_eq!(description.form, form);
        assert_eq!(data.classes, if name == "official" { NAMES } else { CLASSES }, "{name}");
        let found = contents(&data);
        assert_eq!(found.each_ref().map(Vec::len), [9, 6], "{name}");
        let found = (found, data.prepared.unwrap().0);
        let expected = first.get_or_insert_with(|| found.clone());
        assert!(found == *expected, "{name} gives other images than folders");
    }
    // What was prepared is of a form that can be prepared.
    let out = folder.path().join("out");
    let path = folder.path().join("folders");
    let source = sources::open(&path, &SourceOptions::holding_out(0.)).unwrap();
    prepare(&path, &source, &out, &options(), &Quiet).unwrap();
    let (again, _) = prepared(&out, &options()).unwrap();
    assert!(contents(&again) == first.unwrap().0, "prepared twice");
    assert_eq!(again.classes, CLASSES);
}

#[test]
fn small_sets_are_the_same_prepared_and_as_they_are() {
    let folder = TempDir::new().unwrap();
    as_idx(&folder.path().join("idx"), 7);
    for (form, names) in [(1, "batches.meta.txt"), (2, "fine_label_names.txt")] {
        let path = folder.path().join(format!("cifar{form}"));
        let record = |i: u32| {
            let labels =
                vec![(i % 3) as u8; form].into_iter().enumerate().map(|(at, v)| if at + 1 < form { 9 } else { v });
            labels.chain((0..3072).map(move |at| (at * 3 + i * 50) as u8)).collect::<Vec<u8>>()
        };
        let train: Vec<u8> = (0..10).flat_map(record).collect();
        match form {
            1 => train.chunks(2 * 3073).enumerate().for_each(|(i, part)| {
                write(path.join(format!("data_batch_{}.bin", i + 1)), part);
            }),
            _ => write(path.join("train.bin"), &train),
        }
        write(path.join(if form == 1 { "test_batch.bin" } else { "test.bin" }), &record(4));
        write(path.join(names), CLASSES.join("\n").as_bytes());
    }
    for (name, size, channels) in [("idx", 10, 1), ("cifar1", 32, 3), ("cifar2", 32, 3)] {
        let path = folder.path().join(name);
        let direct = DataSet::load(&path).unwrap();
        let (stored, _) = prepared(&path, &Options { size, ..options() }).unwrap();
        assert_eq!((&direct.classes, direct.train.channels), (&stored.classes, channels));
        let coloured = |images: Vec<(u32, Vec<u8>)>| -> Vec<(u32, Vec<u8>)> {
            images.into_iter().map(|(class, pixels)| (class, pixels.repeat(3 / channels))).collect()
        };
        assert!(contents(&direct).map(coloured) == contents(&stored), "{name}");
    }
    let truncated = folder.path().join("cifar2/train.bin");
    fs::write(&truncated, &fs::read(&truncated).unwrap()[1..]).unwrap();
    refused(&folder.path().join("cifar2"), &["train.bin", "no whole number of images"]);
}

/// All files of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().to_string_lossy().into(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn an_interrupted_preparation_goes_on_to_the_same_bytes() {
    /// Ends the preparation in the middle of a shard.
    struct Dies(usize);
    impl Observer for Dies {
        fn prepared(&self, done: usize, _: usize) {
            assert!(done != self.0, "killed");
        }
    }
    let folder = TempDir::new().unwrap();
    let source = folder.path().join("idx");
    as_idx(&source, 2600);
    let found = sources::open(&source, &SourceOptions::holding_out(0.)).unwrap();
    let options = Options { size: 8, store: Store::Jpeg, ..options() };
    let [whole, cut] = ["whole", "cut"].map(|name| folder.path().join(name));
    prepare(&source, &found, &whole, &options, &Quiet).unwrap();
    assert_eq!(DataSet::load(&whole).unwrap().train.len(), 2600);
    for at in [1, 1024, 1500, 2602] {
        let run = || prepare(&source, &found, &cut, &options, &Dies(at));
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        assert!(died.is_err(), "at {at}");
        let error = DataSet::load(&cut).unwrap_err().to_string();
        assert!(error.contains("cut"), "{error}");
    }
    let other = Options { quality: 50, ..options.clone() };
    let error = prepare(&source, &found, &cut, &other, &Quiet).unwrap_err().to_string();
    assert!(error.contains("go on with the same") && error.contains("--store jpeg"), "{error}");
    // As many images, and other classes.
    let mut changed = sources::open(&source, &SourceOptions::holding_out(0.)).unwrap();
    changed.classes.swap(0, 1);
    let error = prepare(&source, &changed, &cut, &options, &Quiet).unwrap_err().to_string();
    assert!(error.contains("were others"), "{error}");
    // What may be skipped can be said later; what is done counts from the beginning.
    let more = Options { max_bad_images: 7, ..options };
    struct First(Mutex<Option<usize>>);
    impl Observer for First {
        fn prepared(&self, done: usize, _: usize) {
            self.0.lock().unwrap().get_or_insert(done);
        }
    }
    let first = First(Mutex::default());
    prepare(&source, &found, &cut, &more, &first).unwrap();
    assert_eq!(first.0.into_inner().unwrap(), Some(2600));
    assert!(files(&cut) == files(&whole));
    let error = prepare(&source, &found, &cut, &options, &Quiet).unwrap_err().to_string();
    assert!(error.contains("already"), "{error}");
}

#[test]
fn odd_folders_are_named_or_noted() {
    use std::os::unix::ffi::OsStrExt;
    let with = |change: &dyn Fn(&Path)| {
        let folder = TempDir::new().unwrap();
        as_folders(folder.path());
        change(folder.path());
        folder
    };
    let hidden = with(&|folder| {
        write(folder.join("train/.ipynb_checkpoints/a.jpg"), b"no class");
        write(folder.join("train/n01000001/.DS_Store"), b"no image");
        write(folder.join("train/n01000001/readme.txt"), b"no image");
    });
    let found = sources::open(hidden.path(), &SourceOptions::holding_out(0.1)).unwrap();
    assert_eq!((found.train.len(), found.notes.len()), (9, 2), "{:?}", found.notes);
    assert!(found.notes[0].contains("2 hidden") && found.notes[1].contains("readme.txt"), "{:?}", found.notes);

    let link =
        |folder: &Path| std::os::unix::fs::symlink(folder.join("train"), folder.join("train/n01000001/loop")).unwrap();
    refused(with(&link).path(), &["loop", "a link to a folder above it"]);
    let dangling = |folder: &Path| std::os::unix::fs::symlink("nowhere", folder.join("train/n01000001/x.jpg")).unwrap();
    refused(with(&dangling).path(), &["x.jpg"]);
    refused(
        with(&|folder| fs::create_dir(folder.join("train/n01000004")).unwrap()).path(),
        &["n01000004", "without images"],
    );
    let strange = |folder: &Path| write(folder.join("val/n01000009/a.jpg"), b"");
    refused(with(&strange).path(), &["n01000009", "not among the 3 classes"]);
    refused(
        with(&|folder| fs::remove_dir_all(folder.join("val/n01000002")).unwrap()).path(),
        &["n01000002", "no folder here"],
    );
    refused(&TempDir::new().unwrap().path().join("nothing"), &["nothing", "no such file or folder"]);
    refused(TempDir::new().unwrap().path(), &["no folders of classes", "prepare --help"]);

    // Names that are no UTF-8 are names like others, unless two look the same.
    let odd = |byte: u8| [&b"odd"[..], &[byte]].concat();
    let class = |folder: &Path, byte: u8| folder.join(std::ffi::OsStr::from_bytes(&odd(byte)));
    let one = TempDir::new().unwrap();
    for name in ["1.jpg", "2.jpg"] {
        write(class(one.path(), 0xff).join(name), &jpeg(&picture(1)));
        write(one.path().join("usual").join(name), &jpeg(&picture(1)));
    }
    assert_eq!(prepared(one.path(), &options()).unwrap().0.classes, ["odd\u{fffd}", "usual"]);
    write(class(one.path(), 0xfe).join("3.jpg"), &jpeg(&picture(1)));
    refused(one.path(), &["a second class called"]);
}

/// Root may read everything, so the program runs as nobody.
#[test]
fn unreadable_files_and_folders_are_named() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let place = Place::new();
    as_folders(&place.path("photos"));
    let mode = |path: &str, mode| fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode)).unwrap();
    mode(".", 0o777);
    let file = "photos/train/n01000001/deeper/0.PNG";
    for (unreadable, usual) in [(file, 0o644), ("photos/train/n01000002/deeper", 0o755)] {
        mode(unreadable, 0o000);
        let mut command = place.command(&["prepare", "photos", "out"]);
        if std::process::Command::new("id").arg("-u").output().unwrap().stdout == b"0\n" {
            command.uid(65534).gid(65534);
        }
        match command.output() {
            Ok(output) => failed(output, 1, &[unreadable, "ermission denied"]),
            Err(error) => eprintln!("skipped: nobody cannot run the program ({error})"),
        }
        mode(unreadable, usual);
    }
}

#[test]
fn a_set_in_one_piece_is_split_by_class_and_always_the_same() {
    let folder = TempDir::new().unwrap();
    as_folders(folder.path());
    let split = |fraction| {
        let found = sources::open(&folder.path().join("train"), &SourceOptions::holding_out(fraction)).unwrap();
        let names = |part: &sources::Part| (0..part.len()).map(|i| part.item(i).clone()).collect::<Vec<_>>();
        (names(&found.train), names(&found.val))
    };
    let (train, val) = split(0.4);
    assert_eq!((train.len(), val.len()), (6, 3));
    assert!((0..3).all(|class| val.iter().filter(|item| item.class == class).count() == 1));
    assert!(train.iter().all(|item| !val.contains(item)));
    assert_eq!(split(0.4), (train, val));
}

#[test]
fn damaged_shards_are_noticed() {
    let folder = TempDir::new().unwrap();
    let [source, out] = ["source", "out"].map(|name| folder.path().join(name));
    as_folders(&source);
    let found = sources::open(&source, &SourceOptions::holding_out(0.1)).unwrap();
    prepare(&source, &found, &out, &Options { store: Store::Jpeg, ..options() }, &Quiet).unwrap();
    let tar = out.join("train-000000.tar");
    let whole = fs::read(&tar).unwrap();
    let says = |parts: &[&str], error: Error| {
        let text = error.to_string();
        parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in: {text}"));
    };
    fs::write(&tar, &whole[..whole.len() - 512]).unwrap();
    says(&["train-000000.tar", "bytes, expected"], DataSet::load(&out).unwrap_err());
    let mut flipped = whole.clone();
    flipped[700] ^= 1;
    fs::write(&tar, &flipped).unwrap();
    let data = DataSet::load(&out).unwrap();
    says(&["train-000000.tar", "byte 512", "its bytes have changed"], data.train.image(0).unwrap_err());
    data.train.image(1).unwrap();
    fs::write(&tar, &whole).unwrap();
    for (file, bytes, problem) in [
        ("train-000000.tsv", &b"0\t0\t512\t99999999\t00000000\tx\n"[..], "line 1"),
        ("train-000000.tsv", b"", "0 images, expected 9"),
        ("mean.safetensors", b"", "mean.safetensors"),
        ("dataset.json", b"{}", "not the description"),
    ] {
        let before = fs::read(out.join(file)).unwrap();
        fs::write(out.join(file), bytes).unwrap();
        says(&[file, problem], DataSet::load(&out).unwrap_err());
        fs::write(out.join(file), before).unwrap();
    }
    // What still can be read is not believed: the class of an image, a bit of the mean.
    for (file, change) in [
        ("train-000000.tsv", (|bytes| bytes[2] = b'1') as fn(&mut Vec<u8>)),
        ("mean.safetensors", { |bytes| *bytes.last_mut().unwrap() ^= 1 }),
    ] {
        let before = fs::read(out.join(file)).unwrap();
        let mut bytes = before.clone();
        change(&mut bytes);
        assert_ne!(bytes, before);
        fs::write(out.join(file), bytes).unwrap();
        says(&[file, "its bytes have changed"], DataSet::load(&out).unwrap_err());
        fs::write(out.join(file), before).unwrap();
    }
    DataSet::load(&out).unwrap();
}

/// Prepares, trains, goes on, evaluates and predicts as a user would.
#[test]
fn a_prepared_set_trains_the_same_for_any_threads_and_resumed() {
    let place = Place::new();
    as_folders(&place.path("photos"));
    let text = place.ok(&["prepare", "photos", "prepared", "--size", "80", "--store", "raw"]);
    assert!(text.contains("9 to train on, 6 held out, 3 classes") && text.contains("--data prepared"), "{text}");
    let train = |out: &str, args: &[&str]| {
        let tiny =
            [&TINY[..8], &["--batch-size", "4", "--set", "input.resize=80", "--set", "input.crop=random"]].concat();
        let input = ["--set", "input.flip=true", "--set", "input.colour_noise=0.1", "--epochs", "2"];
        succeeded(place.run(&[&tiny[..], &input, &["--gpus", "0", "--data", "prepared", "--out", out], args].concat()));
    };
    train("one", &["--threads", "1"]);
    train("three", &["--threads", "3"]);
    assert!(checkpoint(&place.path("one")) == checkpoint(&place.path("three")), "threads change the images");
    train("cut", &["--steps", "2"]);
    place.ok(&["--resume", "cut", "--gpus", "0", "--epochs", "2"]);
    assert!(checkpoint(&place.path("one")) == checkpoint(&place.path("cut")), "resuming changes the images");
    train("fixed", &["--set", "train.order=fixed"]);
    assert!(checkpoint(&place.path("one")) != checkpoint(&place.path("fixed")));
    assert!(place.ok(&["eval", "one", "--gpus", "0"]).contains("6 held-out images"));
    assert!(place.ok(&["eval", "one", "--gpus", "0", "--views", "10"]).contains("6 held-out images"));

    // A file gives what the same image gives among the held-out ones.
    let top = |image: &str| -> serde_json::Value {
        let line = place.ok(&["predict", "one", "--gpus", "0", "--json", image]);
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["top"].clone()
    };
    let file =
        fs::read_dir(place.path("photos/val/n01000001/deeper")).unwrap().map(|entry| entry.unwrap().path()).min();
    assert_eq!(top(file.unwrap().to_str().unwrap()), top("0"));
    place.fails(&["predict", "one", "--gpus", "0", "photos"], 1, &["photos"]);
    place.fails(&["predict", "one", "--gpus", "0", "prepared/dataset.json"], 3, &["dataset.json", "expected an image"]);
    place.fails(&["predict", "one", "--gpus", "0", "6"], 3, &["no image 6", "0 to 5"]);

    // One byte of a shard flips: the run ends and says where.
    let shard = place.path("prepared/train-000000.tar");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[2000] ^= 1;
    fs::write(&shard, bytes).unwrap();
    place.fails(
        &["--resume", "cut", "--gpus", "0", "--epochs", "4"],
        3,
        &["train-000000.tar", "its bytes have changed"],
    );
    // And the disk fills up while a set is prepared: the limit on files' sizes stands for it.
    let limited = "ulimit -f 40; trap '' XFSZ; exec \"$0\" prepare photos limited --size 80 --store raw";
    let mut command = std::process::Command::new("bash");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_alexnet-split")]).current_dir(place.path("."));
    failed(command.output().unwrap(), 1, &["cannot write", "train-000000.tar"]);
    assert!(!place.path("limited/train-000000.tar").exists() && !place.path("limited/train-000000.tar.tmp").exists());
    place.ok(&["prepare", "photos", "limited", "--size", "80", "--store", "raw"]);
}
