//! The optimizers' updates, in fixed blocks that threads share. Bound by memory: each value is read and written once.

use rayon::prelude::*;

use super::simd::dispatch;
use crate::shapes::Update;

/// Elements a block: enough to be worth a thread's while.
const BLOCK: usize = 1 << 15;

/// See `Backend::update`.
pub fn update(update: &Update, dw: &[f32], w: &mut [f32], state: &mut [Vec<f32>]) {
    match (*update, state) {
        (Update::Sgd { lr, momentum, weight_decay }, [v]) => {
            let decay = weight_decay * lr;
            w.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK)).zip(dw.par_chunks(BLOCK)).for_each(|((w, v), dw)| {
                dispatch(|| {
                    for ((w, v), dw) in w.iter_mut().zip(v).zip(dw) {
                        *v = momentum * *v - decay * *w - lr * dw;
                        *w += *v;
                    }
                })
            });
        }
        (Update::Adam { beta1, beta2, epsilon, weight_decay, .. }, [m, v]) => {
            let [rate, root] = update.adam_factors();
            let state = m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK));
            w.par_chunks_mut(BLOCK).zip(state).zip(dw.par_chunks(BLOCK)).for_each(|((w, (m, v)), dw)| {
                dispatch(|| {
                    for (((w, m), v), dw) in w.iter_mut().zip(m).zip(v).zip(dw) {
                        let gradient = dw + weight_decay * *w;
                        *m = beta1 * *m + (1. - beta1) * gradient;
                        *v = beta2 * *v + (1. - beta2) * gradient * gradient;
                        *w -= rate * *m / (v.sqrt() / root + epsilon);
                    }
                })
            });
        }
        (_, state) => unreachable!("the stream gives each optimizer its {} state tensors", state.len()),
    }
}
