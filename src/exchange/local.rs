//! The exchange within one process: each end sends the other a filled buffer and keeps the one it gets for the next
//! time, so that no memory is allocated after the first step.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::{Exchange, Swap, Transfer};
use crate::backend::cpu::CpuBackend;
use crate::error::{Error, Result};

/// One end of a connection between two streams of one process.
pub struct LocalExchange {
    stream: usize,
    /// `None` after it is closed.
    to: Option<Sender<Parcel>>,
    from: Receiver<Parcel>,
    /// Buffers that came with earlier swaps.
    spare: Vec<Vec<f32>>,
    /// The start of the swap in flight.
    started: Instant,
}

/// A message with values for a swap. Where a stream gives nothing it has no values, but the buffer is sent back all the
/// same.
struct Parcel {
    swap: Swap,
    values: Vec<f32>,
    sent: Instant,
}

/// Both ends of a new connection: stream 0's and stream 1's.
pub fn connect() -> (LocalExchange, LocalExchange) {
    let ((to_1, from_0), (to_0, from_1)) = (channel(), channel());
    let end =
        |stream, to, from| LocalExchange { stream, to: Some(to), from, spare: Vec::new(), started: Instant::now() };
    (end(0, to_1, from_1), end(1, to_0, from_0))
}

impl LocalExchange {
    fn closed(&self, swap: &Swap) -> Error {
        Error::ExchangeClosed { stream: self.stream, what: swap.to_string() }
    }
}

impl Exchange<CpuBackend> for LocalExchange {
    fn start_swap(
        &mut self,
        _: &CpuBackend,
        swap: &Swap,
        give: Option<&Vec<f32>>,
        _: Option<&mut Vec<f32>>,
    ) -> Result<()> {
        self.started = Instant::now();
        let given = give.map_or(&[][..], |give| &give[..swap.elems]);
        let fits = self.spare.iter().position(|spare| spare.capacity() >= given.len());
        let mut values =
            fits.map(|index| self.spare.swap_remove(index)).or_else(|| self.spare.pop()).unwrap_or_default();
        values.clear();
        values.extend_from_slice(given);
        let sent = self
            .to
            .as_ref()
            .is_some_and(|to| to.send(Parcel { swap: swap.clone(), values, sent: Instant::now() }).is_ok());
        if sent { Ok(()) } else { Err(self.closed(swap)) }
    }

    fn finish_swap(
        &mut self,
        _: &CpuBackend,
        swap: &Swap,
        take: Option<&mut Vec<f32>>,
    ) -> Result<Transfer<CpuBackend>> {
        let parcel = self.from.recv().map_err(|_| self.closed(swap))?;
        let expected = take.as_ref().map_or(0, |_| swap.elems);
        if parcel.swap != *swap || parcel.values.len() != expected {
            let found = format!("{} values of a swap of {}", parcel.values.len(), parcel.swap);
            return Err(Error::ExchangeMismatch {
                stream: self.stream,
                expected: format!("{expected} values of a swap of {swap}"),
                found,
            });
        }
        if let Some(take) = take {
            take[..expected].copy_from_slice(&parcel.values);
        }
        self.spare.push(parcel.values);
        Ok((self.started, parcel.sent.max(self.started)))
    }

    fn close(&mut self) {
        self.to = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::swap::Pass;

    fn swap(elems: usize) -> Swap {
        Swap { layer: "conv3".into(), pass: Pass::Forward, step: Some(0), elems, bytes: 4 * elems }
    }

    #[test]
    fn a_closed_end_is_an_error_for_the_other_not_a_hang() {
        let (mut ours, mut theirs) = connect();
        let backend = CpuBackend::default();
        ours.start_swap(&backend, &swap(1), Some(&vec![1.]), None).unwrap();
        theirs.close();
        assert!(matches!(ours.finish_swap(&backend, &swap(1), None), Err(Error::ExchangeClosed { stream: 0, .. })));
    }

    #[test]
    fn another_swap_than_the_one_due_is_an_error() {
        let (mut ours, mut theirs) = connect();
        let backend = CpuBackend::default();
        ours.start_swap(&backend, &swap(2), Some(&vec![1., 2.]), None).unwrap();
        let found = theirs.finish_swap(&backend, &swap(3), Some(&mut vec![0.; 3]));
        assert!(matches!(found, Err(Error::ExchangeMismatch { stream: 1, .. })), "{found:?}");
    }

    #[test]
    fn buffers_are_reused() {
        let (mut a, mut b) = connect();
        let backend = CpuBackend::default();
        for _ in 0..5 {
            // One way only, as before a layer that is on stream 0.
            b.start_swap(&backend, &swap(100), Some(&vec![1.; 100]), None).unwrap();
            a.start_swap(&backend, &swap(100), None, None).unwrap();
            a.finish_swap(&backend, &swap(100), Some(&mut vec![0.; 100])).unwrap();
            b.finish_swap(&backend, &swap(100), None).unwrap();
        }
        assert_eq!(a.spare.len() + b.spare.len(), 2);
    }
}
