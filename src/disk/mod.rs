//! Atomic writing: a file is there whole or not at all, whatever happens in between. It is also the place where tests
//! inject faults: every operation that changes a run's or a data set's folder passes through here.

pub mod faults;
pub mod tensors;

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// An operation on the disk; a process may die before any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A folder or an empty file is made.
    Create,
    /// Bytes are written.
    Write,
    /// Written data is made durable.
    Flush,
    /// A file or folder is renamed.
    Rename,
    /// A file or an empty folder is removed.
    Remove,
}

/// A writer of a file in large pieces, flushed to disk at the end.
pub struct FileWriter {
    file: File,
    path: PathBuf,
    waiting: Vec<u8>,
}

/// Fewer bytes are buffered.
const PIECE_BYTES: usize = 1 << 20;

impl FileWriter {
    /// Makes an empty file, or empties the one that is there.
    pub fn create(path: &Path) -> Result<FileWriter> {
        let created = faults::before(Operation::Create).and_then(|_| File::create(path));
        Ok(FileWriter { file: created.map_err(Error::io("create", path))?, path: path.to_owned(), waiting: Vec::new() })
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.waiting.len() + bytes.len() < PIECE_BYTES {
            self.waiting.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_waiting()?;
        write_all(&mut self.file, bytes).map_err(Error::io("write", &self.path))
    }

    /// Makes them durable.
    pub fn finish(mut self) -> Result<()> {
        self.write_waiting()?;
        let flushed = faults::before(Operation::Flush).and_then(|_| self.file.sync_all());
        flushed.map_err(Error::io("flush", &self.path))
    }

    fn write_waiting(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        write_all(&mut self.file, &waiting).map_err(Error::io("write", &self.path))
    }
}

/// The longest wait for a lock: `runs` and `report` hold a run's for a moment to see whether a process trains.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Writes a file so that it is there whole or not at all: temporary name, fsync, rename, fsync of the folder. Pipes and
/// devices are written into.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir()) {
        // A file in its place would take away the device.
        return std::fs::write(path, bytes).map_err(Error::io("write", path));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let written =
        FileWriter::create(&temporary).and_then(|mut writer| writer.write(bytes).and_then(|()| writer.finish()));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.and_then(|()| rename(&temporary, path))
}

/// A file's bytes; none where there is no file.
///
/// Fails where it is something else, which might have no end.
pub fn read_if_there(path: &Path) -> Result<Vec<u8>> {
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(Error::run(path, "is not a file"));
    }
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(Error::io("read", path)),
    }
}

/// Adds a line to an open file.
pub fn append_line(file: &mut File, path: &Path, line: &str) -> Result<()> {
    write_all(file, format!("{line}\n").as_bytes()).map_err(Error::io("write", path))
}

/// Renames within a folder, durably.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    faults::before(Operation::Rename).and_then(|_| std::fs::rename(from, to)).map_err(Error::io("rename to", to))?;
    sync_parent(to)
}

/// Environment variable: the cache folder.
pub const CACHE: &str = "ALEXNET_SPLIT_CACHE";

/// The cache folder, whose files can be made again: the one that [`CACHE`] names, else the user's; `None` where there
/// is neither.
pub fn cache_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable(CACHE)
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("alexnet-split")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/alexnet-split")))
}

/// A lock on a file or folder, free again once this is dropped.
pub struct Lock(File);

impl Lock {
    /// Waits for a lock for a second at most; `None` where another process holds it for longer.
    pub fn wait(file: File) -> std::io::Result<Option<Lock>> {
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(Duration::from_millis(20)),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Drop for Lock {
    /// Closing the file would do only here: a process that a thread begins meanwhile has it open, too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let folder_file = File::open(folder).map_err(Error::io("open", folder))?;
    faults::before(Operation::Flush).and_then(|_| folder_file.sync_all()).map_err(Error::io("flush", folder))
}

/// Makes a folder and those above it, durably.
pub fn create_folder(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
    faults::before(Operation::Create).and_then(|_| std::fs::create_dir_all(path)).map_err(Error::io("create", path))?;
    missing.iter().rev().try_for_each(|made| sync_parent(made))
}

fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        // A bare name is in the working folder.
        Some(folder) if folder.as_os_str().is_empty() => sync_folder(Path::new(".")),
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Removes a folder and the files in it, `first` before all others; nothing where it is not there.
pub fn remove_folder(folder: &Path, first: &str) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let remove = |path: &Path| {
        faults::before(Operation::Remove).and_then(|_| std::fs::remove_file(path)).map_err(Error::io("remove", path))
    };
    if folder.join(first).exists() {
        remove(&folder.join(first))?;
    }
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))?.flatten() {
        remove(&entry.path())?;
    }
    faults::before(Operation::Remove).and_then(|_| std::fs::remove_dir(folder)).map_err(Error::io("remove", folder))
}

/// Bytes that this user may still write where `path` is; `None` where the system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn write_all(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    // Where the process must die in the middle of a write, the first half is on disk by then.
    if let Some(half) = faults::before(Operation::Write)? {
        file.write_all(&bytes[..bytes.len() / 2])?;
        half.strike();
    }
    file.write_all(bytes)
}
