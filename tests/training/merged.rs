//! Two streams are one network: the same weights in a single stream (grouped convolutions filled up with zeros) give
//! the same logits, losses and gradients.

use crate::support;
use crate::support::tolerance::{MERGED, assert_close};
use alexnet_split::engine::merge::{fill_groups, merge, split, take_groups};
use alexnet_split::engine::stream::Tensor;
use alexnet_split::net::options::NetOptions;
use alexnet_split::net::spec::Placement;

#[test]
fn two_streams_equal_one_merged_network() {
    for fc8 in [Placement::Split, Placement::Stream0] {
        // Without normalization: its windows end at the border between the halves (the golden files have it).
        let options = NetOptions { lrn: Some(false), fc8: Some(fc8), ..support::tiny_options() };
        let (net, mut two) = support::pair(&options, 6, 2);
        let (_, mut one) = support::pair(&NetOptions { streams: Some(1), ..options }, 6, 2);
        let merged = merge(&mut two, Tensor::Value).unwrap();
        let filled = fill_groups(merged.clone(), two.plans());
        assert_eq!(take_groups(filled.clone(), two.plans()), merged);
        split(&mut one, Tensor::Value, &filled).unwrap();
        let batch = support::batch(&net, 6, 1.);
        let wide = |values: Vec<Vec<f32>>| values.concat().into_iter().map(f64::from).collect::<Vec<f64>>();

        let (a, b) = (two.forward_backward(&batch, 9, 4).unwrap(), one.forward_backward(&batch, 9, 4).unwrap());
        assert!((a.loss() - b.loss()).abs() < MERGED * b.loss(), "{a:?} {b:?}");
        assert_eq!((a.top1_errors, a.top5_errors), (b.top1_errors, b.top5_errors));
        assert_close("logits", &two.logits(6).unwrap().concat(), &wide(one.logits(6).unwrap()), MERGED);
        let gradients = merge(&mut two, Tensor::Gradient).unwrap();
        let (a, b) = (fill_groups(gradients, two.plans()), merge(&mut one, Tensor::Gradient).unwrap());
        for (name, gradient) in a {
            // Across the groups, where the two streams have no weights, the one network has gradients all the same.
            let kept: Vec<usize> = (0..gradient.values.len()).filter(|&i| gradient.values[i] != 0.).collect();
            assert!(4 * kept.len() >= gradient.values.len(), "{name}: {} of {}", kept.len(), gradient.values.len());
            let ours: Vec<f32> = kept.iter().map(|&i| gradient.values[i]).collect();
            let theirs: Vec<f64> = kept.iter().map(|&i| f64::from(b[&name].values[i])).collect();
            assert_close(&name, &ours, &theirs, MERGED);
        }
    }
}
