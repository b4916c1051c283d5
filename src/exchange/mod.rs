//! What carries activations and gradients between the two streams. One verb: swap.

pub mod local;

use crate::backend::Backend;
use crate::error::Result;
use crate::report::times::Pass;

/// One exchange: which one it is, and how many values go each way (none, where nothing is given).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Index of the layer that needs it.
    pub layer: usize,
    /// Activations go forward, gradients backward.
    pub pass: Pass,
    /// Values in each buffer.
    pub elems: usize,
}

/// One stream's end of the connection.
///
/// Both ends call [`Exchange::start_swap`] and [`Exchange::finish_swap`] in the same order with the same [`Swap`]; at
/// most one swap is under way. What one end gives is what the other takes, so a swap is its own adjoint. Both
/// directions may be used, or one (`None` at both ends of the other).
pub trait Exchange<B: Backend>: Send {
    /// Starts: `give` is on its way when this returns and may be overwritten by work queued later. `take` must not be
    /// used until the swap is finished.
    ///
    /// Fails with [`crate::error::Error::ExchangeClosed`] where the other stream has ended.
    fn start_swap(
        &mut self,
        backend: &B,
        swap: &Swap,
        give: Option<&B::Buffer>,
        take: Option<&mut B::Buffer>,
    ) -> Result<()>;

    /// Finishes: `take` holds the other stream's values for all work queued later.
    ///
    /// Fails as [`Exchange::start_swap`], and with [`crate::error::Error::ExchangeMismatch`] where the other stream is at another swap.
    fn finish_swap(&mut self, backend: &B, swap: &Swap, take: Option<&mut B::Buffer>) -> Result<()>;

    /// Ends the connection, so that the other stream does not wait for ever for one that has failed.
    fn close(&mut self);
}
