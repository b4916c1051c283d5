//! TensorBoard's event files: TFRecords (a length, bytes, and a checksum of each) that hold `Event` messages in protocol
//! buffers' encoding. Of `tensorflow/core/util/event.proto` and `framework/summary.proto` it takes a dozen fields.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::rows::{Row, StreamMeans};
use crate::error::{Error, Result};

/// Bars of a histogram; TensorBoard draws as many.
const BARS: usize = 30;

/// An event file that is being written. What is written reaches the disk with [`EventFile::flush`], and when it is
/// dropped; its bytes follow from what is written and the time alone.
pub struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
    created_unix_s: f64,
    created: Instant,
}

impl EventFile {
    /// Begins `events.out.tfevents.<unix_s>.<host>` in `folder`, which is made where it is not there. A resumed run
    /// begins another one in the same folder, and says so by [`EventFile::restarted`].
    ///
    /// Fails where the file cannot be written. One of that name is not overwritten: the new one's has a number.
    pub fn create(folder: &Path, unix_s: f64) -> Result<EventFile> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        // TensorBoard reads a folder's files in the order of their names.
        let first = folder.join(format!("events.out.tfevents.{:010}.{}", unix_s.max(0.) as u64, host()));
        let (mut path, mut number) = (first.clone(), 0);
        let file = loop {
            match File::create_new(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 1000 => {
                    number += 1;
                    path = format!("{}.{number:03}", first.display()).into();
                }
                file => break file.map_err(Error::io("create", &path))?,
            }
        };
        let (created_unix_s, created) = (unix_s, Instant::now());
        let mut events = EventFile { path, file: BufWriter::new(file), created_unix_s, created };
        events.event(0, |event| event.bytes(3, b"brain.Event:2"))?; // file_version
        Ok(events)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run continues after `step`: later steps in earlier files no longer count (a session's START). TensorBoard's
    /// reader in Python forgets it at once; its data server, which does not look at sessions, forgets it tag by tag
    /// when a step comes again.
    pub fn restarted(&mut self, step: u64) -> Result<()> {
        // TensorBoard forgets what is not before the event's step.
        self.event(step + 1, |event| event.message(7, |session| session.number(1, 1)))
    }

    /// One value; NaN and infinities are kept as they are.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f64) -> Result<()> {
        self.summary(step, tag, |summary| summary.float(2, value as f32))
    }

    /// A PNG file's bytes, and its size in pixels.
    pub fn image(&mut self, step: u64, tag: &str, png: &[u8], width: u32, height: u32) -> Result<()> {
        self.summary(step, tag, |summary| {
            summary.message(4, |image| {
                image.number(1, height.into());
                image.number(2, width.into());
                image.bytes(4, png);
            });
        })
    }

    /// Writes the distribution of values: 30 bars of equal width. Values that are not finite have no bar, but are
    /// counted, and make the sums what they must be.
    pub fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> Result<()> {
        let finite = || values.iter().filter(|v| v.is_finite()).map(|&v| f64::from(v));
        let (min, max) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(v), max.max(v)));
        // Of no values, and of equal ones, there is one bar.
        let (min, max) = if min > max { (0., 0.) } else { (min, max) };
        let bars = if min < max { BARS } else { 1 };
        let width = (max - min) / bars as f64;
        let mut counts = vec![0.; bars];
        finite().for_each(|v| counts[((v - min) / width.max(f64::MIN_POSITIVE)).min(bars as f64 - 1.) as usize] += 1.);
        let limit = |bar: usize| if bar == bars { max } else { min + bar as f64 * width };
        let limits: Vec<f64> = (1..=bars).map(limit).collect();
        let all = || values.iter().map(|&v| f64::from(v));
        self.summary(step, tag, |summary| {
            summary.message(5, |histogram| {
                let numbers = [min, max, values.len() as f64, all().sum(), all().map(|v| v * v).sum()];
                numbers.iter().zip(1..).for_each(|(&number, field)| histogram.double(field, number));
                histogram.doubles(6, &limits);
                histogram.doubles(7, &counts);
            });
        })
    }

    /// The scalars of one line of `metrics.jsonl`.
    pub fn log(&mut self, row: &Row) -> Result<()> {
        let mut scalar = |step: u64, tag: &str, value: f64| self.scalar(step, tag, value);
        match row {
            Row::Step(row) => {
                scalar(row.step, "train/loss", row.loss)?;
                scalar(row.step, "train/top1_error", row.top1_error)?;
                scalar(row.step, "train/learning_rate", row.lr)?;
                scalar(row.step, "train/images_per_s", row.images_per_s)?;
                scalar(row.step, "train/loader_wait_ms", row.loader_wait_ms)
            }
            Row::Skipped(row) => scalar(row.step, "train/loss", row.loss),
            Row::Eval(row) => {
                scalar(row.step, "heldout/loss", row.loss)?;
                scalar(row.step, "heldout/top1_error", row.top1_error)?;
                scalar(row.step, "heldout/top5_error", row.top5_error)
            }
            Row::Filters(row) => {
                if row.means.len() == 2 {
                    scalar(row.step, "filters/gap", row.gap)?;
                }
                let mut means = row.means.iter().enumerate();
                means.try_for_each(|(stream, mean)| scalar(row.step, &format!("stream{stream}/colourfulness"), *mean))
            }
            Row::Times(row) => row.streams.iter().enumerate().try_for_each(|(stream, means)| {
                let StreamMeans { total_ms, compute_ms, exchange_ms, waiting_ms, hidden_ms } = *means;
                scalar(row.step, &format!("stream{stream}/total_ms"), total_ms)?;
                scalar(row.step, &format!("stream{stream}/compute_ms"), compute_ms)?;
                scalar(row.step, &format!("stream{stream}/exchange_ms"), exchange_ms)?;
                scalar(row.step, &format!("stream{stream}/waiting_ms"), waiting_ms)?;
                scalar(row.step, &format!("stream{stream}/hidden_ms"), hidden_ms)
            }),
            Row::Other => Ok(()),
        }
    }

    /// Everything so far to the file, where TensorBoard sees it.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    /// An event with a summary of one value.
    fn summary(&mut self, step: u64, tag: &str, fill: impl FnOnce(&mut Message)) -> Result<()> {
        self.event(step, |event| {
            event.message(5, |summary| {
                summary.message(1, |value| {
                    value.bytes(1, tag.as_bytes());
                    fill(value);
                });
            });
        })
    }

    /// An event with the time and its step, as a record.
    fn event(&mut self, step: u64, fill: impl FnOnce(&mut Message)) -> Result<()> {
        let mut event = Message::default();
        event.double(1, self.created_unix_s + self.created.elapsed().as_secs_f64());
        event.number(2, step);
        fill(&mut event);
        let length = (event.0.len() as u64).to_le_bytes();
        let parts = [&length[..], &masked_crc(&length), &event.0, &masked_crc(&event.0)];
        parts.iter().try_for_each(|part| self.file.write_all(part)).map_err(Error::io("write", &self.path))
    }
}

/// A message of protocol buffers: each field is a number with its kind of value (0 varint, 1 eight bytes, 2 length and
/// bytes, 5 four bytes), then the value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint((field << 3) | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint((field << 3) | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint((field << 3) | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn doubles(&mut self, field: u64, values: &[f64]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(field, &bytes);
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// CRC-32C of 256 bytes' values, for the polynomial of Castagnoli.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ ((crc & 1) * 0x82f6_3b78);
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// TFRecord's checksum: CRC-32C, turned and moved, so that a checksum of bytes that hold checksums is no weaker.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ CRC_TABLE[(crc as u8 ^ byte) as usize];
    let crc = !bytes.iter().fold(!0, step);
    crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// The machine's name as a part of a file's.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c)).collect();
    if name.is_empty() { "localhost".into() } else { name }
}
