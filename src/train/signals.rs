//! SIGINT and SIGTERM: the first one ends the run after the step under way, saved; the second one at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result, Signal};

/// Tells whether the run is to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Ends it when a signal comes; from now on signals do nothing else the first time.
    pub fn on_signals() -> Result<Stop> {
        let (stop, once) = (Stop::default(), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds `once` unset and sets it.
            let registered = flag::register_conditional_shutdown(signal, 128 + signal, once.clone())
                .and_then(|_| flag::register(signal, once.clone()))
                .and_then(|_| flag::register_usize(signal, stop.0.clone(), signal as usize));
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
