//! Reading and setting parameters of either stream, in whichever process it runs, and values that one process
//! broadcasts to the other.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Pair;
use crate::backend::Backend;
use crate::engine::stream::{Stream, Tensor};
use crate::error::Result;

/// The elements of a tensor.
type Values = Vec<f32>;

impl<B: Backend> Pair<B> {
    /// Broadcasts what `find` returns in the leading process: the other one waits for it. Both return it.
    pub fn broadcast<T: Serialize + DeserializeOwned>(&mut self, find: impl FnOnce() -> Result<T>) -> Result<T> {
        let found = self.leads().then(find).transpose()?;
        match (found, &mut self.link) {
            (found, Some(link)) => link.broadcast(found),
            (Some(found), None) => Ok(found),
            (None, None) => unreachable!("a process alone leads"),
        }
    }

    /// As [`Pair::broadcast`], for values to the bit.
    pub fn broadcast_values(&mut self, find: impl FnOnce() -> Result<Vec<f32>>) -> Result<Vec<f32>> {
        let found = self.leads().then(find).transpose()?;
        match (found, &mut self.link) {
            (Some(found), Some(link)) => link.send_values(&found).map(|()| found),
            (None, Some(link)) => link.receive_values(),
            (found, None) => Ok(found.unwrap_or_default()),
        }
    }

    /// One stream of this process, for reading and setting its parameters.
    pub fn stream(&mut self, index: usize) -> &mut Stream<B> {
        match self.local(index) {
            Some(stream) => stream,
            None => panic!("stream {index} is in another process"),
        }
    }

    fn local(&mut self, index: usize) -> Option<&mut Stream<B>> {
        self.workers.iter_mut().map(|worker| &mut worker.stream).find(|stream| stream.plan().stream == index)
    }

    /// These tensors of every parameter, by stream, parameter and tensor, on the process that leads; the other one gets
    /// nothing. Both streams are read at once.
    pub fn read_params(&mut self, tensors: &[Tensor]) -> Result<Vec<Vec<Vec<Values>>>> {
        let mut streams = self.each(|stream| {
            let read = |param| tensors.iter().map(|tensor| stream.read_param(param, *tensor)).collect();
            (0..stream.plan().params.len()).map(read).collect::<Result<Vec<Vec<Values>>>>()
        })?;
        match &mut self.link {
            Some(link) if link.rank() == 0 => {
                let mut receive = |_| tensors.iter().map(|_| link.receive_values()).collect();
                streams.push((0..self.plans[1].params.len()).map(&mut receive).collect::<Result<_>>()?);
            }
            Some(link) => {
                streams.drain(..).flatten().flatten().try_for_each(|values| link.send_values(&values))?;
            }
            None => {}
        }
        Ok(streams)
    }

    /// One of a parameter's tensors, on the process that leads; the other one gets nothing.
    pub fn read_param(&mut self, stream: usize, index: usize, tensor: Tensor) -> Result<Vec<f32>> {
        let values = self.local(stream).map(|stream| stream.read_param(index, tensor)).transpose()?;
        match (values, &mut self.link) {
            (Some(values), None) => Ok(values),
            (Some(values), Some(link)) if link.rank() == 0 => Ok(values),
            (Some(values), Some(link)) => link.send_values(&values).map(|()| Vec::new()),
            (None, Some(link)) if link.rank() == 0 => link.receive_values(),
            (None, _) => Ok(Vec::new()),
        }
    }

    /// Sets one of a parameter's tensors to what `values` gives on the process that leads; the other does not call it.
    pub fn write_param(
        &mut self,
        stream: usize,
        index: usize,
        tensor: Tensor,
        values: impl FnOnce() -> Result<Vec<f32>>,
    ) -> Result<()> {
        let leads = self.leads();
        let values = match &mut self.link {
            Some(link) if !leads && link.rank() == stream => link.receive_values()?,
            Some(_) if !leads => return Ok(()),
            _ => values()?,
        };
        if let Some(stream) = self.local(stream) {
            return stream.write_param(index, tensor, &values);
        }
        self.link.as_mut().map_or(Ok(()), |link| link.send_values(&values))
    }
}
