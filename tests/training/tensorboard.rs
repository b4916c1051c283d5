//! TensorBoard's event files, taken apart byte by byte: frames and checksums, then messages.

use alexnet_split::run::rows::Row;
use alexnet_split::run::tensorboard::EventFile;
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;

/// CRC-32C bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// Takes `count` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn four(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

fn eight(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// The payloads of all records.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).unwrap();
    let (mut bytes, mut found) = (&file[..], Vec::new());
    while !bytes.is_empty() {
        let mut part = |count| {
            let part = take(&mut bytes, count);
            let crc = crc(part);
            let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
            assert_eq!(four(take(&mut bytes, 4)), masked, "record {}", found.len());
            part
        };
        let length = eight(part(8));
        let payload = part(length as usize).to_vec();
        found.push(payload);
    }
    found
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    Number(u64),
    Eight(u64),
    Bytes(Vec<u8>),
    Four(u32),
}

/// A message's fields in order.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = take(bytes, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Eight(eight(take(&mut bytes, 8))),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length).to_vec())
            }
            5 => Field::Four(four(take(&mut bytes, 4))),
            kind => panic!("kind {kind}"),
        };
        found.push((key >> 3, field));
    }
    found
}

fn inner(field: &Field) -> Vec<(u64, Field)> {
    match field {
        Field::Bytes(bytes) => fields(bytes),
        other => panic!("no message: {other:?}"),
    }
}

/// An event: its time, its step, and the rest.
fn event(record: &[u8]) -> (f64, u64, (u64, Field)) {
    match &fields(record)[..] {
        [(1, Field::Eight(time)), (2, Field::Number(step)), rest] => (f64::from_bits(*time), *step, rest.clone()),
        other => panic!("no event: {other:?}"),
    }
}

/// Step, tag and content (a field of `Summary.Value`) of an event that has a summary.
fn summary(record: &[u8]) -> (u64, String, (u64, Field)) {
    let (_, step, (number, summary)) = event(record);
    assert_eq!(number, 5);
    let values = inner(&summary);
    assert_eq!((values.len(), values[0].0), (1, 1));
    match &inner(&values[0].1)[..] {
        [(1, Field::Bytes(tag)), content] => (step, String::from_utf8(tag.clone()).unwrap(), content.clone()),
        other => panic!("no value: {other:?}"),
    }
}

/// Step, tag and value of every record after the first, all of which are scalars.
fn scalars(path: &Path) -> Vec<(u64, String, f32)> {
    let value = |record: &Vec<u8>| match summary(record) {
        (step, tag, (2, Field::Four(bits))) => (step, tag, f32::from_bits(bits)),
        other => panic!("no scalar: {other:?}"),
    };
    records(path).iter().skip(1).map(value).collect()
}

#[test]
fn frames_events_and_scalars() {
    assert_eq!(crc(b"123456789"), 0xe306_9283, "the check of CRC-32C");
    let folder = TempDir::new().unwrap();
    let mut file = EventFile::create(&folder.path().join("a/b"), 1_764_039_000.5).unwrap();
    let path = file.path().to_owned();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("events.out.tfevents.1764039000.") && name.len() > 31, "{name}");
    assert_eq!(path.parent(), Some(&*folder.path().join("a/b")));
    let values = [0.25, -1e-30, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for (step, value) in values.into_iter().enumerate() {
        file.scalar(step as u64 * 1_000_000_007, "train/loss", value).unwrap();
    }
    file.restarted(300).unwrap();
    file.flush().unwrap();
    let found = records(&path);
    let (time, step, version) = event(&found[0]);
    assert_eq!((step, version), (0, (3, Field::Bytes(b"brain.Event:2".to_vec()))));
    let mut before = time;
    assert!((time - 1_764_039_000.5).abs() < 10., "{time}");
    for (record, (step, value)) in found[1..].iter().zip(values.into_iter().enumerate()) {
        let bits = (value as f32).to_bits();
        assert_eq!(summary(record), (step as u64 * 1_000_000_007, "train/loss".into(), (2, Field::Four(bits))));
        let time = event(record).0;
        assert!(time >= before, "time goes forward");
        before = time;
    }
    let (_, step, (number, session)) = event(&found[6]);
    assert_eq!((step, number, inner(&session)), (301, 7, vec![(1, Field::Number(1))]), "START");
    assert_eq!(found.len(), 7);
}

#[test]
fn a_file_is_never_written_over() {
    let folder = TempDir::new().unwrap();
    let mut paths = Vec::new();
    for value in 0..3 {
        let mut file = EventFile::create(folder.path(), 99.).unwrap();
        file.scalar(1, "x", value.into()).unwrap();
        paths.push(file.path().to_owned());
    }
    assert!(paths.is_sorted(), "read in the order of their names: {paths:?}");
    for (path, value) in paths.iter().zip([0., 1., 2.]) {
        assert_eq!(scalars(path), [(1, "x".into(), value)], "dropped, it is whole");
    }
    let blocked = paths[0].join("below");
    let text = EventFile::create(&blocked, 99.).err().unwrap().to_string();
    assert!(text.contains("cannot create") && text.contains("below"), "{text}");
}

#[test]
fn images() {
    let folder = TempDir::new().unwrap();
    let mut file = EventFile::create(folder.path(), 99.).unwrap();
    let png: Vec<u8> = (0..100_000u32).map(|i| (i * 7) as u8).collect();
    file.image(50, "filters/kernels", &png, 193, 75).unwrap();
    file.flush().unwrap();
    let (step, tag, (number, image)) = summary(&records(file.path())[1]);
    assert_eq!((step, tag.as_str(), number), (50, "filters/kernels", 4));
    assert_eq!(inner(&image), [(1, Field::Number(75)), (2, Field::Number(193)), (4, Field::Bytes(png))]);
}

#[test]
fn histograms() {
    let folder = TempDir::new().unwrap();
    let mut file = EventFile::create(folder.path(), 99.).unwrap();
    // 1, 2, ... 60 have two in each of 30 bars.
    let values: Vec<f32> = (1..=60).map(|v| v as f32).collect();
    file.histogram(1, "w", &values).unwrap();
    file.histogram(1, "w", &[2.5; 4]).unwrap();
    file.histogram(1, "w", &[]).unwrap();
    file.histogram(1, "w", &[1., f32::NAN, 3.]).unwrap();
    file.flush().unwrap();
    let histogram = |record: &Vec<u8>| {
        let (_, _, (number, histogram)) = summary(record);
        assert_eq!(number, 5);
        let fields = inner(&histogram);
        assert_eq!(fields.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
        let doubles = |field: &Field| match field {
            Field::Eight(bits) => vec![f64::from_bits(*bits)],
            Field::Bytes(bytes) => bytes.chunks(8).map(|bytes| f64::from_bits(eight(bytes))).collect(),
            other => panic!("{other:?}"),
        };
        fields.iter().map(|(_, field)| doubles(field)).collect::<Vec<_>>()
    };
    let found: Vec<_> = records(file.path())[1..].iter().map(histogram).collect();
    // Least, greatest, count, sum, sum of squares.
    assert_eq!(found[0][..5].concat(), [1., 60., 60., 1830., 73_810.]);
    assert_eq!((found[0][5].len(), found[0][5][29], &found[0][6]), (30, 60., &vec![2.; 30]));
    assert!((found[0][5][0] - (1. + 59. / 30.)).abs() < 1e-12);
    assert_eq!(found[1].concat(), [2.5, 2.5, 4., 10., 25., 2.5, 4.]);
    assert_eq!(found[2].concat(), [0.; 7]);
    assert_eq!((found[3][2][0], found[3][6].iter().sum::<f64>()), (3., 2.), "NaN is counted and has no bar");
    assert!(found[3][3][0].is_nan() && found[3][4][0].is_nan());
}

#[test]
fn lines_of_the_metrics_become_scalars() {
    let folder = TempDir::new().unwrap();
    let mut file = EventFile::create(folder.path(), 99.).unwrap();
    let path = file.path().to_owned();
    let stream = |ms: f64| json!({"total_ms": ms, "compute_ms": ms + 1., "exchange_ms": ms + 2., "waiting_ms": ms + 3., "hidden_ms": ms + 4.});
    let rows = [
        json!({"kind": "step", "step": 12, "epoch": 0, "loss": 2.5, "top1_error": 0.75, "lr": 0.5, "images_per_s": 74.0, "loader_wait_ms": 0.125}),
        json!({"kind": "step", "step": 13, "epoch": 0, "loss": null, "top1_error": 1, "lr": 1, "images_per_s": 1, "loader_wait_ms": 0, "new": 7}),
        json!({"kind": "eval", "step": 219, "epoch": 1, "loss": 0.5, "top1_error": 0.25, "top5_error": 0.0}),
        json!({"kind": "times", "step": 50, "steps": 50, "streams": [stream(10.), stream(20.)]}),
        json!({"kind": "filters", "step": 50, "colourfulness": [[0.5], [1.0]], "means": [0.5, 1.0], "gap": 0.5}),
        json!({"kind": "skipped", "step": 77, "loss": "NaN", "why": "the loss is NaN"}),
        json!({"kind": "skipped", "step": 78, "loss": "inf", "why": "the loss is inf"}),
        json!({"kind": "later", "step": 80, "loss": 1.0}),
    ];
    rows.into_iter().for_each(|row| file.log(&serde_json::from_value::<Row>(row).unwrap()).unwrap());
    file.flush().unwrap();
    let expected = [
        "12 train/loss 2.5",
        "12 train/top1_error 0.75",
        "12 train/learning_rate 0.5",
        "12 train/images_per_s 74",
        "12 train/loader_wait_ms 0.125",
        "13 train/loss NaN",
        "13 train/top1_error 1",
        "13 train/learning_rate 1",
        "13 train/images_per_s 1",
        "13 train/loader_wait_ms 0",
        "219 heldout/loss 0.5",
        "219 heldout/top1_error 0.25",
        "219 heldout/top5_error 0",
        "50 stream0/total_ms 10",
        "50 stream0/compute_ms 11",
        "50 stream0/exchange_ms 12",
        "50 stream0/waiting_ms 13",
        "50 stream0/hidden_ms 14",
        "50 stream1/total_ms 20",
        "50 stream1/compute_ms 21",
        "50 stream1/exchange_ms 22",
        "50 stream1/waiting_ms 23",
        "50 stream1/hidden_ms 24",
        "50 filters/gap 0.5",
        "50 stream0/colourfulness 0.5",
        "50 stream1/colourfulness 1",
        "77 train/loss NaN",
        "78 train/loss inf",
    ];
    let found: Vec<String> = scalars(&path).iter().map(|(step, tag, value)| format!("{step} {tag} {value}")).collect();
    assert_eq!(found, expected);
}
