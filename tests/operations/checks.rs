//! Every operation but products, against its definition in f64, at odd and even sizes, on any device; what lies beyond
//! the batch is untouched.

use alexnet_split::backend::reference::definitions::{self as reference, wide};
use alexnet_split::backend::*;
use alexnet_split::net::plan::Op;
use alexnet_split::net::spec::Activation;
use alexnet_split::rng::{Philox, Purpose};

use crate::support::tolerance::{OPERATION, assert_close};
use crate::support::{cases, normals};

pub fn upload<B: Backend>(backend: &B, values: &[f32]) -> B::Buffer {
    let mut buffer = backend.alloc(values.len()).unwrap();
    backend.write(values, &mut buffer).unwrap();
    buffer
}

/// Stands in memory that an operation must not write.
const UNTOUCHED: f32 = 12345.;

/// Room for `elems` values and one that must stay as it is.
pub fn output<B: Backend>(backend: &B, elems: usize) -> B::Buffer {
    upload(backend, &vec![UNTOUCHED; elems + 1])
}

/// The `elems` values of an output, after a check of the values beyond them.
pub fn written<B: Backend>(backend: &B, name: &str, buffer: &B::Buffer, elems: usize) -> Vec<f32> {
    let mut values = backend.read(buffer, elems + 1).unwrap();
    assert_eq!(values.pop(), Some(UNTOUCHED), "{name} wrote beyond its batch");
    values
}

pub fn augmentation<B: Backend>(backend: &B) {
    // Whole images of the network's size and of a larger one, windows alone; grey for a network that sees colours.
    for (c, side, resize, channels, size) in [
        (3, 20, 20, 3, 20),
        (3, 20, 20, 3, 17),
        (1, 67, 67, 3, 64),
        (3, 17, 20, 3, 17),
        (1, 64, 67, 3, 64),
        (1, 7, 12, 1, 7),
    ] {
        let s = AugmentShape { c, side, resize, channels, size, scale: 0.25 };
        let pixels: Vec<u8> = normals(3 * c * side * side, 60., 1).iter().map(|v| (v + 128.) as u8).collect();
        let mean = normals(c * resize * resize, 100., 2);
        let room = (resize - size) as u32;
        let window = |row, col, mirrored| Window { row, col, mirrored, shift: [7.25, -3., row as f32] };
        let windows = [window(0, room, false), window(room, 0, true), window(room / 2, room / 3, true)];
        let (mean_on_device, elems) = (upload(backend, &mean), 3 * channels * size * size);
        let mut y = output(backend, elems);
        backend.augment(&s, &pixels, &windows, &mean_on_device, &mut y).unwrap();
        let expected = reference::augment(&s, &pixels, &windows, &mean);
        assert_close(&format!("{s:?}"), &written(backend, "y", &y, elems), &expected, OPERATION);
    }
}

pub fn local_response_normalization<B: Backend>(backend: &B) {
    for case in cases::small() {
        let Op::Lrn(s) = case.op else { continue };
        let (images, all) = (3, 3 * s.c * s.pixels);
        let (x, dy) = (normals(all, 3., 1), normals(all, 1., 2));
        let (on_device_x, on_device_dy) = (upload(backend, &x), upload(backend, &dy));
        let (mut y, mut dx) = (output(backend, all), output(backend, all));
        backend.lrn_forward(&s, images, &on_device_x, &mut y).unwrap();
        backend.lrn_backward(&s, images, &on_device_x, &on_device_dy, &mut dx).unwrap();
        let expected = reference::lrn_forward(&s, &wide(&x));
        assert_close(&format!("y, {s:?}"), &written(backend, "y", &y, all), &expected, OPERATION);
        let expected = reference::lrn_backward(&s, &wide(&x), &wide(&dy));
        assert_close(&format!("dx, {s:?}"), &written(backend, "dx", &dx, all), &expected, OPERATION);
    }
}

pub fn max_pooling<B: Backend>(backend: &B) {
    for case in cases::small() {
        let Op::MaxPool(s) = case.op else { continue };
        let (n, ins, outs) = (2, s.c * s.h * s.w, s.c * s.p * s.q);
        // Few distinct values: many ties.
        let x: Vec<f32> = normals(n * ins, 2., 1).iter().map(|v| v.round()).collect();
        let dy = normals(n * outs, 1., 2);
        let places = reference::max_pool_places(&s, n, &x);
        let (on_device_x, on_device_dy) = (upload(backend, &x), upload(backend, &dy));
        let (mut y, mut dx) = (output(backend, n * outs), output(backend, n * ins));
        backend.max_pool_forward(&s, n, &on_device_x, &mut y).unwrap();
        backend.max_pool_backward(&s, n, &on_device_x, &y, &on_device_dy, &mut dx).unwrap();
        let expected: Vec<f32> = places.iter().map(|&place| x[place]).collect();
        assert_eq!(written(backend, "y", &y, n * outs), expected, "{s:?}");
        let mut expected = vec![0.; n * ins];
        places.iter().zip(&dy).for_each(|(&place, dy)| expected[place] += f64::from(*dy));
        assert_close(&format!("dx, {s:?}"), &written(backend, "dx", &dx, n * ins), &expected, OPERATION);
    }
}

pub fn non_linearities<B: Backend>(backend: &B) {
    let elems = 70_001; // more than one block
    let (x, dy) = (normals(elems, 1., 1), normals(elems, 1., 2));
    for kind in [Activation::Relu, Activation::Tanh] {
        let [mut y, mut dx] = [&x, &dy].map(|values| upload(backend, &[&values[..], &[UNTOUCHED]].concat()));
        backend.activation_forward(kind, elems, &mut y).unwrap();
        backend.activation_backward(kind, elems, &y, &mut dx).unwrap();
        let f = |x: f64| if kind == Activation::Relu { x.max(0.) } else { x.tanh() };
        let slope = |x: f64| match kind {
            Activation::Relu => f64::from(x > 0.),
            Activation::Tanh => 1. - x.tanh().powi(2),
        };
        let expected: Vec<f64> = wide(&x).into_iter().map(f).collect();
        assert_close("y", &written(backend, "y", &y, elems), &expected, OPERATION);
        let expected: Vec<f64> = wide(&x).into_iter().zip(wide(&dy)).map(|(x, dy)| dy * slope(x)).collect();
        assert_close("dx", &written(backend, "dx", &dx, elems), &expected, OPERATION);
    }
    let mut y = upload(backend, &[f32::NAN, -1., 0.]);
    backend.activation_forward(Activation::Relu, 3, &mut y).unwrap();
    let y = backend.read(&y, 3).unwrap();
    assert!(y[0].is_nan() && y[1..] == [0., 0.], "a NaN must be seen in the loss");
}

pub fn addition<B: Backend>(backend: &B) {
    for elems in [1, 255, 70_001] {
        let (x, y) = (normals(elems, 1., 1), normals(elems, 1., 2));
        let mut sum = upload(backend, &[&y[..], &[UNTOUCHED]].concat());
        backend.add(elems, &upload(backend, &x), &mut sum).unwrap();
        let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        assert_eq!(written(backend, "y", &sum, elems), expected, "{elems} sums");
    }
}

pub fn dropout_draws_one_mask_for_both_passes<B: Backend>(backend: &B) {
    for (elems, first_unit) in [(1000, 0), (1001, 1001), (3, 6)] {
        for (keep, scaling) in [(0.5, DropoutScaling::Test), (0.8, DropoutScaling::Train), (1., DropoutScaling::Train)]
        {
            let s = DropoutShape { elems, first_unit, keep, layer: 17 };
            let rng = Philox::new(5, Purpose::Dropout, 17);
            let draw = DropoutDraw { mask: Some((rng, 7)), scaling };
            let (n, x) = (20, upload(backend, &vec![1.; 20 * elems]));
            let mut y = output(backend, n * elems);
            backend.dropout_forward(&s, n, &draw, &x, &mut y).unwrap();
            let y = written(backend, "y", &y, n * elems);
            let factor = if scaling == DropoutScaling::Train { 1. / keep } else { 1. };
            for (i, &y) in y.iter().enumerate() {
                let (sample, unit) = (i / elems, first_unit + i % elems);
                let word = rng.block([unit as u32 / 4, sample as u32, 7, 0])[unit % 4];
                let kept = f64::from(word) < f64::from(keep) * 4_294_967_296.;
                assert_eq!(y, if kept { factor } else { 0. }, "sample {sample}, unit {unit}");
            }
            let kept = y.iter().filter(|&&v| v != 0.).count() as f64 / y.len() as f64;
            let deviation = (f64::from(keep * (1. - keep)) / y.len() as f64).sqrt();
            assert!((kept - f64::from(keep)).abs() <= 4. * deviation, "{kept} kept, not {keep}");
            let mut dy = upload(backend, &[vec![1.; n * elems], vec![UNTOUCHED]].concat());
            backend.dropout_backward(&s, n, &draw, &mut dy).unwrap();
            assert_eq!(written(backend, "dy", &dy, n * elems), y);
            let test = DropoutDraw { mask: None, scaling };
            let mut y = output(backend, n * elems);
            backend.dropout_forward(&s, n, &test, &x, &mut y).unwrap();
            let factor = if scaling == DropoutScaling::Test { keep } else { 1. };
            assert!(written(backend, "y", &y, n * elems).iter().all(|&v| v == factor));
        }
    }
}

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
        upload(backend, &rows)
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
            let elems = n * shapes[i].classes;
            let (mut d, mut scores) = (output(backend, elems), output(backend, 2 * n));
            let theirs = split.then(|| &stats[1 - i]);
            backend
                .softmax_cross_entropy(&shapes[i], n, &logits[i], labels, &stats[i], theirs, &mut d, &mut scores)
                .unwrap();
            (written(backend, "dlogits", &d, elems), written(backend, "scores", &scores, 2 * n))
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

pub fn softmax_cross_entropy_wherever_the_classes_live<B: Backend>(backend: &B) {
    for (classes, cut) in [(7, 4), (10, 5), (1000, 500), (2, 1), (10, 10), (1, 1)] {
        let labels: Vec<u32> = (0..6).map(|i| (i * 7 % classes) as u32).collect();
        // Large logits would overflow without the maximum; equal ones test the ranks.
        let logits: Vec<f32> = normals(6 * classes, 40., 1).iter().map(|v| v.round()).collect();
        let (gradient, [losses, above]) = split_softmax(backend, classes, cut, &logits, &labels);
        let (expected_losses, expected) = reference::softmax_cross_entropy(classes, &wide(&logits), &labels);
        assert_close("dlogits", &gradient, &expected, OPERATION);
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

pub fn updates<B: Backend>(backend: &B) {
    let elems = 70_001;
    let (w, v, m, dw) = (normals(elems, 1., 1), normals(elems, 0.1, 2), normals(elems, 0.1, 3), normals(elems, 1., 4));
    let squares: Vec<f32> = v.iter().map(|v| v * v).collect();
    let each = |f: &dyn Fn(f64, f64, f64, f64) -> f64| -> Vec<f64> {
        (0..elems).map(|i| f(w[i].into(), dw[i].into(), m[i].into(), squares[i].into())).collect()
    };
    let (lr, momentum, decay) = (0.01f32, 0.9f32, 0.0005f32);
    let after = |update: Update, state: &[&Vec<f32>]| {
        let (on_device_dw, mut new_w) = (upload(backend, &dw), upload(backend, &[&w[..], &[UNTOUCHED]].concat()));
        let mut state: Vec<_> = state.iter().map(|values| upload(backend, values)).collect();
        backend.update(&update, elems, &on_device_dw, &mut new_w, &mut state).unwrap();
        let state = state.iter().map(|buffer| backend.read(buffer, elems).unwrap()).collect::<Vec<_>>();
        (written(backend, "w", &new_w, elems), state)
    };
    let (new_w, state) = after(Update::Sgd { lr, momentum, weight_decay: decay }, &[&m]);
    let [lr, momentum, decay] = [lr, momentum, decay].map(f64::from);
    let velocity = |w: f64, dw: f64, m: f64| momentum * m - decay * lr * w - lr * dw;
    assert_close("v", &state[0], &each(&|w, dw, m, _| velocity(w, dw, m)), OPERATION);
    assert_close("w", &new_w, &each(&|w, dw, m, _| w + velocity(w, dw, m)), OPERATION);

    let (beta1, beta2, epsilon) = (0.9f32, 0.999f32, 1e-8f32);
    let update = Update::Adam { lr: 0.01, beta1, beta2, epsilon, weight_decay: 0.0005, step: 3 };
    let (new_w, state) = after(update, &[&m, &squares]);
    let [beta1, beta2, epsilon] = [beta1, beta2, epsilon].map(f64::from);
    let first = |w: f64, dw: f64, m: f64| beta1 * m + (1. - beta1) * (dw + decay * w);
    let second = |w: f64, dw: f64, v: f64| beta2 * v + (1. - beta2) * (dw + decay * w).powi(2);
    let step = |w: f64, dw: f64, m: f64, v: f64| {
        let (m, v) = (first(w, dw, m) / (1. - beta1.powi(3)), second(w, dw, v) / (1. - beta2.powi(3)));
        w - lr * m / (v.sqrt() + epsilon)
    };
    assert_close("m", &state[0], &each(&|w, dw, m, _| first(w, dw, m)), OPERATION);
    assert_close("v", &state[1], &each(&|w, dw, _, v| second(w, dw, v)), OPERATION);
    assert_close("w", &new_w, &each(&step), OPERATION);
}
