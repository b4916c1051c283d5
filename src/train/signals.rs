//! SIGINT and SIGTERM: the first one ends the run after the current step and saves; a later one ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;

use crate::error::{Error, Result, Signal};

/// Signals within this time are one request: `timeout` and batch systems send to a process and to its group.
const ONE_REQUEST_MS: u64 = 300;

/// The request to end a run.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// A request that a signal sets; from now on the first signal does nothing else.
    pub fn on_signals() -> Result<Stop> {
        // Milliseconds from here to the first one; 0 before it.
        let (stop, began, first) = (Stop::default(), Instant::now(), Arc::new(AtomicU64::new(0)));
        for signal in [SIGINT, SIGTERM] {
            let (asked, first) = (stop.0.clone(), first.clone());
            let action = move || {
                let now = began.elapsed().as_millis() as u64 + 1;
                match first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => asked.store(signal as usize, Ordering::Relaxed),
                    Err(first) if now - first.min(now) < ONE_REQUEST_MS => {}
                    Err(_) => low_level::exit(128 + signal),
                }
            };
            // SAFETY: reads a clock, sets numbers and ends the process, all of which may be done in a handler.
            let registered = unsafe { low_level::register(signal, action) };
            registered.map_err(|error| Error::Device(format!("cannot watch for signals: {error}")))?;
        }
        Ok(stop)
    }

    /// The signal that has come.
    pub fn asked(&self) -> Option<Signal> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal if signal == SIGINT as usize => Some(Signal::Int),
            _ => Some(Signal::Term),
        }
    }
}
