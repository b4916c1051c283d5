//! The softmax and the loss, however the classes are split.

use alexnet_split::backend::reference::definitions::{self as reference, wide};
use alexnet_split::backend::*;

use crate::checks::{Stored, output, upload, written};
use crate::support::normals;
use crate::support::tolerance::{OPERATION, assert_close};

/// Both halves' gradient, losses and ranks, the classes cut at `cut` (all in one at `cut` = `classes`).
pub fn split_softmax<B: Backend>(
    backend: &B,
    classes: usize,
    cut: usize,
    logits: &[f32],
    labels: &[u32],
) -> (Vec<f32>, [Vec<f32>; 2]) {
    let n = labels.len();
    let parts = [0..cut, cut..classes];
    let split = cut < classes;
    let shapes = parts.clone().map(|part| SoftmaxShape { classes: part.len(), first: part.start, split });
    let logits = parts.clone().map(|part| {
        let rows: Vec<f32> = logits.chunks(classes).flat_map(|row| row[part.clone()].to_vec()).collect();
        upload(backend, &rows, TensorShape::Logits(n, part.len()))
    });
    let count = if split { 2 } else { 1 };
    let stats: Vec<B::Buffer> = (0..count)
        .map(|i| {
            let mut stats = output(backend, 3 * n);
            backend.softmax_stats(&shapes[i], n, &logits[i], labels, &mut stats).unwrap();
            written(backend, "stats", &stats, 3 * n);
            stats
        })
        .collect();
    let results: Vec<(Vec<f32>, Vec<f32>)> = (0..count)
        .map(|i| {
            let maps = TensorShape::Maps(n, [shapes[i].classes, 1, 1]);
            let (mut d, mut scores) = (output(backend, maps), output(backend, 2 * n));
            let theirs = split.then(|| &stats[1 - i]);
            backend
                .softmax_cross_entropy(&shapes[i], n, &logits[i], labels, &stats[i], theirs, &mut d, &mut scores)
                .unwrap();
            (written(backend, "dlogits", &d, maps), written(backend, "scores", &scores, 2 * n))
        })
        .collect();
    let mut gradient = Vec::new();
    for image in 0..n {
        for (i, (d, _)) in results.iter().enumerate() {
            gradient.extend_from_slice(&d[image * parts[i].len()..][..parts[i].len()]);
        }
    }
    let losses = |i: usize| results[i].1.iter().step_by(2).copied().collect::<Vec<_>>();
    if split {
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(losses(0).iter().zip(&losses(1)).all(same), "both streams get the same bits");
    }
    let above = (0..n).map(|image| results.iter().map(|(_, scores)| scores[2 * image + 1]).sum()).collect();
    (gradient, [losses(0), above])
}

pub fn softmax_cross_entropy_wherever_the_classes_live<B: Backend>(backend: &B, stored: Stored) {
    for (classes, cut) in [(7, 4), (10, 5), (1000, 500), (2, 1), (10, 10), (1, 1)] {
        let labels: Vec<u32> = (0..6).map(|i| (i * 7 % classes) as u32).collect();
        // Large logits would overflow without the maximum; equal ones test the ranks.
        let logits: Vec<f32> = normals(6 * classes, 40., 1).iter().map(|v| v.round()).collect();
        let (gradient, [losses, above]) = split_softmax(backend, classes, cut, &logits, &labels);
        let (expected_losses, expected) = reference::softmax_cross_entropy(classes, &wide(&logits), &labels);
        assert_close("dlogits", &gradient, &expected, stored.1);
        assert_close("losses", &losses, &expected_losses, OPERATION);
        for (image, row) in logits.chunks(classes).enumerate() {
            let label = labels[image] as usize;
            let rank = (0..classes)
                .filter(|&class| row[class] > row[label] || (row[class] == row[label] && class < label))
                .count();
            assert_eq!(above[image], rank as f32);
        }
    }
    let (_, [losses, _]) = split_softmax(backend, 4, 2, &[0., 1., f32::NAN, 2.], &[0]);
    assert!(!losses[0].is_finite(), "a NaN in the other stream must be seen");
}
