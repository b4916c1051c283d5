//! Tar files: what is in them and where, without unpacking.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::notes::Notes;
use super::places::OPEN_FILES;
use crate::error::{Error, Result};
use alexnet_split_images::signature::{LENGTH, Signature, recognize};

/// A file in a tar.
pub struct Member {
    /// As it is stored, without `./` before it.
    pub name: String,
    /// Where its bytes are, or why they cannot be read.
    pub content: Result<Piece, String>,
    /// The number of the tar that it is in, where several follow one another in one file.
    pub tar: usize,
}

/// A piece of the outermost file.
#[derive(Clone, Copy)]
pub struct Piece {
    pub offset: u64,
    pub bytes: u64,
}

/// Bytes of the longest label or list that is read whole.
const MAX_TEXT: u64 = 1 << 28;

impl Member {
    /// Where its bytes are; fails, naming it, where they cannot be read.
    pub fn piece(&self, path: &Path) -> Result<Piece> {
        self.content.clone().map_err(|why| Error::data(path, format!("{}: {why}", self.name)))
    }

    /// Its bytes.
    pub fn read(&self, path: &Path, file: &File) -> Result<Vec<u8>> {
        let piece = self.piece(path)?;
        if piece.bytes > MAX_TEXT {
            let problem = format!("{}: {} bytes are too many for a label or a list", self.name, piece.bytes);
            return Err(Error::data(path, problem));
        }
        let mut bytes = vec![0; piece.bytes as usize];
        file.read_exact_at(&mut bytes, piece.offset).map_err(Error::io("read", path))?;
        Ok(bytes)
    }

    /// The last part of its name.
    pub fn base(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default()
    }
}

/// A piece of a file, read as if it were one.
struct Section<'a> {
    file: &'a File,
    start: u64,
    bytes: u64,
    at: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (buffer.len() as u64).min(self.bytes.saturating_sub(self.at)) as usize;
        let read = self.file.read_at(&mut buffer[..count], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// Zeros behind a tar's end that are more than any program fills up with.
const MANY_ZEROS: u64 = 4 << 20;

/// The files in a tar that is `bytes` long and begins at `start` of `file`; `path` is for messages. Where more tars
/// follow behind its end (`cat a.tar b.tar`), theirs too.
///
/// Fails where it is damaged, ends before its files do, or holds a sparse file.
pub fn members(path: &Path, file: &File, [start, bytes]: [u64; 2], notes: &mut Notes) -> Result<Vec<Member>> {
    let mut found = Found { path, members: Vec::new(), links: Vec::new() };
    let (mut at, mut tar) = (0, 0);
    while at < bytes || tar == 0 {
        let section = Section { file, start: start + at, bytes: bytes - at, at: 0 };
        match found.add(section, tar) {
            Ok(end) => at += end,
            // As other programs do: what is behind the end and no tar is not read.
            Err(Stop::AtFirst(_)) if tar > 0 => {
                notes.add("tar[s] with bytes behind the end that are no tar", path.display());
                break;
            }
            Err(Stop::AtFirst(why)) => return Err(Error::data(path, what_it_is(file, [start, bytes], &why))),
            Err(Stop::Later(error)) => return Err(error),
        }
        let next = skip_zeros(file, start + at, start + bytes).map_err(Error::io("read", path))?;
        if next == start + bytes && next - start - at > MANY_ZEROS {
            notes.add("tar[s] with megabytes of zeros behind the end (was the download whole?)", path.display());
        }
        // Headers begin at multiples of 512.
        (at, tar) = (if next < start + bytes { at + (next - start - at) / 512 * 512 } else { bytes }, tar + 1);
    }
    if found.members.is_empty() {
        if bytes == 0 {
            return Err(Error::data(path, "is empty (0 bytes); fetch it again"));
        }
        notes.add("tar[s] without a file in [it|them]", path.display());
    }
    found.follow_links();
    Ok(found.members)
}

/// Where zeros from `from` on end.
fn skip_zeros(file: &File, mut from: u64, end: u64) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    while from < end {
        let count = buffer.len().min((end - from) as usize);
        file.read_exact_at(&mut buffer[..count], from)?;
        if let Some(other) = buffer[..count].iter().position(|byte| *byte != 0) {
            return Ok(from + other as u64);
        }
        from += count as u64;
    }
    Ok(end)
}

/// What a file is that was taken for a tar.
fn what_it_is(file: &File, [start, bytes]: [u64; 2], why: &str) -> String {
    let mut first = vec![0; bytes.min(LENGTH as u64) as usize];
    let read = file.read_exact_at(&mut first, start);
    let is_tar = first.get(257..).is_some_and(|magic| magic.starts_with(b"ustar"));
    match recognize(&first) {
        Some(Signature { name, advice }) if read.is_ok() && !is_tar => format!("is not a tar, but {name}; {advice}"),
        _ => format!("damaged or truncated tar: {why}; fetch it again"),
    }
}

/// Why the members of a tar end.
enum Stop {
    /// There is no member at its beginning.
    AtFirst(String),
    Later(Error),
}

/// What has been found in tars.
struct Found<'a> {
    path: &'a Path,
    members: Vec<Member>,
    /// The numbers of members that are links, and what they point to.
    links: Vec<(usize, String)>,
}

impl Found<'_> {
    /// Takes in the members of one tar; returns where its last one ends.
    fn add(&mut self, section: Section, tar: usize) -> Result<u64, Stop> {
        let (start, bytes) = (section.start, section.bytes);
        let refuse = |problem: String| Err(Stop::Later(Error::data(self.path, problem)));
        let mut archive = tar::Archive::new(section);
        let (mut end, mut last) = (0, None);
        for entry in archive.entries_with_seek().map_err(|error| Stop::AtFirst(error.to_string()))? {
            let mut entry = match (entry, &last) {
                (Ok(entry), _) => entry,
                // The rest of the library's message may be bytes of the file.
                (Err(error), None) => return Err(Stop::AtFirst(first_words(&error))),
                (Err(error), Some(last)) => {
                    let why = first_words(&error);
                    return refuse(format!("damaged or truncated tar: {why}, behind {last}; fetch it again"));
                }
            };
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (offset, size) = (entry.raw_file_position(), entry.size());
            let kind = entry.header().entry_type();
            if kind.is_gnu_sparse() || has_sparse_keys(&mut entry) {
                return refuse(format!(
                    "{name} is stored as a sparse file (tar -S), which is not read; unpack the tar with `tar -xf`, and \
                     pack it again without -S, or give the unpacked folder"
                ));
            }
            if offset.checked_add(size).is_none_or(|end| end > bytes) {
                return refuse(format!("truncated tar: {name} goes on beyond its end; fetch it again"));
            }
            end = (offset + size).next_multiple_of(512);
            last = Some(name.clone());
            let member = |content| Member { name: tidy(&name), content, tar };
            if kind.is_file() || kind.is_contiguous() {
                self.members.push(member(Ok(Piece { offset: start + offset, bytes: size })));
            } else if kind.is_hard_link() || kind.is_symlink() {
                let to = String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
                let folder = name.rfind('/').filter(|_| kind.is_symlink()).map_or("", |slash| &name[..=slash]);
                self.links.push((self.members.len(), tidy(&format!("{folder}{to}"))));
                self.members.push(member(Err(format!("is a link to {to}"))));
            } else if !kind.is_dir() && !kind.is_pax_global_extensions() {
                self.members.push(member(Err("is neither a file nor a link (a device, or a part of a file)".into())));
            }
        }
        // A block of zeros tells that there is no more.
        if last.is_some() && end + 512 > bytes {
            return refuse(format!("truncated tar: it has no end after {} files; fetch it again", self.members.len()));
        }
        Ok(end)
    }

    /// Gives links the contents of what they point to.
    fn follow_links(&mut self) {
        if self.links.is_empty() {
            return;
        }
        // Of several members of one name the last counts, as in unpacking.
        let by_name: HashMap<String, usize> =
            self.members.iter().enumerate().map(|(at, member)| (member.name.clone(), at)).collect();
        let links: HashMap<usize, &String> = self.links.iter().map(|(at, to)| (*at, to)).collect();
        for (at, to) in &self.links {
            let mut target = by_name.get(to);
            // A link to a link; those that lead round in circles end, too.
            for _ in 0..links.len() {
                let Some(next) = target.and_then(|target| links.get(target)) else { break };
                target = by_name.get(*next);
            }
            self.members[*at].content = match target.map(|target| self.members[*target].content.clone()) {
                Some(Ok(piece)) => Ok(piece),
                _ => Err(format!("is a link to {to}, which is not in this tar; pack it with `tar --dereference`")),
            };
        }
    }
}

fn first_words(error: &io::Error) -> String {
    error.to_string().split(':').next().unwrap_or_default().to_owned()
}

/// Whether PAX keys tell of a sparse file.
fn has_sparse_keys(entry: &mut tar::Entry<impl Read>) -> bool {
    let keys = entry.pax_extensions().ok().flatten();
    keys.is_some_and(|mut keys| keys.any(|key| key.is_ok_and(|key| key.key_bytes().starts_with(b"GNU.sparse."))))
}

/// A name without `.` and `..` in it.
fn tidy(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "." | "" => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Bytes to which gzipped tars of a set are unpacked at most.
pub const MAX_UNPACKED: u64 = 4 << 30;

/// A file that holds a tar.
pub struct Tar {
    pub path: PathBuf,
    pub file: File,
    pub bytes: u64,
    is_unpacked: bool,
}

impl Tar {
    /// Opens a tar. A gzipped one, whatever it is called, is unpacked into a temporary file that goes when it is closed;
    /// `left` is how many bytes may be unpacked yet.
    pub fn open(path: &Path, left: &mut u64) -> Result<Tar> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let mut first = [0; 2];
        if file.read_exact_at(&mut first, 0).is_err() || first != [0x1f, 0x8b] {
            let bytes = file.metadata().map_err(Error::io("read", path))?.len();
            return Ok(Tar { path: path.to_owned(), file, bytes, is_unpacked: false });
        }
        let to = std::env::temp_dir();
        let mut unpacked = tempfile::tempfile().map_err(Error::io("make a temporary file in", &to))?;
        let mut packed = MultiGzDecoder::new(BufReader::new(file)).take(*left + 1);
        let bytes = io::copy(&mut packed, &mut unpacked).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::io("unpack a gzipped tar into", &to)(error)
            }
            _ => Error::data(path, format!("damaged or truncated gzip: {error}; fetch it again")),
        })?;
        let Some(rest) = left.checked_sub(bytes) else {
            let problem = format!(
                "is gzipped, and the gzipped tars of the set hold more than the {} GB that are unpacked while reading; \
                 unpack them first with `gzip -d` (it wants names that end in .gz)",
                MAX_UNPACKED >> 30
            );
            return Err(Error::data(path, problem));
        };
        *left = rest;
        Ok(Tar { path: path.to_owned(), file: unpacked, bytes, is_unpacked: true })
    }

    /// Puts it among the archives of a set: open, where few are or it has no name, else to be opened for each image.
    pub fn keep(self, archives: &mut Vec<(PathBuf, Option<File>)>) {
        let is_open = self.is_unpacked || archives.len() < OPEN_FILES;
        archives.push((self.path, is_open.then_some(self.file)));
    }
}
