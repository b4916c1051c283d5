//! Waiting for a device without waiting for ever: while the host waits it looks at the exchanges, and a thread that
//! never calls CUDA ends the process where even that hangs.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::CudaEvent;

use crate::error::{Error, GpuTrouble, Result};
use crate::net::swap::Swap;

/// The time that the watching thread allows beyond the deadline before it ends the process.
const GRACE: Duration = Duration::from_secs(5);

/// Lets a little time pass for a thread that asks again and again since `start`. A step takes milliseconds: a thread that
/// spins longer would only take a core from the data loader.
pub fn pause(start: Instant) {
    if start.elapsed() < Duration::from_micros(200) {
        std::thread::yield_now();
    } else {
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// The exchanges of one stream that are not known to be done, and how long they may take.
pub struct Watch {
    stream: usize,
    deadline: Duration,
    state: Mutex<WatchState>,
}

#[derive(Default)]
struct WatchState {
    /// What was queued: its name, the time, and the event after it; oldest first.
    pending: VecDeque<(String, Instant, Arc<CudaEvent>)>,
    /// Asks the transport for an error.
    transport: Option<Box<dyn Fn() -> Result<(), String> + Send>>,
    /// The other stream of this process has failed.
    closed: bool,
}

impl Watch {
    /// For `stream`, whose exchanges may take `deadline` each.
    pub fn new(stream: usize, deadline: Duration) -> Arc<Watch> {
        Arc::new(Watch { stream, deadline, state: Mutex::default() })
    }

    /// The longest that an exchange may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The stream's number.
    pub fn stream(&self) -> usize {
        self.stream
    }

    /// Sets what is asked for errors of the transport.
    pub fn set_transport(&self, ask: impl Fn() -> Result<(), String> + Send + 'static) {
        self.state().transport = Some(Box::new(ask));
    }

    /// An exchange was queued; `done` comes after it.
    pub fn queued(&self, what: &impl Display, done: &Arc<CudaEvent>) {
        let mut state = self.state();
        state.pending.push_back((what.to_string(), Instant::now(), done.clone()));
        // Keeps the list short where the host never waits.
        while state.pending.front().is_some_and(|(_, _, done)| done.is_complete()) {
            state.pending.pop_front();
        }
    }

    /// The other stream has failed and will not take part any more.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Whether [`Watch::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits until `done` says so.
    ///
    /// Fails where it fails, the transport reports an error, an exchange passes the deadline or the other stream ends.
    pub fn block_until(&self, done: impl Fn() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        // The transport is asked even where the work is done: an exchange that failed lets go what waits for it.
        // Where it fails because the GPU has, the GPU's own error is the cause.
        let look = || {
            let is_done = done()?;
            self.check().or_else(|error| done().and(Err(error)))?;
            Ok::<bool, Error>(is_done)
        };
        while !self.guarded("asking whether work is done", None, look)? {
            pause(start);
        }
        Ok(())
    }

    /// Makes a call that should return at once, for `swap` where it is for one; the process ends where it does not.
    pub fn guarded<T>(&self, doing: &'static str, swap: Option<&Swap>, call: impl FnOnce() -> T) -> T {
        let until = Instant::now() + self.deadline + GRACE;
        let _guard = watched(Call { number: 0, stream: self.stream, doing, swap: swap.cloned(), until });
        call()
    }

    fn check(&self) -> Result<()> {
        let mut state = self.state();
        while state.pending.front().is_some_and(|(_, _, done)| done.is_complete()) {
            state.pending.pop_front();
        }
        let oldest = || match state.pending.front() {
            Some((what, ..)) => format!("exchange of {what}"),
            None => "between two exchanges".into(),
        };
        let problem = state.transport.as_ref().and_then(|ask| ask().err());
        // That the other stream of this process has ended is known before its transport shows it: the cause is there.
        if state.closed && (problem.is_some() || !state.pending.is_empty()) {
            return Err(Error::ExchangeClosed { stream: self.stream, what: oldest() });
        }
        if let Some(problem) = problem {
            return Err(self.failed(&oldest(), &problem));
        }
        match state.pending.front() {
            Some((what, since, _)) if since.elapsed() > self.deadline => {
                Err(self.failed(&format!("exchange of {what}"), &self.too_late()))
            }
            _ => Ok(()),
        }
    }

    /// The error of an exchange that does not come to an end.
    pub fn too_late(&self) -> String {
        let seconds = self.deadline.as_secs_f64();
        format!(
            "no values arrived within {seconds} s: the other stream hangs, or the GPUs cannot reach each other (try NCCL_P2P_DISABLE=1, and `doctor`; \
             --exchange-timeout sets the deadline)"
        )
    }

    /// The error of an exchange, or of joining for it; `what` was being done.
    pub fn failed(&self, what: &str, problem: &str) -> Error {
        Error::gpu(GpuTrouble::Exchange, format!("stream {} (rank {0}): {what}: {problem}", self.stream))
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls in progress that might hang, each with its deadline.
type Watched = Mutex<Vec<Call>>;

struct Call {
    number: u64,
    stream: usize,
    doing: &'static str,
    swap: Option<Swap>,
    until: Instant,
}

fn watched_list() -> &'static Watched {
    static LIST: OnceLock<&'static Watched> = OnceLock::new();
    LIST.get_or_init(|| {
        let list: &'static Watched = Box::leak(Box::default());
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(move || watch_for_ever(list));
        if let Err(error) = thread {
            tracing::warn!("no watchdog: {error}");
        }
        list
    })
}

/// Until the guard is dropped, the process ends with the exchange's exit code when the call's time is over: the last
/// resort where a CUDA or NCCL call does not return. Numbers the call.
fn watched(call: Call) -> impl Drop {
    struct Guard(u64);
    impl Drop for Guard {
        fn drop(&mut self) {
            let mut list = watched_list().lock().unwrap_or_else(PoisonError::into_inner);
            list.retain(|call| call.number != self.0);
        }
    }
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut list = watched_list().lock().unwrap_or_else(PoisonError::into_inner);
    list.push(Call { number, ..call });
    Guard(number)
}

/// The watching thread. It touches nothing of CUDA, whose calls may be what hangs.
fn watch_for_ever(list: &'static Watched) {
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let list = list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Call { stream, doing, swap, .. }) = list.iter().find(|call| Instant::now() > call.until) {
            let swap = swap.as_ref().map(|swap| format!(" of {swap}")).unwrap_or_default();
            errln!(
                "error: stream {stream} (rank {stream}): {doing}{swap}: a CUDA or NCCL call does not return; see `doctor`"
            );
            // Not `exit`: libraries' clean-up would wait for the same call.
            signal_hook::low_level::exit(GpuTrouble::Exchange as i32)
        }
    }
}
