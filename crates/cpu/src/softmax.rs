//! Softmax and cross-entropy over classes that may be on two streams. Small: a batch of rows of logits.

use rayon::prelude::*;

use crate::shapes::SoftmaxShape;

const STATS: usize = SoftmaxShape::STATS;

/// See `Backend::softmax_stats`.
pub fn softmax_stats(shape: &SoftmaxShape, n: usize, logits: &[f32], labels: &[u32], stats: &mut [f32]) {
    let rows = logits.par_chunks_exact(shape.classes).zip(&labels[..n]);
    rows.zip(stats.par_chunks_exact_mut(STATS)).for_each(|((logits, &label), stats)| {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, |max, v| if v > max || v.is_nan() { v } else { max });
        let sum = logits.iter().map(|v| (v - max).exp()).sum();
        let own_label = (label as usize).checked_sub(shape.first).and_then(|class| logits.get(class));
        stats.copy_from_slice(&[max, sum, own_label.copied().unwrap_or(f32::NEG_INFINITY)]);
    });
}

/// See `Backend::softmax_cross_entropy`.
#[allow(clippy::too_many_arguments)] // the operation's contract
pub fn softmax_cross_entropy(
    shape: &SoftmaxShape,
    n: usize,
    logits: &[f32],
    labels: &[u32],
    ours: &[f32],
    theirs: Option<&[f32]>,
    dlogits: &mut [f32],
    scores: &mut [f32],
) {
    let images = dlogits.par_chunks_exact_mut(shape.classes).zip(scores.par_chunks_exact_mut(2)).take(n);
    images.enumerate().for_each(|(image, (dlogits, scores))| {
        let logits = &logits[image * shape.classes..][..shape.classes];
        let label = labels[image] as usize;
        let stats = |from: &[f32]| -> [f32; STATS] { std::array::from_fn(|i| from[image * STATS + i]) };
        let (mut max, mut sum, mut label_logit) = stats(ours).into();
        if let Some(theirs) = theirs {
            // Symmetric in the two streams, so that both get the same bits.
            let (their_max, their_sum, their_label) = stats(theirs).into();
            let whole_max = if max.is_nan() || max > their_max { max } else { their_max };
            sum = sum * (max - whole_max).exp() + their_sum * (their_max - whole_max).exp();
            max = whole_max;
            label_logit = label_logit.max(their_label);
        }
        for (class, (d, v)) in dlogits.iter_mut().zip(logits).enumerate() {
            let one_hot = if class + shape.first == label { 1. } else { 0. };
            *d = ((v - max).exp() / sum - one_hot) / n as f32;
        }
        let ranks_above =
            |(class, v): (usize, &f32)| *v > label_logit || (*v == label_logit && class + shape.first < label);
        let above = logits.iter().enumerate().filter(|&row| ranks_above(row)).count();
        scores.copy_from_slice(&[sum.ln() + max - label_logit, above as f32]);
    });
}
