//! Faults on demand, for the tests that prove what a run survives (`tests/survive/`); release builds have none.
//!
//! `ALEXNET_SPLIT_FAULT` holds one or several, separated by commas. `kill@7` ends the process with SIGKILL before its
//! seventh operation on the disk, `tear@7` in the middle of it if it is a write, `full@7` lets it fail as on a full
//! disk. `nan@5`, `panic@5` and `crash@5` strike in training step 5: its loss is NaN, stream 1 panics, the process
//! dies. Unset, nothing happens.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Operation;

/// One fault: what, and at which operation or step, from 1.
type Fault = (String, u64);

fn faults() -> &'static [Fault] {
    static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();
    if !cfg!(debug_assertions) {
        return &[];
    }
    FAULTS.get_or_init(|| {
        let text = std::env::var("ALEXNET_SPLIT_FAULT").unwrap_or_default();
        let faults = text.split(',').filter_map(|fault| fault.split_once('@'));
        faults.filter_map(|(what, at)| Some((what.to_owned(), at.parse().ok()?))).collect()
    })
}

/// The end of the process in the middle of a write.
pub struct Tear;

impl Tear {
    /// Dies.
    pub fn strike(self) -> ! {
        die()
    }
}

/// Called before every operation on the disk.
///
/// Fails, or does not return, where a fault is due; says where the operation is to be torn.
pub fn before(operation: Operation) -> io::Result<Option<Tear>> {
    static DONE: AtomicU64 = AtomicU64::new(0);
    if faults().is_empty() {
        return Ok(None);
    }
    let number = DONE.fetch_add(1, Ordering::Relaxed) + 1;
    for (what, at) in faults().iter().filter(|(_, at)| *at == number) {
        match (&**what, operation) {
            ("kill", _) => die(),
            ("tear", Operation::Write) => return Ok(Some(Tear)),
            ("tear", _) => die(),
            ("full", _) => {
                return Err(io::Error::new(io::ErrorKind::StorageFull, format!("injected at operation {at}")));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Whether the fault `what` is due in training step `step`, from 1.
pub fn in_step(what: &str, step: u64) -> bool {
    faults().iter().any(|(fault, at)| fault == what && *at == step)
}

/// Ends the process as `kill -9` does.
pub fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}
