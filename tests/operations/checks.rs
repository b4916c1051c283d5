//! Every operation but products and the softmax, against its definition in f64, at odd and even sizes, on any device; what
//! lies beyond the batch is untouched.

use alexnet_split::backend::reference::definitions::{self as reference, wide};
use alexnet_split::backend::*;
use alexnet_split::net::plan::Op;
use alexnet_split::net::spec::Activation;
use alexnet_split::rng::{Philox, Purpose};

use crate::support::tolerance::{BF16_MAPS, OPERATION, assert_close};
use crate::support::{cases, normals, round_to_bf16};

/// How a device keeps activations: what it rounds them to, and the tolerance of what is stored so.
#[derive(Clone, Copy)]
pub struct Stored(pub fn(f32) -> f32, pub f64);

/// As they are.
pub const EXACTLY: Stored = Stored(|value| value, OPERATION);
/// In bf16.
pub const IN_BF16: Stored = Stored(round_to_bf16, BF16_MAPS);

impl Stored {
    /// Values as the device keeps them.
    pub fn values(self, values: Vec<f32>) -> Vec<f32> {
        values.into_iter().map(self.0).collect()
    }
}

/// ReLU, normalization and pooling in one give the bits of one after another.
pub fn fused_layers_compute_the_same<B: Backend>(backend: &B, stored: Stored) {
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for case in cases::small() {
        let Op::ReluLrnMaxPool(lrn, pool) = case.op else { continue };
        if !backend.fuses(&lrn, &pool) {
            return;
        }
        let PoolShape { c, h, w, p, q, .. } = pool;
        for n in [1, 3] {
            let name = format!("{pool:?} n={n}");
            let (ins, outs) = (TensorShape::Maps(n, [c, h, w]), TensorShape::Maps(n, [c, p, q]));
            // Few different values: windows with several maxima.
            let x: Vec<f32> = normals(ins.elems(), 2., 1).iter().map(|v| v.round()).collect();
            let dy = upload(backend, &stored.values(normals(outs.elems(), 1., 2)), outs);
            let (relu, mut normalized) = (Activation::Relu, backend.alloc(ins).unwrap());
            let (mut activated, mut y) = (upload(backend, &x, ins), backend.alloc(outs).unwrap());
            backend.activation_forward(relu, ins, &mut activated).unwrap();
            backend.lrn_forward(&lrn, n, &activated, &mut normalized).unwrap();
            backend.max_pool_forward(&pool, n, &normalized, &mut y).unwrap();
            let (mut dx, mut by_normalized) = (backend.alloc(ins).unwrap(), backend.alloc(ins).unwrap());
            backend.max_pool_backward(&pool, n, &normalized, &y, &dy, &mut by_normalized).unwrap();
            backend.lrn_backward(&lrn, n, &activated, &by_normalized, &mut dx).unwrap();
            backend.activation_backward(relu, ins, &activated, &mut dx).unwrap();

            let mut fused_x = in_place(backend, &x, ins);
            let mut fused_y = backend.alloc(TensorShape::Pooled(n, [c, p, q])).unwrap();
            backend.relu_lrn_max_pool_forward(&lrn, &pool, n, &fused_x, &mut fused_y).unwrap();
            backend.relu_lrn_max_pool_backward(&lrn, &pool, n, &mut fused_x, &fused_y, &dy).unwrap();
            let [y, fused_y] = [&y, &fused_y].map(|y| backend.read(y, outs).unwrap());
            assert_eq!(bits(&fused_y), bits(&y), "y, {name}");
            let dx = backend.read(&dx, ins).unwrap();
            assert_eq!(bits(&written(backend, &name, &fused_x, ins)), bits(&dx), "dx, {name}");
        }
    }
}

pub fn upload<B: Backend>(backend: &B, values: &[f32], shape: impl Into<TensorShape>) -> B::Buffer {
    let shape = shape.into();
    let mut buffer = backend.alloc(shape).unwrap();
    backend.write(values, shape, &mut buffer).unwrap();
    buffer
}

pub fn upload_param<B: Backend>(backend: &B, values: &[f32], shape: impl Into<TensorShape>) -> B::Buffer {
    let shape = shape.into();
    let mut buffer = backend.alloc_param(shape).unwrap();
    backend.write(values, shape, &mut buffer).unwrap();
    buffer
}

/// Stands in memory that an operation must not write; bf16 has it, too.
pub const UNTOUCHED: f32 = 12288.;

/// The shape with more images, filters or values than an operation writes, also where it writes eight at a time.
pub fn more_of(shape: TensorShape) -> TensorShape {
    let more = |count: usize| count.next_multiple_of(8) + 8;
    match shape {
        TensorShape::Values(elems) => TensorShape::Values(more(elems)),
        TensorShape::Maps(n, maps) => TensorShape::Maps(n + 1, maps),
        TensorShape::Pooled(n, maps) => TensorShape::Pooled(n + 1, maps),
        TensorShape::Logits(n, classes) => TensorShape::Logits(n + 1, classes),
        TensorShape::Input(n, s) => TensorShape::Input(n + 1, s),
        TensorShape::Filters(s) => TensorShape::Filters(ConvShape { k: more(s.k), ..s }),
        TensorShape::Weights(s) => TensorShape::Weights(DenseShape { outputs: more(s.outputs), ..s }),
    }
}

/// These values, and behind them some that must stay as they are.
pub fn in_place<B: Backend>(backend: &B, values: &[f32], shape: impl Into<TensorShape>) -> B::Buffer {
    let more = more_of(shape.into());
    let mut all = values.to_vec();
    all.resize(more.elems(), UNTOUCHED);
    upload_param(backend, &all, more)
}

/// Room for values of this shape and some that must stay as they are.
pub fn output<B: Backend>(backend: &B, shape: impl Into<TensorShape>) -> B::Buffer {
    in_place(backend, &[], shape)
}

/// The values of an output, after a check of those beyond them.
pub fn written<B: Backend>(backend: &B, name: &str, buffer: &B::Buffer, shape: impl Into<TensorShape>) -> Vec<f32> {
    let shape = shape.into();
    let more = more_of(shape);
    let mut values = backend.read(buffer, more).unwrap();
    // Where a device pads, it writes up to the next eighth of what comes in a row.
    let pads = backend.bytes(more) != more.elems() * size_of::<f32>() || B::QUEUES;
    let is_row = matches!(shape, TensorShape::Values(_) | TensorShape::Filters(_) | TensorShape::Weights(_));
    let outer = shape.dims()[0];
    let end = if pads && is_row { outer.next_multiple_of(8) * shape.elems() / outer } else { shape.elems() };
    assert!(values[end..].iter().all(|&value| value == UNTOUCHED), "{name} wrote beyond its batch");
    values.truncate(shape.elems());
    values
}

pub fn augmentation<B: Backend>(backend: &B, Stored(_, tolerance): Stored) {
    // Whole images of the network's size and of a larger one, windows alone; grey for a network that sees colours.
    for (c, side, resize, channels, size, centred_mean) in [
        (3, 20, 20, 3, 20, false),
        (3, 20, 20, 3, 17, false),
        (1, 67, 67, 3, 64, false),
        (1, 67, 67, 3, 64, true),
        (3, 17, 20, 3, 17, false),
        (3, 17, 20, 3, 17, true),
        (1, 64, 67, 3, 64, false),
        (1, 7, 12, 1, 7, true),
    ] {
        let s = AugmentShape { c, side, resize, channels, size, scale: 0.25, centred_mean };
        let pixels: Vec<u8> = normals(3 * c * side * side, 60., 1).iter().map(|v| (v + 128.) as u8).collect();
        let mean = normals(c * resize * resize, 100., 2);
        let room = (resize - size) as u32;
        let shift = |row: u32| [7.25, -3., row as f32];
        let window =
            |row, col, mirrored| Window { row, col, mirrored, shift: shift(row), scale: 1. / (1. + row as f32) };
        let windows = [window(0, room, false), window(room, 0, true), window(room / 2, room / 3, true)];
        let mean_on_device = upload(backend, &mean, mean.len());
        let expected = reference::augment(&s, &pixels, &windows, &mean);
        // As maps, and as a convolution over every pixel reads them.
        let [kernel, stride, pad] = [7, 4, 3];
        let p = (size + 2 * pad - kernel) / stride + 1;
        let (c, k) = (channels, 1);
        let conv = ConvShape { c, h: size, w: size, k, r: kernel, s: kernel, p, q: p, stride, pad, blocks: 1 };
        for input in [TensorShape::Maps(3, [channels, size, size]), TensorShape::Input(3, conv)] {
            let mut y = output(backend, input);
            backend.augment(&s, &pixels, &windows, &mean_on_device, input, &mut y).unwrap();
            assert_close(&format!("{s:?}"), &written(backend, "y", &y, input), &expected, tolerance);
        }
    }
}

pub fn local_response_normalization<B: Backend>(backend: &B, stored: Stored) {
    for case in cases::small() {
        let Op::Lrn(s) = case.op else { continue };
        let (images, all) = (3, TensorShape::Maps(3, [s.c, s.pixels, 1]));
        let [x, dy] = [(3., 1), (1., 2)].map(|(scale, seed)| stored.values(normals(all.elems(), scale, seed)));
        let (on_device_x, on_device_dy) = (upload(backend, &x, all), upload(backend, &dy, all));
        let (mut y, mut dx) = (output(backend, all), output(backend, all));
        backend.lrn_forward(&s, images, &on_device_x, &mut y).unwrap();
        backend.lrn_backward(&s, images, &on_device_x, &on_device_dy, &mut dx).unwrap();
        let expected = reference::lrn_forward(&s, &wide(&x));
        assert_close(&format!("y, {s:?}"), &written(backend, "y", &y, all), &expected, stored.1);
        let expected = reference::lrn_backward(&s, &wide(&x), &wide(&dy));
        assert_close(&format!("dx, {s:?}"), &written(backend, "dx", &dx, all), &expected, stored.1);
    }
}

pub fn normalization_within_maps<B: Backend>(backend: &B, stored: Stored) {
    for case in cases::small() {
        let Op::SpatialLrn(s) = case.op else { continue };
        let (n, maps) = (3, TensorShape::Maps(3, [s.norm.c, s.h, s.w]));
        let [x, dy] = [(3., 1), (1., 2)].map(|(scale, seed)| stored.values(normals(maps.elems(), scale, seed)));
        let (on_device_x, on_device_dy) = (upload(backend, &x, maps), upload(backend, &dy, maps));
        let (mut y, mut dx) = (output(backend, maps), output(backend, maps));
        backend.spatial_lrn_forward(&s, n, &on_device_x, &mut y).unwrap();
        backend.spatial_lrn_backward(&s, n, &on_device_x, &on_device_dy, &mut dx).unwrap();
        let expected = reference::spatial_lrn_forward(&s, &wide(&x));
        assert_close(&format!("y, {s:?}"), &written(backend, "y", &y, maps), &expected, stored.1);
        let expected = reference::spatial_lrn_backward(&s, &wide(&x), &wide(&dy));
        assert_close(&format!("dx, {s:?}"), &written(backend, "dx", &dx, maps), &expected, stored.1);
    }
}

pub fn max_pooling<B: Backend>(backend: &B, stored: Stored) {
    for case in cases::small() {
        let Op::MaxPool(s) = case.op else { continue };
        let (n, ins, outs) = (2, s.c * s.h * s.w, s.c * s.p * s.q);
        // Few distinct values: many ties.
        let x: Vec<f32> = normals(n * ins, 2., 1).iter().map(|v| v.round()).collect();
        let dy = stored.values(normals(n * outs, 1., 2));
        let (in_maps, out_maps) = (TensorShape::Maps(n, [s.c, s.h, s.w]), TensorShape::Maps(n, [s.c, s.p, s.q]));
        let places = reference::max_pool_places(&s, n, &x);
        let (on_device_x, on_device_dy) = (upload(backend, &x, in_maps), upload(backend, &dy, out_maps));
        let (mut y, mut dx) = (output(backend, out_maps), output(backend, in_maps));
        backend.max_pool_forward(&s, n, &on_device_x, &mut y).unwrap();
        backend.max_pool_backward(&s, n, &on_device_x, &y, &on_device_dy, &mut dx).unwrap();
        let expected: Vec<f32> = places.iter().map(|&place| x[place]).collect();
        assert_eq!(written(backend, "y", &y, out_maps), expected, "{s:?}");
        let expected = match s.all_ties {
            // Anew, and not as the definition has it.
            false => {
                let mut expected = vec![0.; n * ins];
                places.iter().zip(&dy).for_each(|(&place, dy)| expected[place] += f64::from(*dy));
                expected
            }
            true => reference::max_pool_backward(&s, n, &x, &wide(&dy)),
        };
        assert_close(&format!("dx, {s:?}"), &written(backend, "dx", &dx, in_maps), &expected, stored.1);
    }
}

pub fn average_pooling<B: Backend>(backend: &B, stored: Stored) {
    for case in cases::small() {
        let Op::AvgPool(s) = case.op else { continue };
        let n = 2;
        let (in_maps, out_maps) = (TensorShape::Maps(n, [s.c, s.h, s.w]), TensorShape::Maps(n, [s.c, s.p, s.q]));
        let [x, dy] = [(in_maps, 1), (out_maps, 2)].map(|(maps, seed)| stored.values(normals(maps.elems(), 1., seed)));
        let (mut y, mut dx) = (output(backend, out_maps), output(backend, in_maps));
        backend.avg_pool_forward(&s, n, &upload(backend, &x, in_maps), &mut y).unwrap();
        backend.avg_pool_backward(&s, n, &upload(backend, &dy, out_maps), &mut dx).unwrap();
        let expected = reference::avg_pool_forward(&s, n, &wide(&x));
        assert_close(&format!("y, {s:?}"), &written(backend, "y", &y, out_maps), &expected, stored.1);
        let expected = reference::avg_pool_backward(&s, n, &wide(&dy));
        assert_close(&format!("dx, {s:?}"), &written(backend, "dx", &dx, in_maps), &expected, stored.1);
    }
}

pub fn non_linearities<B: Backend>(backend: &B, stored: Stored) {
    let maps = TensorShape::Maps(7, [73, 11, 13]); // more than one block
    let [x, dy] = [1, 2].map(|seed| stored.values(normals(maps.elems(), 1., seed)));
    for kind in [Activation::Relu, Activation::Tanh, Activation::Sigmoid] {
        let [mut y, mut dx] = [&x, &dy].map(|values| in_place(backend, values, maps));
        backend.activation_forward(kind, maps, &mut y).unwrap();
        backend.activation_backward(kind, maps, &y, &mut dx).unwrap();
        let f = |x: f64| match kind {
            Activation::Relu => x.max(0.),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => 1. / (1. + (-x).exp()),
        };
        // From y as the device keeps it.
        let slope = |y: f64| match kind {
            Activation::Relu => f64::from(y > 0.),
            Activation::Tanh => 1. - y * y,
            Activation::Sigmoid => y * (1. - y),
        };
        let expected: Vec<f64> = wide(&x).into_iter().map(f).collect();
        let y = written(backend, "y", &y, maps);
        assert_close("y", &y, &expected, stored.1);
        let expected: Vec<f64> = wide(&y).into_iter().zip(wide(&dy)).map(|(y, dy)| dy * slope(y)).collect();
        assert_close("dx", &written(backend, "dx", &dx, maps), &expected, stored.1);
    }
    let three = TensorShape::Maps(1, [3, 1, 1]);
    for (kind, [low, zero]) in [(Activation::Relu, [0., 0.]), (Activation::Sigmoid, [0., 0.5])] {
        // Where a device pads the three channels to eight, the padding stays 0: the next layer reads it.
        let (eight, mut values) = (TensorShape::Maps(1, [8, 1, 1]), [0.; 8]);
        values[..3].copy_from_slice(&[f32::NAN, -1000., 0.]);
        let mut y = upload(backend, &values, eight);
        backend.activation_forward(kind, three, &mut y).unwrap();
        let y = backend.read(&y, eight).unwrap();
        assert!(
            y[0].is_nan() && y[1..] == [low, zero, 0., 0., 0., 0., 0.],
            "{kind:?}: NaN must be seen in the loss, {y:?}"
        );
    }
}

pub fn dropout_draws_one_mask_for_both_passes<B: Backend>(backend: &B, stored: Stored) {
    for (elems, pixels, first_unit) in [(1000, 1, 0), (1001, 1, 1001), (3, 1, 6), (1001, 7, 13)] {
        for (keep, scaling) in [(0.5, DropoutScaling::Test), (0.8, DropoutScaling::Train), (1., DropoutScaling::Train)]
        {
            let s = DropoutShape { elems, pixels, first_unit, keep, layer: 17 };
            let rng = Philox::new(5, Purpose::Dropout, 17);
            let draw = DropoutDraw { mask: Some((rng, 7)), scaling };
            let (n, maps) = (20, TensorShape::Maps(20, [elems / pixels, pixels, 1]));
            let x = upload(backend, &vec![1.; n * elems], maps);
            let mut y = output(backend, maps);
            backend.dropout_forward(&s, n, &draw, &x, &mut y).unwrap();
            let y = written(backend, "y", &y, maps);
            let factor = stored.0(if scaling == DropoutScaling::Train { 1. / keep } else { 1. });
            for (i, &y) in y.iter().enumerate() {
                let (sample, unit) = (i / elems, first_unit + i % elems);
                let word = rng.block([unit as u32 / 4, sample as u32, 7, 0])[unit % 4];
                let kept = f64::from(word) < f64::from(keep) * 4_294_967_296.;
                assert_eq!(y, if kept { factor } else { 0. }, "sample {sample}, unit {unit}");
            }
            let kept = y.iter().filter(|&&v| v != 0.).count() as f64 / y.len() as f64;
            let deviation = (f64::from(keep * (1. - keep)) / y.len() as f64).sqrt();
            assert!((kept - f64::from(keep)).abs() <= 4. * deviation, "{kept} kept, not {keep}");
            let mut dy = in_place(backend, &vec![1.; n * elems], maps);
            backend.dropout_backward(&s, n, &draw, &mut dy).unwrap();
            assert_eq!(written(backend, "dy", &dy, maps), y);
            let test = DropoutDraw { mask: None, scaling };
            let mut y = output(backend, maps);
            backend.dropout_forward(&s, n, &test, &x, &mut y).unwrap();
            let factor = stored.0(if scaling == DropoutScaling::Test { keep } else { 1. });
            assert!(written(backend, "y", &y, maps).iter().all(|&v| v == factor));
        }
    }
}

pub fn updates<B: Backend>(backend: &B, _: Stored) {
    let weights =
        TensorShape::Weights(DenseShape { inputs: 389 * 6, outputs: 31, pixels: 6, blocks: 1, logits: false });
    let elems = weights.elems();
    let (w, v, m, dw) = (normals(elems, 1., 1), normals(elems, 0.1, 2), normals(elems, 0.1, 3), normals(elems, 1., 4));
    let squares: Vec<f32> = v.iter().map(|v| v * v).collect();
    let each = |f: &dyn Fn(f64, f64, f64, f64) -> f64| -> Vec<f64> {
        (0..elems).map(|i| f(w[i].into(), dw[i].into(), m[i].into(), squares[i].into())).collect()
    };
    let (lr, momentum, decay) = (0.01f32, 0.9f32, 0.0005f32);
    let after = |update: Update, state: &[&Vec<f32>]| {
        let (on_device_dw, mut new_w) = (upload(backend, &dw, weights), upload_param(backend, &w, weights));
        let mut state: Vec<_> = state.iter().map(|values| upload(backend, values, weights)).collect();
        backend.update(&update, weights, &on_device_dw, &mut new_w, &mut state).unwrap();
        let state = state.iter().map(|buffer| backend.read(buffer, weights).unwrap()).collect::<Vec<_>>();
        (backend.read(&new_w, weights).unwrap(), state)
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

pub fn addition<B: Backend>(backend: &B, stored: Stored) {
    let maps = TensorShape::Maps(7, [73, 11, 13]); // more than one block
    let [x, y] = [1, 2].map(|seed| stored.values(normals(maps.elems(), 1., seed)));
    let mut sum = in_place(backend, &y, maps);
    backend.add(maps, &upload(backend, &x, maps), &mut sum).unwrap();
    let expected: Vec<f64> = wide(&x).iter().zip(wide(&y)).map(|(x, y)| x + y).collect();
    assert_close("sum", &written(backend, "sum", &sum, maps), &expected, stored.1);
}
