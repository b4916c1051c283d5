//! The optimizers' updates, in fixed blocks that threads share. Bound by memory: each value is read and written once.

use rayon::prelude::*;

use super::simd::dispatch;
use crate::shapes::Update;

/// Elements a block: enough to be worth a thread's while.
const BLOCK: usize = 1 << 15;

/// See `Backend::update`.
pub fn update(update: &Update, dw: &[f32], w: &mut [f32], state: &mut [Vec<f32>]) {
    let elems = w.len();
    let mut blocks = WeightPart::cut(BLOCK, w, state);
    let (update, dw) = (Prepared::new(update), &dw[..elems]);
    blocks.par_iter_mut().zip(dw.par_chunks(BLOCK)).for_each(|(part, dw)| dispatch(|| part.update(0, dw, &update)));
}

/// Some weights and their part of the optimizer's state.
pub(crate) struct WeightPart<'a> {
    w: &'a mut [f32],
    state: [&'a mut [f32]; 2],
}

impl<'a> WeightPart<'a> {
    /// `w` and its state tensors (one or two) in parts of `elems` weights.
    pub fn cut(elems: usize, w: &'a mut [f32], state: &'a mut [Vec<f32>]) -> Vec<WeightPart<'a>> {
        let mut parts: Vec<WeightPart> =
            w.chunks_mut(elems).map(|w| WeightPart { w, state: Default::default() }).collect();
        for (index, state) in state.iter_mut().enumerate() {
            for (part, state) in parts.iter_mut().zip(state.chunks_mut(elems)) {
                part.state[index] = state;
            }
        }
        parts
    }

    /// Weights in the part.
    pub fn elems(&self) -> usize {
        self.w.len()
    }

    /// Updates the weights from `first` on by their gradient.
    #[inline(always)]
    pub fn update(&mut self, first: usize, dw: &[f32], update: &Prepared) {
        let w = &mut self.w[first..][..dw.len()];
        let [state, second] = &mut self.state;
        match *update {
            Prepared::Sgd { lr, momentum, decay } => {
                let v = &mut state[first..][..dw.len()];
                for ((w, v), dw) in w.iter_mut().zip(v).zip(dw) {
                    *v = momentum * *v - decay * *w - lr * dw;
                    *w += *v;
                }
            }
            Prepared::Adam { beta1, beta2, epsilon, weight_decay, rate, root } => {
                let (m, v) = (&mut state[first..][..dw.len()], &mut second[first..][..dw.len()]);
                for (((w, m), v), dw) in w.iter_mut().zip(m).zip(v).zip(dw) {
                    let gradient = dw + weight_decay * *w;
                    *m = beta1 * *m + (1. - beta1) * gradient;
                    *v = beta2 * *v + (1. - beta2) * gradient * gradient;
                    *w -= rate * *m / (v.sqrt() / root + epsilon);
                }
            }
        }
    }
}

/// An [`Update`] with the values that are the same for all weights.
#[derive(Clone, Copy)]
pub(crate) enum Prepared {
    /// Its `decay` is weight_decay * lr.
    Sgd { lr: f32, momentum: f32, decay: f32 },
    /// With the two factors of [`Update::adam_factors`].
    Adam { beta1: f32, beta2: f32, epsilon: f32, weight_decay: f32, rate: f32, root: f32 },
}

impl Prepared {
    /// See [`Prepared`].
    pub fn new(update: &Update) -> Self {
        match *update {
            Update::Sgd { lr, momentum, weight_decay } => Prepared::Sgd { lr, momentum, decay: weight_decay * lr },
            Update::Adam { beta1, beta2, epsilon, weight_decay, .. } => {
                let [rate, root] = update.adam_factors();
                Prepared::Adam { beta1, beta2, epsilon, weight_decay, rate, root }
            }
        }
    }
}
