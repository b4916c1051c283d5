//! Looking into a stream, and setting its parameters.

use super::{ParamBuffers, Record, Stream, Tensor, buffers};
use crate::backend::Backend;
use crate::engine::extremes::Extremes;
use crate::error::Result;
use crate::net::plan::{Op, Plan};

const NOT_KEPT: &str = "the gradient of the newest batch was kept";

impl<B: Backend> Stream<B> {
    /// The network's input of the newest batch of `n` images: N C H W; `shared` as in [`Stream::forward`].
    pub fn read_input(&self, n: usize, shared: Option<&B::Buffer>) -> Result<Vec<f32>> {
        self.backend.read(shared.unwrap_or(&self.buffers[0]), self.plan.shape(0, n))
    }

    /// From now on keeps a copy of every activation and gradient of the newest batch, for which no layers are fused:
    /// `plan` is the stream's whole one (slow; for tests and study).
    pub fn start_recording(&mut self, plan: Plan) -> Result<()> {
        self.record = Some(Vec::new());
        self.replan(plan)
    }

    /// Takes another plan, with the same parameters.
    fn replan(&mut self, plan: Plan) -> Result<()> {
        self.buffers = buffers(&self.backend, &plan, self.capacity, self.shares_input)?;
        self.gradients = plan.gradient_slots();
        self.plan = plan;
        self.reset_times();
        Ok(())
    }

    /// The newest batch's tensors: `conv1` is a layer's output, `conv1.dx` the gradient with respect to its input.
    pub fn recorded(&self) -> &[Record] {
        self.record.as_deref().unwrap_or_default()
    }

    /// Waits for the batch and reads this stream's logits: n rows of its classes (none where fc8 is elsewhere).
    pub fn read_logits(&mut self, n: usize) -> Result<Vec<f32>> {
        let Some(last) = self.plan.layers.last() else { return Ok(Vec::new()) };
        self.backend.read(&self.buffers[last.x], self.plan.shape(last.x, n))
    }

    /// Reads one of a parameter's tensors. The gradient must have been kept: see [`Stream::backward`].
    pub fn read_param(&self, index: usize, tensor: Tensor) -> Result<Vec<f32>> {
        let (buffers, shape) = (&self.params[index], self.plan.params[index].tensor);
        let from = match tensor {
            Tensor::Value => &buffers.value,
            Tensor::Gradient => buffers.gradient.as_ref().expect(NOT_KEPT),
            Tensor::State(state) => &buffers.state[state],
        };
        self.backend.read(from, shape)
    }

    /// Sets one of a parameter's tensors; `values` has its elements, no more and no less.
    pub fn write_param(&mut self, index: usize, tensor: Tensor, values: &[f32]) -> Result<()> {
        assert_eq!(values.len(), self.plan.params[index].elems(), "elements of {}", self.plan.params[index].name);
        let (buffers, shape) = (&mut self.params[index], self.plan.params[index].tensor);
        let to = match tensor {
            Tensor::Value => &mut buffers.value,
            Tensor::Gradient => buffers.gradient.as_mut().expect(NOT_KEPT),
            Tensor::State(state) => &mut buffers.state[state],
        };
        self.backend.write(values, shape, to)
    }

    /// Number of state tensors per parameter.
    pub fn states(&self) -> usize {
        self.params.first().map_or(0, |param| param.state.len())
    }

    /// The extreme values of the newest batch of `n` images: activations by layer, parameters, gradients.
    pub fn extremes(&self, n: usize) -> Result<Vec<Extremes>> {
        let Stream { plan, backend, buffers, params, .. } = self;
        let mut found = Vec::new();
        for (index, layer) in plan.layers.iter().enumerate() {
            // A layer that works in place leaves nothing of the one before.
            let is_last = plan.layers[index + 1..].iter().all(|later| later.y != layer.y);
            if is_last && !matches!(layer.op, Op::SoftmaxCrossEntropy(_) | Op::Absent) {
                let values = backend.read(&buffers[layer.y], plan.shape(layer.y, n))?;
                found.push(Extremes::of(layer.name.to_string(), &values));
            }
        }
        for (param, ParamBuffers { value, gradient, .. }) in plan.params.iter().zip(params) {
            found.push(Extremes::of(param.name.clone(), &backend.read(value, param.tensor)?));
            if let Some(gradient) = gradient {
                let gradient = backend.read(gradient, param.tensor)?;
                found.push(Extremes::of(format!("{}.gradient", param.name), &gradient));
            }
        }
        Ok(found)
    }
}
