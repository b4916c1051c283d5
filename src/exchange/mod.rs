//! The exchange: it carries activations and gradients between the two streams. Its one operation is a swap.

pub mod copies;
pub mod local;
pub mod nccl;
pub mod self_test;

use crate::backend::Backend;
use crate::error::Result;
use crate::net::swap::Swap;

/// The time in which a swap's values were in flight: from the call that starts it until the other stream's have
/// arrived.
pub type Transfer<B> = (<B as Backend>::Mark, <B as Backend>::Mark);

/// One stream's end of the connection.
///
/// Both ends call [`Exchange::start_swap`] and [`Exchange::finish_swap`] in the same order with the same [`Swap`]; at
/// most one swap is in progress. What one end gives is what the other takes, so a swap is its own adjoint. Both
/// directions may be used, or one (`None` at both ends of the other).
pub trait Exchange<B: Backend>: Send {
    /// Starts. Until the swap is finished `give` must not be overwritten and `take` must not be used.
    ///
    /// Fails with [`crate::error::Error::ExchangeClosed`] where the other stream has ended.
    fn start_swap(
        &mut self,
        backend: &B,
        swap: &Swap,
        give: Option<&B::Buffer>,
        take: Option<&mut B::Buffer>,
    ) -> Result<()>;

    /// Finishes: `take` holds the other stream's values for all work queued later. Returns the time in which they were
    /// in flight.
    ///
    /// Fails as [`Exchange::start_swap`], and with [`crate::error::Error::ExchangeMismatch`] where the other stream is
    /// at another swap.
    fn finish_swap(&mut self, backend: &B, swap: &Swap, take: Option<&mut B::Buffer>) -> Result<Transfer<B>>;

    /// Ends the connection, so that the other stream does not wait for ever for one that has failed.
    fn close(&mut self);
}
