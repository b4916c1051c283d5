//! Batches made ahead: while the network computes one, the next is read and decoded.
//!
//! What a batch holds depends on its images, seed and epoch alone, so it is the same however many threads make it and
//! whenever they do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::input::Preprocessor;
use super::{Batch, DataSet};
use crate::error::{Error, Result};

/// One batch to make.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Of the held-out images, not of those to train on.
    pub held_out: bool,
    /// The images' numbers.
    pub indices: Vec<u32>,
    /// In training, the seed and the epoch that change the images.
    pub augment: Option<(u64, u64)>,
}

/// A thread that makes batches on the threads of the global pool.
pub struct Loader {
    batches: Receiver<Result<Batch>>,
}

impl Loader {
    /// Starts to make `orders`, in turn. One batch is ready and one under way at most, so memory is bounded; the thread
    /// ends when this is dropped.
    pub fn start(
        data: Arc<DataSet>,
        input: Arc<Preprocessor>,
        orders: impl Iterator<Item = Order> + Send + 'static,
    ) -> Result<Loader> {
        let (to, batches) = sync_channel(1);
        let work = move || {
            for Order { held_out, indices, augment } in orders {
                let set = if held_out { &data.held_out } else { &data.train };
                let making = tracing::debug_span!("make batch").entered();
                let batch = input.batch(set, &indices, augment);
                drop(making);
                let failed = batch.is_err();
                if to.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("loader".into())
            .spawn(work)
            .map_err(|error| Error::Device(format!("cannot start the loader's thread: {error}")))?;
        Ok(Loader { batches })
    }

    /// The next batch; waits for it.
    ///
    /// Fails where an image of it cannot be read.
    pub fn wait(&mut self) -> Result<Batch> {
        let ended = || Err(Error::Device("the loader stopped at an internal error; please report it".into()));
        self.batches.recv().unwrap_or_else(|_| ended())
    }
}
