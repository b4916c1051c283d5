//! The exchange by NCCL: a send and a receive in one group, on a CUDA stream of its own, so that both directions and the
//! stream's computing overlap. Works for two threads of a process and for two processes on two machines alike.
//!
//! The communicator is non-blocking: a group's end returns at once, and a thread of NCCL's queues it, which takes it about
//! 0.1 ms. Meanwhile the stream's thread queues the work that the exchange hides behind; its state is polled only when
//! the swap is to be finished. Every wait has a deadline, and an error ends both ranks.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cudarc::driver::{CudaEvent, CudaStream};
use cudarc::nccl::result::{NcclError, NcclStatus};
use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclDataType_t, ncclResult_t, ncclUniqueId};

use super::{Exchange, Swap, Transfer};
use crate::backend::Backend;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::device::{Buffer, Gpu};
use crate::backend::cuda::libraries::{self, Nccl, c_text};
use crate::backend::cuda::watch::{Watch, pause};
use crate::error::{Error, GpuTrouble, Result};

/// The oldest NCCL whose non-blocking communicators have all that is used here.
const OLDEST: i32 = 21800;

/// NCCL's mark for a field that is left to it.
const UNSET: i32 = i32::MIN;

/// The identifier that both ranks need to meet.
pub type UniqueId = [u8; 128];

/// NCCL's version as it counts it: 22703 for 2.27.3.
///
/// Fails where it is missing or too old.
pub fn version() -> Result<i32> {
    let nccl = libraries::nccl()?;
    let mut version = 0;
    // SAFETY: a place to write to.
    unsafe { (nccl.ncclGetVersion)(&mut version) }.result().map_err(|error| {
        let text = format!("NCCL does not report its version: {}", explain(nccl, &error));
        Error::gpu(GpuTrouble::NoNccl, text)
    })?;
    if version < OLDEST {
        let text =
            format!("NCCL {} is too old, 2.18 or newer is needed; update it or use --exchange copy", show(version));
        return Err(Error::gpu(GpuTrouble::NoNccl, text));
    }
    Ok(version)
}

/// 22703 as "2.27.3".
pub fn show(version: i32) -> String {
    format!("{}.{}.{}", version / 10_000, version % 10_000 / 100, version % 100)
}

/// A new identifier for the two ranks; rank 0 makes it and sends it to rank 1.
pub fn unique_id() -> Result<UniqueId> {
    let nccl = libraries::nccl()?;
    let mut id = MaybeUninit::<ncclUniqueId>::zeroed();
    // SAFETY: a place to write to; zeros are a valid value too.
    let (result, id) = unsafe { ((nccl.ncclGetUniqueId)(id.as_mut_ptr()), id.assume_init()) };
    result.result().map_err(|error| {
        let text = format!(
            "NCCL finds no network interface for the connection: {}; set NCCL_SOCKET_IFNAME",
            explain(nccl, &error)
        );
        Error::gpu(GpuTrouble::Exchange, text)
    })?;
    Ok(id.internal.map(|byte| byte as u8))
}

/// A communicator, shared with whoever asks for its errors and with a thread that aborts it.
struct Comm {
    nccl: &'static Nccl,
    /// NCCL does not allow two calls at once.
    handle: Mutex<Handle>,
    aborted: AtomicBool,
}

struct Handle(ncclComm_t);
// SAFETY: NCCL's handles may be used by any thread, by one at a time.
unsafe impl Send for Handle {}

impl Comm {
    fn with<T>(&self, call: impl FnOnce(ncclComm_t) -> T) -> T {
        call(self.handle.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Whether all calls of the communicator have been queued.
    fn is_ready(&self) -> Result<bool, String> {
        let mut state = ncclResult_t::ncclSuccess;
        // SAFETY: a live communicator and a place to write to.
        let asked = self.with(|comm| unsafe { (self.nccl.ncclCommGetAsyncError)(comm, &mut state) });
        let state = asked.result().and_then(|_| state.result());
        state.map(|state| state != NcclStatus::InProgress).map_err(|error| explain(self.nccl, &error))
    }

    /// Waits until all calls of the communicator have been queued.
    fn settle(&self, watch: &Watch, swap: Option<&Swap>) -> Result<(), String> {
        let start = Instant::now();
        while !watch.guarded("waiting for NCCL", swap, || self.is_ready())? {
            if watch.is_closed() {
                return Err("the other stream has ended".into());
            }
            if start.elapsed() > watch.deadline() {
                return Err(watch.too_late());
            }
            pause(start);
        }
        Ok(())
    }

    /// Ends the communicator, best effort: the call may hang, so a thread of its own makes it and nobody waits.
    fn abort(self: &Arc<Self>) {
        if !self.aborted.swap(true, Ordering::Relaxed) {
            let comm = self.clone();
            let _ = std::thread::Builder::new().name("nccl abort".into()).spawn(move || {
                // SAFETY: the communicator is not used after this: `aborted` is set.
                comm.with(|handle| unsafe { (comm.nccl.ncclCommAbort)(handle) })
            });
        }
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        if !self.aborted.load(Ordering::Relaxed) {
            // SAFETY: nobody else has the handle any more. All exchanges are done, so this frees and does not wait.
            self.with(|handle| unsafe { (self.nccl.ncclCommAbort)(handle) });
        }
    }
}

fn explain(nccl: &Nccl, &NcclError(result): &NcclError) -> String {
    // SAFETY: NCCL returns static strings; null asks for the last error of any communicator.
    let (text, last) =
        unsafe { (c_text((nccl.ncclGetErrorString)(result)), c_text((nccl.ncclGetLastError)(std::ptr::null_mut()))) };
    let last = if last.is_empty() { last } else { format!(": {last}") };
    format!("{text}{last} (NCCL_DEBUG=WARN shows more)")
}

/// One rank's end.
pub struct NcclExchange {
    gpu: Gpu,
    comm: Arc<Comm>,
    rank: i32,
    queue: Arc<CudaStream>,
    watch: Arc<Watch>,
    /// The watch of the other stream if it is in this process, to tell it when this one fails.
    other_watch: Option<Arc<Watch>>,
    /// The event before the swap in progress.
    under_way: Option<Arc<CudaEvent>>,
}

impl NcclExchange {
    /// Begins to join the ranks of `id`; [`NcclExchange::join`] waits for the other rank. Two ranks of one process both
    /// begin before either joins.
    pub fn begin(
        gpu: &Gpu,
        id: &UniqueId,
        watch: &Arc<Watch>,
        other_watch: Option<&Arc<Watch>>,
    ) -> Result<NcclExchange> {
        version()?;
        let nccl = libraries::nccl()?;
        let rank = watch.stream() as i32;
        // NCCL takes the thread's current GPU.
        gpu.check("binding", gpu.context().bind_to_thread())?;
        let mut handle = std::ptr::null_mut();
        let id = ncclUniqueId { internal: id.map(|byte| byte as _) };
        let mut config = config();
        let begun = watch.guarded("joining the other rank", None, || {
            // SAFETY: places to read from and write to; the layout is that of NCCL 2.17, which later ones extend.
            unsafe { (nccl.ncclCommInitRankConfig)(&mut handle, 2, id, rank, &mut config) }
        });
        begun.result().map_err(|error| watch.failed("joining the other rank", &explain(nccl, &error)))?;
        let comm = Arc::new(Comm { nccl, handle: Mutex::new(Handle(handle)), aborted: AtomicBool::new(false) });
        let (gpu, queue, watch) = (gpu.clone(), gpu.urgent_queue()?, watch.clone());
        Ok(NcclExchange { gpu, comm, rank, queue, watch, other_watch: other_watch.cloned(), under_way: None })
    }

    /// Waits for the other rank.
    pub fn join(self) -> Result<NcclExchange> {
        if let Err(problem) = self.comm.settle(&self.watch, None) {
            self.comm.abort();
            return Err(self.watch.failed("joining the other rank", &problem));
        }
        let comm = self.comm.clone();
        self.watch.set_transport(move || {
            if comm.aborted.load(Ordering::Relaxed) { Ok(()) } else { comm.is_ready().map(|_| ()) }
        });
        Ok(self)
    }

    /// Has NCCL queue both directions, in one group.
    fn queue_swap(&self, swap: &Swap, give: Option<&Buffer>, take: Option<&Buffer>) -> Result<(), String> {
        let (nccl, peer) = (self.comm.nccl, 1 - self.rank);
        let kind = ncclDataType_t::ncclUint8;
        let queue = self.queue.cu_stream().cast();
        let ended = self.watch.guarded("queueing the exchange", Some(swap), || {
            self.comm.with(|comm| {
                // SAFETY: buffers of this GPU that hold the values and live until the exchange is done.
                unsafe {
                    let mut results = vec![(nccl.ncclGroupStart)()];
                    if let Some(give) = give {
                        results.push((nccl.ncclSend)(give.address() as _, swap.bytes, kind, peer, comm, queue));
                    }
                    if let Some(take) = take {
                        results.push((nccl.ncclRecv)(take.address() as _, swap.bytes, kind, peer, comm, queue));
                    }
                    results.push((nccl.ncclGroupEnd)());
                    results
                }
            })
        });
        for result in ended {
            result.result().map_err(|error| explain(nccl, &error))?;
        }
        Ok(())
    }

    /// The error of a swap that could not be queued after `ready`.
    fn not_queued(&self, swap: &Swap, ready: &CudaEvent, problem: &str) -> Error {
        let error = self.fail(swap, problem);
        // NCCL also fails where the GPU has failed before: that is the cause.
        self.gpu.check("the work before an exchange", ready.try_is_complete()).err().map_or(error, Error::from)
    }

    fn fail(&self, swap: &Swap, problem: &str) -> Error {
        self.comm.abort();
        if self.watch.is_closed() {
            return Error::ExchangeClosed { stream: self.watch.stream(), what: swap.to_string() };
        }
        self.watch.failed(&format!("exchange of {swap}"), problem)
    }
}

/// The settings of a communicator: NCCL_CONFIG_INITIALIZER of nccl.h for 2.22, but not blocking. `tests/abi.rs` compares
/// them with NVIDIA's header.
pub fn config() -> ncclConfig_t {
    ncclConfig_t {
        size: size_of::<ncclConfig_t>(),
        magic: 0xcafe_beef,
        version: 22200,
        blocking: 0,
        cgaClusterSize: UNSET,
        minCTAs: UNSET,
        maxCTAs: UNSET,
        netName: std::ptr::null(),
        splitShare: UNSET,
    }
}

impl Exchange<CudaBackend> for NcclExchange {
    fn start_swap(
        &mut self,
        backend: &CudaBackend,
        swap: &Swap,
        give: Option<&Buffer>,
        take: Option<&mut Buffer>,
    ) -> Result<()> {
        if self.watch.is_closed() {
            return Err(self.fail(swap, ""));
        }
        // After the work that fills `give` and the work that last read `take`.
        let ready = backend.mark()?;
        self.gpu.check("an exchange", self.queue.wait(&ready))?;
        if give.is_some() || take.is_some() {
            let queued = self.queue_swap(swap, give, take.as_deref());
            queued.map_err(|problem| self.not_queued(swap, &ready, &problem))?;
        }
        self.under_way = Some(ready);
        Ok(())
    }

    fn finish_swap(
        &mut self,
        backend: &CudaBackend,
        swap: &Swap,
        _: Option<&mut Buffer>,
    ) -> Result<Transfer<CudaBackend>> {
        let Some(ready) = self.under_way.take() else { unreachable!("no swap is under way") };
        // Only then is it in the queue and an event after it means something.
        let queued = self.comm.settle(&self.watch, Some(swap));
        queued.map_err(|problem| self.not_queued(swap, &ready, &problem))?;
        let done = backend.mark_on(&self.queue)?;
        self.watch.queued(swap, &done);
        backend.wait_for(&done)?;
        Ok((ready, done))
    }

    fn close(&mut self) {
        if let Some(other) = &self.other_watch {
            other.close();
        }
        self.comm.abort();
    }
}
