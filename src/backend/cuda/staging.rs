//! Copies between host and device through page-locked memory, which the device reaches while the host goes on.

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream, result};

use super::device::{Gpu, Pinned};
use crate::backend::TensorShape;
use crate::error::Result;

/// Bytes of an upload's piece: long enough for full speed, short enough to fill one while another is on its way.
const PIECE_BYTES: usize = 4 << 20;

/// Reads up to this size keep their memory for the next one.
const SMALL_READ_ELEMS: usize = 1 << 16;

/// Two pieces for uploads that take turns, and memory of earlier small reads.
pub struct Staging {
    pieces: [Pinned; 2],
    next: usize,
    spare: Vec<Pinned>,
}

/// A read under way.
pub struct Read {
    memory: Pinned,
    elems: usize,
    converts: Option<TensorShape>,
}

impl Read {
    /// The shape that its words are converted to.
    pub fn converts(&self) -> Option<TensorShape> {
        self.converts
    }

    /// The event after which the values are there.
    pub fn done(&self) -> Option<&CudaEvent> {
        self.memory.copied()
    }
}

impl Staging {
    /// Allocates the pieces.
    pub fn new(gpu: &Gpu) -> Result<Staging> {
        let piece = || gpu.alloc_pinned(PIECE_BYTES / size_of::<f32>());
        Ok(Staging { pieces: [piece()?, piece()?], next: 0, spare: Vec::new() })
    }

    /// Makes memory for a small read of `elems` values.
    pub fn reserve(&mut self, gpu: &Gpu, elems: usize) -> Result<()> {
        if self.spare.iter().all(|memory| memory.elems() < elems) {
            self.spare.push(gpu.alloc_pinned(elems)?);
        }
        Ok(())
    }

    /// Queues the upload of `host` to the device's `address`; `host` may change when this returns. `block_until` waits
    /// for the piece's last upload.
    pub fn write(
        &mut self,
        gpu: &Gpu,
        queue: &CudaStream,
        host: &[u8],
        address: u64,
        block_until: &dyn Fn(&CudaEvent) -> Result<()>,
    ) -> Result<()> {
        for (index, part) in host.chunks(PIECE_BYTES).enumerate() {
            let piece = &mut self.pieces[self.next];
            if let Some(copied) = piece.copied() {
                block_until(copied)?;
            }
            bytemuck::cast_slice_mut(piece.values_mut())[..part.len()].copy_from_slice(part);
            let bytes: &[u8] = &bytemuck::cast_slice(piece.values())[..part.len()];
            let to = address + (index * PIECE_BYTES) as u64;
            let copied = gpu.context().bind_to_thread().and_then(|()| {
                // SAFETY: the caller's buffer holds the bytes; the piece is not touched before the event.
                unsafe { result::memcpy_htod_async(to, bytes, queue.cu_stream()) }
            });
            let done = copied.and_then(|()| queue.record_event(Some(CUevent_flags::CU_EVENT_DISABLE_TIMING)));
            piece.busy_until(gpu.check("an upload", done)?);
            self.next = 1 - self.next;
        }
        Ok(())
    }

    /// Queues the download of `elems` words, which whoever reads them `converts`.
    pub fn start_read(
        &mut self,
        gpu: &Gpu,
        queue: &CudaStream,
        address: u64,
        elems: usize,
        converts: Option<TensorShape>,
    ) -> Result<Read> {
        let fits = self.spare.iter().position(|memory| memory.elems() >= elems);
        let mut memory = match fits.map(|index| self.spare.swap_remove(index)) {
            Some(memory) => memory,
            None => gpu.alloc_pinned(elems)?,
        };
        let copied = gpu.context().bind_to_thread().and_then(|()| match elems {
            0 => Ok(()),
            // SAFETY: both ends hold the values; `memory` is not touched before the event.
            _ => unsafe { result::memcpy_dtoh_async(&mut memory.values_mut()[..elems], address, queue.cu_stream()) },
        });
        let done = copied.and_then(|()| queue.record_event(Some(CUevent_flags::CU_EVENT_DISABLE_TIMING)));
        memory.busy_until(gpu.check("a download", done)?);
        Ok(Read { memory, elems, converts })
    }

    /// The values, once they are there.
    pub fn finish_read(&mut self, read: Read) -> Vec<f32> {
        let values = read.memory.values()[..read.elems].to_vec();
        if read.memory.elems() <= SMALL_READ_ELEMS {
            self.spare.push(read.memory);
        }
        values
    }
}
