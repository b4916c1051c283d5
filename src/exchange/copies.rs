//! The exchange between two streams of one process by device copies: on one GPU, or on two that reach each other's
//! memory. Each end fetches from the other's buffer, on a CUDA stream of its own, as soon as the other has filled it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use cudarc::driver::sys::CUcontext;
use cudarc::driver::{CudaEvent, CudaStream, result};

use super::{Exchange, Swap, Transfer};
use crate::backend::Backend;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::device::{Buffer, Gpu, enable_peer_access};
use crate::backend::cuda::watch::Watch;
use crate::error::{Error, Result};

/// One end.
pub struct CopyExchange {
    gpu: Gpu,
    /// The queue of the copies.
    queue: Arc<CudaStream>,
    watch: Arc<Watch>,
    /// The other stream's watch, to tell it when this one fails.
    other_watch: Arc<Watch>,
    /// `None` after it is closed.
    to: Option<Sender<Message>>,
    from: Receiver<Message>,
    /// Start and end of the fetch in progress.
    under_way: Option<(Arc<CudaEvent>, Arc<CudaEvent>)>,
}

/// A message between the two ends, sent when the work is queued, long before it is done.
enum Message {
    /// These values may be fetched after this event.
    Offer { swap: Swap, give: Option<DeviceMemory>, ready: Arc<CudaEvent> },
    /// They have been fetched at this event and may be overwritten after it.
    Fetched(Arc<CudaEvent>),
}

/// A buffer in the memory of a GPU.
#[derive(Clone, Copy)]
struct DeviceMemory {
    address: u64,
    context: CUcontext,
}

// SAFETY: an address and a context that live as long as the other stream's buffer, which outlives the swap.
unsafe impl Send for DeviceMemory {}

/// Both ends of a new connection between streams on `gpus`, which may be the same one.
///
/// Fails where two GPUs do not reach each other's memory.
pub fn connect(gpus: [&Gpu; 2], watches: [&Arc<Watch>; 2]) -> Result<[CopyExchange; 2]> {
    enable_peer_access(gpus[0], gpus[1])?;
    enable_peer_access(gpus[1], gpus[0])?;
    let ((to_1, from_0), (to_0, from_1)) = (channel(), channel());
    let end = |index: usize, to, from| {
        Ok::<_, Error>(CopyExchange {
            gpu: gpus[index].clone(),
            queue: gpus[index].urgent_queue()?,
            watch: watches[index].clone(),
            other_watch: watches[1 - index].clone(),
            to: Some(to),
            from,
            under_way: None,
        })
    };
    Ok([end(0, to_1, from_1)?, end(1, to_0, from_0)?])
}

impl CopyExchange {
    fn send(&self, swap: &Swap, message: Message) -> Result<()> {
        let sent = self.to.as_ref().is_some_and(|to| to.send(message).is_ok());
        if sent { Ok(()) } else { Err(self.closed(swap)) }
    }

    /// The other stream's next message: its host thread is somewhere else in the same step.
    fn receive(&self, swap: &Swap) -> Result<Message> {
        self.from.recv_timeout(self.watch.deadline()).map_err(|error| match error {
            RecvTimeoutError::Disconnected => self.closed(swap),
            RecvTimeoutError::Timeout => self.watch.failed(&format!("exchange of {swap}"), &self.watch.too_late()),
        })
    }

    fn closed(&self, swap: &Swap) -> Error {
        Error::ExchangeClosed { stream: self.watch.stream(), what: swap.to_string() }
    }

    fn mismatch(&self, swap: &Swap, found: String) -> Error {
        Error::ExchangeMismatch { stream: self.watch.stream(), expected: format!("a swap of {swap}"), found }
    }

    /// Queues the copy from the other stream's buffer.
    fn fetch(&self, swap: &Swap, from: DeviceMemory, to: &Buffer) -> Result<()> {
        let (bytes, context) = (swap.bytes, self.gpu.context());
        let copied = context.bind_to_thread().and_then(|()| {
            // SAFETY: both buffers hold the values and live until the swap is done.
            unsafe {
                let queue = self.queue.cu_stream();
                if from.context == context.cu_ctx() {
                    result::memcpy_dtod_async(to.address(), from.address, bytes, queue)
                } else {
                    let ours = context.cu_ctx();
                    result::memcpy_peer_async(ours, to.address(), from.context, from.address, bytes, queue)
                }
            }
        });
        Ok(self.gpu.check("copying from the other stream", copied)?)
    }
}

impl Exchange<CudaBackend> for CopyExchange {
    fn start_swap(
        &mut self,
        backend: &CudaBackend,
        swap: &Swap,
        give: Option<&Buffer>,
        take: Option<&mut Buffer>,
    ) -> Result<()> {
        let ready = backend.mark()?;
        let memory = |give: &Buffer| DeviceMemory { address: give.address(), context: self.gpu.context().cu_ctx() };
        self.send(swap, Message::Offer { swap: swap.clone(), give: give.map(memory), ready: ready.clone() })?;
        let (theirs, their_swap, their_ready) = match self.receive(swap)? {
            Message::Offer { swap, give, ready } => (give, swap, ready),
            Message::Fetched(_) => return Err(self.mismatch(swap, "the end of an earlier one".into())),
        };
        if their_swap != *swap || theirs.is_some() != take.is_some() {
            return Err(self.mismatch(swap, format!("{their_swap}, given: {}", theirs.is_some())));
        }
        if let (Some(from), Some(to)) = (theirs, take) {
            // After the other stream has filled its buffer, and this one has last used its own.
            let waited = self.queue.wait(&their_ready).and_then(|()| self.queue.wait(&ready));
            self.gpu.check("an exchange", waited)?;
            self.fetch(swap, from, to)?;
        }
        let done = backend.mark_on(&self.queue)?;
        self.watch.queued(swap, &done);
        self.under_way = Some((ready, done.clone()));
        self.send(swap, Message::Fetched(done))
    }

    fn finish_swap(
        &mut self,
        backend: &CudaBackend,
        swap: &Swap,
        _: Option<&mut Buffer>,
    ) -> Result<Transfer<CudaBackend>> {
        let Some((started, done)) = self.under_way.take() else { unreachable!("no swap is under way") };
        let Message::Fetched(fetched) = self.receive(swap)? else {
            return Err(self.mismatch(swap, "another offer".into()));
        };
        backend.wait_for(&done)?;
        // What this stream gave may be overwritten from here on.
        backend.wait_for(&fetched)?;
        Ok((started, done))
    }

    fn close(&mut self) {
        self.to = None;
        self.other_watch.close();
    }
}
