//! The context of a stream: its device, its end of the exchange and its threads.

use crate::backend::cpu::CpuBackend;
use crate::backend::{Backend, Precision};
use crate::error::{Error, Result};
use crate::exchange::Exchange;
use crate::exchange::local;

/// One stream's context: the device, the end of the exchange and the threads that it runs with.
pub struct StreamContext<B: Backend> {
    /// The stream's number.
    pub stream: usize,
    /// Its device.
    pub backend: B,
    /// Its end of the exchange; `None` where there is only one stream.
    pub exchange: Option<Box<dyn Exchange<B>>>,
    /// CPU threads.
    pub threads: usize,
}

impl StreamContext<CpuBackend> {
    /// The contexts of all streams on this machine's CPU with `threads` threads in all, with the fast operations or
    /// those of the [`reference`](mod@crate::backend::reference).
    ///
    /// Fails where the CPU cannot multiply in that precision.
    pub fn on_cpu(
        streams: usize,
        threads: usize,
        precision: Precision,
        is_reference: bool,
    ) -> Result<Vec<StreamContext<CpuBackend>>> {
        if is_reference && precision != Precision::Fp32 {
            return Err(Error::Device(
                "the reference backend computes in fp32 only; omit --precision or --backend".into(),
            ));
        }
        let threads = threads.max(1);
        let (ours, theirs) = local::connect();
        let ends: [Box<dyn Exchange<CpuBackend>>; 2] = [Box::new(ours), Box::new(theirs)];
        let contexts = CpuBackend::for_streams(streams, threads, precision)?.into_iter().zip(ends).enumerate();
        let context = |(stream, (backend, end)): (usize, (CpuBackend, Box<dyn Exchange<CpuBackend>>))| StreamContext {
            stream,
            backend: if is_reference { backend.as_reference() } else { backend },
            exchange: (streams > 1).then_some(end),
            // Cores are shared out evenly; stream 0 gets the odd one.
            threads: ((threads + streams - 1 - stream) / streams).max(1),
        };
        Ok(contexts.map(context).collect())
    }
}
