//! Small sets that are read whole, IDX and CIFAR, under the names that people have them by.

use std::fs;
use std::io::Write;
use std::path::Path;

use alexnet_split::data::DataSet;
use alexnet_split::data::sources::{self, SourceOptions};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::support::forms::{as_idx, write};

fn be(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Renames the files of a set.
fn rename(folder: &Path, change: impl Fn(&str) -> String) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let to = folder.join(change(&entry.file_name().to_string_lossy()));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(entry.path(), to).unwrap();
    }
}

/// Classes and images of a set; `prepare` finds the same as `--data`.
fn read(folder: &Path, form: &str) -> [Vec<(u32, Vec<u8>)>; 2] {
    let data = DataSet::load(folder).unwrap();
    let found = sources::open(folder, &SourceOptions::holding_out(0.)).unwrap();
    assert_eq!((found.form, found.train.len(), &found.classes), (form, data.train.len(), &data.classes));
    [&data.train, &data.held_out]
        .map(|set| (0..set.len()).map(|image| (set.labels[image], set.image(image).unwrap().into_owned())).collect())
}

fn refused(folder: &Path, parts: &[&str]) {
    for error in [
        DataSet::load(folder).unwrap_err(),
        sources::open(folder, &SourceOptions::holding_out(0.)).map(|_| ()).unwrap_err().into(),
    ] {
        parts.iter().for_each(|part| assert!(error.to_string().contains(part), "no {part:?} in: {error}"));
    }
}

#[test]
fn names_of_idx_files_vary() {
    let folder = TempDir::new().unwrap();
    let new = |name: &str| {
        let folder = folder.path().join(name);
        as_idx(&folder, 7);
        folder
    };
    let expected = read(&new("plain"), "IDX");
    assert_eq!(expected.each_ref().map(Vec::len), [7, 5]);
    let same = |name: &str, change: &dyn Fn(&Path)| {
        let path = new(name);
        change(&path);
        assert!(read(&path, "IDX") == expected, "{name}");
    };
    let change_bytes = |path: &Path, change: &dyn Fn(&[u8]) -> Vec<u8>| {
        for entry in fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()) {
            fs::write(&entry, change(&fs::read(&entry).unwrap())).unwrap();
        }
    };
    same("gzip without its ending", &|path| change_bytes(path, &gzip));
    same("plain with .gz", &|path| rename(path, |name| format!("{name}.gz")));
    same("dots", &|path| rename(path, |name| name.replace("-idx", ".idx")));
    same("test", &|path| rename(path, |name| name.replace("t10k", "test")));
    same("prefix", &|path| rename(path, |name| format!("kmnist-{name}")));
    same("raw", &|path| rename(path, |name| format!("raw/{name}")));
    same("torchvision", &|path| rename(path, |name| format!("FashionMNIST/raw/{name}")));
    same("kaggle", &|path| {
        rename(path, |name| format!("{name}.file"));
        rename(path, |name| format!("{0}/{0}", name.replace(".file", "")));
    });
    let two = new("two");
    rename(&two, |name| format!("MNIST/raw/{name}"));
    as_idx(&two.join("FashionMNIST/raw"), 3);
    refused(&two, &["several sets", "FashionMNIST/raw/train-", "MNIST/raw/train-", "give the folder of one"]);
    assert!(read(&two.join("MNIST"), "IDX") == expected);

    let half = new("half");
    fs::remove_file(half.join("t10k-labels-idx1-ubyte")).unwrap();
    refused(&half, &["t10k-labels-idx1-ubyte", "no such file", "t10k- or test-"]);
    let swapped = new("swapped");
    fs::copy(swapped.join("train-labels-idx1-ubyte"), swapped.join("train-images-idx3-ubyte")).unwrap();
    refused(&swapped, &["train-images-idx3-ubyte", "wrong magic number 0x00000801"]);
}

#[test]
fn qmnist_has_rows_of_labels() {
    let folder = TempDir::new().unwrap();
    as_idx(folder.path(), 7);
    let expected = read(folder.path(), "IDX");
    for (part, images) in ["train", "t10k"].iter().zip(&expected) {
        let rows: Vec<u8> = images.iter().flat_map(|image| be(&[image.0, 4, 3, 2, 1, 9, 8, 7])).collect();
        let bytes = [be(&[0xc02, images.len() as u32, 8]), rows].concat();
        write(folder.path().join(format!("{part}-labels-idx2-int")), &gzip(&bytes));
        fs::remove_file(folder.path().join(format!("{part}-labels-idx1-ubyte"))).unwrap();
    }
    rename(folder.path(), |name| format!("qmnist-{}.gz", name.replace("t10k", "test")));
    assert!(read(folder.path(), "IDX") == expected);
    // A label beyond reason takes no memory for the names of its classes.
    let labels = folder.path().join("qmnist-train-labels-idx2-int.gz");
    let rows: Vec<u8> = expected[0].iter().flat_map(|_| be(&[u32::MAX, 0, 0, 0, 0, 0, 0, 0])).collect();
    write(labels, &gzip(&[be(&[0xc02, expected[0].len() as u32, 8]), rows].concat()));
    refused(folder.path(), &["label 4294967295"]);
}

#[test]
fn emnist_is_turned_upright_and_has_names() {
    let folder = TempDir::new().unwrap();
    let of = |split: &str| {
        for part in ["train", "test"] {
            let path = |kind: &str| folder.path().join(format!("gzip/emnist-{split}-{part}-{kind}.gz"));
            // Two rows, three columns.
            let pixels = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]].concat();
            write(path("images-idx3-ubyte"), &gzip(&[be(&[0x803, 2, 2, 3]), pixels].concat()));
            write(path("labels-idx1-ubyte"), &gzip(&[be(&[0x801, 2]), vec![1, 2]].concat()));
        }
    };
    of("letters");
    write(folder.path().join("gzip/emnist-letters-mapping.txt"), b"1 65 97\r\n2 66 98\r\n");
    let [train, _] = read(folder.path(), "IDX of EMNIST, turned upright");
    assert_eq!(train, [(1, vec![1, 4, 2, 5, 3, 6]), (2, vec![7, 10, 8, 11, 9, 12])]);
    let data = DataSet::load(folder.path()).unwrap();
    assert_eq!((data.train.height, data.train.width), (3, 2));
    assert_eq!(data.classes, ["no class", "Aa", "Bb"]);
    of("digits");
    refused(folder.path(), &["several sets", "emnist-digits-train", "emnist-letters-train", "move the files"]);
}

/// A dict of labels and images as Python and NumPy write it: `kind` 0 as Python 2 wrote CIFAR's own files (protocol 2),
/// the others as protocols 3, 4 and 5 of Python 3 have it. All but the values was taken from such files.
fn pickled(kind: usize, key: &str, labels: &[u8], pixels: &[u8]) -> Vec<u8> {
    let list: Vec<u8> = labels.iter().flat_map(|label| [b'K', *label]).collect();
    let count = labels.len() as u8;
    let length = (pixels.len() as u32).to_le_bytes();
    let key_bytes = [&[b"UCCC"[kind], key.len() as u8][..], key.as_bytes()].concat();
    let parts: [&[&[u8]]; 4] = [
        &[
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03",
            &key_bytes,
            b"q\x04]q\x05(",
            &list,
            b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01bq\n\x87q\x0bRq\x0c(\
              K\x01K",
            &[count],
            b"M\x00\x0c\x86q\rcnumpy\ndtype\nq\x0eU\x02u1q\x0fK\x00K\x01\x87q\x10Rq\x11(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xff\
              J\xff\xff\xff\xffK\x00tq\x13b\x89T",
            &length,
            pixels,
            b"q\x14tq\x15bU\tfilenamesq\x16]q\x17(U\x05a.pngq\x18U\x05b.pngq\x19eu.",
        ],
        &[
            b"\x80\x03}q\x00(C\x0bbatch_labelq\x01C\x15training batch 1 of 5q\x02",
            &key_bytes,
            b"q\x03]q\x04(",
            &list,
            b"eC\x04dataq\x05cnumpy._core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85q\x08C\x01bq\t\x87q\nRq\
              \x0b(K\x01K",
            &[count],
            b"M\x00\x0c\x86q\x0ccnumpy\ndtype\nq\rX\x02\x00\x00\x00u1q\x0e\x89\x88\x87q\x0fRq\x10(K\x03X\x01\x00\x00\x00|q\x11NNN\
              J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b\x89B",
            &length,
            pixels,
            b"q\x13tq\x14bC\tfilenamesq\x15]q\x16(C\x05a.pngq\x17C\x05b.pngq\x18eu.",
        ],
        &[
            b"\x80\x04\x95\xf2\x18\x00\x00\x00\x00\x00\x00}\x94(C\x0bbatch_label\x94C\x15training batch 1 of 5\x94",
            &key_bytes,
            b"\x94]\x94(",
            &list,
            b"eC\x04data\x94\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\
              \x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K",
            &[count],
            b"M\x00\x0c\x86\x94h\t\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\
              \xffJ\xff\xff\xff\xffK\x00t\x94b\x89B",
            &length,
            pixels,
            b"\x94t\x94bC\tfilenames\x94]\x94(C\x05a.png\x94C\x05b.png\x94eu.",
        ],
        &[
            b"\x80\x05\x95\xda\x18\x00\x00\x00\x00\x00\x00}\x94(C\x0bbatch_label\x94C\x15training batch 1 of 5\x94",
            &key_bytes,
            b"\x94]\x94(",
            &list,
            b"eC\x04data\x94\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96",
            &length,
            &[0; 4],
            pixels,
            b"\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\
              \xffJ\xff\xff\xff\xffK\x00t\x94bK",
            &[count],
            b"M\x00\x0c\x86\x94\x8c\x01C\x94t\x94R\x94C\tfilenames\x94]\x94(C\x05a.png\x94C\x05b.png\x94eu.",
        ],
    ];
    parts[kind].concat()
}

/// Names as Python 2 wrote them in CIFAR's own files.
fn pickled_names(key: &str, names: &[&str]) -> Vec<u8> {
    let text = |text: &str| [&[b'U', text.len() as u8][..], text.as_bytes()].concat();
    let names: Vec<u8> = names.iter().flat_map(|name| [&text(name)[..], b"q\x05"].concat()).collect();
    let cases = [&text("num_cases_per_batch")[..], b"q\x02M\x10'"].concat();
    [&b"\x80\x02}q\x01("[..], &cases, &text(key), b"q\x03]q\x04(", &names, b"eu."].concat()
}

#[test]
fn cifar_is_read_as_python_has_it() {
    let folder = TempDir::new().unwrap();
    let image = |number: usize| (0..3072).map(|at| (at * 7 + number * 31) as u8).collect::<Vec<u8>>();
    let pixels = |numbers: [usize; 2]| numbers.map(image).concat();
    let (ten, hundred) = (folder.path().join("cifar-10-batches-py"), folder.path().join("cifar-100-python"));
    for batch in 0..5 {
        let bytes = pickled(batch % 4, "labels", &[batch as u8, 9], &pixels([batch, batch + 10]));
        write(ten.join(format!("data_batch_{}", batch + 1)), &bytes);
    }
    write(ten.join("test_batch"), &pickled(0, "labels", &[3, 4], &pixels([20, 21])));
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    write(ten.join("batches.meta"), &pickled_names("label_names", &names));
    let form = "CIFAR, Python's batches";
    // In the folder above, as torchvision has it.
    let [train, test] = read(folder.path(), form);
    let expected: Vec<_> = (0..5).flat_map(|batch| [(batch as u32, image(batch)), (9, image(batch + 10))]).collect();
    assert!(train == expected && test == [(3, image(20)), (4, image(21))]);
    assert_eq!(DataSet::load(&ten).unwrap().classes, names);

    write(hundred.join("train"), &pickled(0, "fine_labels", &[1, 0], &pixels([5, 6])));
    write(hundred.join("test"), &pickled(3, "fine_labels", &[0, 1], &pixels([7, 8])));
    write(hundred.join("meta"), &pickled_names("fine_label_names", &["apple", "bear"]));
    assert!(read(&hundred, form)[0] == [(1, image(5)), (0, image(6))]);
    assert_eq!(DataSet::load(&hundred).unwrap().classes, ["apple", "bear"]);
    refused(folder.path(), &["several sets", "cifar-10-batches-py", "cifar-100-python"]);

    let damage = |bytes: &[u8], parts: &[&str]| {
        fs::write(hundred.join("train"), bytes).unwrap();
        refused(&hundred, &[&["train"], parts].concat());
    };
    let whole = pickled(2, "fine_labels", &[1, 0], &pixels([5, 6]));
    damage(&whole[..whole.len() / 2], &["not a pickle as CIFAR's are, or damaged"]);
    damage(b"", &["not a pickle"]);
    damage(&pickled(1, "labels", &[1, 0], &pixels([5, 6])), &["no list \"fine_labels\""]);
    damage(&pickled(1, "fine_labels", &[1, 0, 1], &pixels([5, 6])), &["6144 bytes of pixels for 3 images"]);
    // As protocol 1 says that rows lie one after another.
    let at = whole.windows(3).position(|bytes| bytes == b"b\x89B").unwrap() + 1;
    fs::write(hundred.join("train"), [&whole[..at], b"I00\n", &whole[at + 1..]].concat()).unwrap();
    assert!(read(&hundred, form)[0] == [(1, image(5)), (0, image(6))]);
    // Columns one after another would give other pictures.
    let turned = whole.windows(3).position(|bytes| bytes == b"b\x89B").unwrap() + 1;
    let mut columns = whole.clone();
    columns[turned] = 0x88;
    damage(&columns, &["no array \"data\" of bytes, row by row"]);
}
