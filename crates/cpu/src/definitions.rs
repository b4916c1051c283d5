//! Every operation by its definition, in f64, one loop per index. Slow and plain: the fast operations are compared
//! with.

use crate::shapes::{AugmentShape, ConvShape, DenseShape, LrnShape, PoolShape, SpatialLrnShape, Window};

/// f32 values as f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// The network's input from bytes.
pub fn augment(s: &AugmentShape, pixels: &[u8], windows: &[Window], mean: &[f32]) -> Vec<f64> {
    let mut y = Vec::new();
    for (n, window) in windows.iter().enumerate() {
        for channel in 0..s.channels {
            let c = channel % s.c;
            let shift = f64::from(window.shift[c]);
            for p in 0..s.size {
                for q in 0..s.size {
                    let column = if window.mirrored { s.size - 1 - q } else { q };
                    let [row, col] = [window.row as usize + p, window.col as usize + column];
                    let [pixel_row, pixel_col] = if s.is_cropped() { [p, column] } else { [row, col] };
                    let value = f64::from(pixels[((n * s.c + c) * s.side + pixel_row) * s.side + pixel_col]);
                    let margin = (s.resize - s.size) / 2;
                    let [mean_row, mean_col] = if s.centred_mean { [margin + p, margin + q] } else { [row, col] };
                    let mean = f64::from(mean[(c * s.resize + mean_row) * s.resize + mean_col]);
                    y.push((value + shift - mean) * f64::from(s.scale) * f64::from(window.scale));
                }
            }
        }
    }
    y
}

/// Calls `visit(y, x, w)` with the indices of every product of a convolution.
fn conv_products(s: &ConvShape, n: usize, mut visit: impl FnMut(usize, usize, usize)) {
    for image in 0..n {
        for k in 0..s.k {
            for p in 0..s.p {
                for q in 0..s.q {
                    let y = ((image * s.k + k) * s.p + p) * s.q + q;
                    for c in 0..s.c {
                        for r in (0..s.r).filter(|r| (s.pad..s.h + s.pad).contains(&(p * s.stride + r))) {
                            let row = p * s.stride + r - s.pad;
                            for t in (0..s.s).filter(|t| (s.pad..s.w + s.pad).contains(&(q * s.stride + t))) {
                                let col = q * s.stride + t - s.pad;
                                let x = ((image * s.c + c) * s.h + row) * s.w + col;
                                visit(y, x, ((k * s.c + c) * s.r + r) * s.s + t);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// y = start + x * w.
pub fn conv_forward(s: &ConvShape, n: usize, x: &[f64], w: &[f64], start: &[f64]) -> Vec<f64> {
    let mut y = start.to_vec();
    conv_products(s, n, |yi, xi, wi| y[yi] += x[xi] * w[wi]);
    y
}

/// dx
pub fn conv_backward_input(s: &ConvShape, n: usize, dy: &[f64], w: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.; n * s.c * s.h * s.w];
    conv_products(s, n, |yi, xi, wi| dx[xi] += dy[yi] * w[wi]);
    dx
}

/// dw
pub fn conv_backward_weight(s: &ConvShape, n: usize, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let mut dw = vec![0.; s.k * s.c * s.r * s.s];
    conv_products(s, n, |yi, xi, wi| dw[wi] += x[xi] * dy[yi]);
    dw
}

/// A dense layer is a convolution whose window is the whole image.
pub fn as_conv(s: &DenseShape) -> ConvShape {
    ConvShape { c: s.inputs, h: 1, w: 1, k: s.outputs, r: 1, s: 1, p: 1, q: 1, stride: 1, pad: 0, blocks: s.blocks }
}

/// The sum of dy over images and pixels.
pub fn backward_bias(k: usize, pixels: usize, dy: &[f64]) -> Vec<f64> {
    let mut dbias = vec![0.; k];
    dy.iter().enumerate().for_each(|(i, dy)| dbias[i / pixels % k] += dy);
    dbias
}

/// Normalization: of each element the indices in its window, and k, alpha and beta.
struct Norm {
    windows: Vec<Vec<usize>>,
    constants: [f64; 3],
}

impl Norm {
    /// Over neighbouring channels.
    fn across(s: &LrnShape, elems: usize) -> Norm {
        let window = |i: usize| {
            let c = i / s.pixels % s.c;
            let channels = c.saturating_sub(s.n / 2)..=(c + s.n / 2).min(s.c - 1);
            channels.map(|j| i + j * s.pixels - c * s.pixels).collect()
        };
        Norm { windows: (0..elems).map(window).collect(), constants: [s.k, s.alpha, s.beta].map(f64::from) }
    }

    /// Over neighbouring pixels.
    fn within(s: &SpatialLrnShape, elems: usize) -> Norm {
        let near = |at: usize, size: usize| at.saturating_sub(s.norm.n / 2)..=(at + s.norm.n / 2).min(size - 1);
        let window = |i: usize| {
            let (map, row, col) = (i / (s.h * s.w), i / s.w % s.h, i % s.w);
            near(row, s.h).flat_map(|r| near(col, s.w).map(move |c| (map * s.h + r) * s.w + c)).collect()
        };
        let constants = [s.norm.k, s.norm.alpha, s.norm.beta].map(f64::from);
        Norm { windows: (0..elems).map(window).collect(), constants }
    }

    /// s_i of every element.
    fn scale(&self, x: &[f64]) -> Vec<f64> {
        let [k, alpha, _] = self.constants;
        self.windows.iter().map(|window| k + alpha * window.iter().map(|&j| x[j] * x[j]).sum::<f64>()).collect()
    }

    /// y_i = x_i / s_i^beta
    fn forward(&self, x: &[f64]) -> Vec<f64> {
        x.iter().zip(self.scale(x)).map(|(x, scale)| x / scale.powf(self.constants[2])).collect()
    }

    /// dx, by the chain rule through every y of every window.
    fn backward(&self, x: &[f64], dy: &[f64]) -> Vec<f64> {
        let ([_, alpha, beta], scale) = (self.constants, self.scale(x));
        let mut dx = vec![0.; x.len()];
        for i in 0..x.len() {
            dx[i] += dy[i] / scale[i].powf(beta);
            for &j in &self.windows[i] {
                dx[j] -= dy[i] * x[i] * beta * scale[i].powf(-beta - 1.) * 2. * alpha * x[j];
            }
        }
        dx
    }
}

/// y of normalization over channels
pub fn lrn_forward(s: &LrnShape, x: &[f64]) -> Vec<f64> {
    Norm::across(s, x.len()).forward(x)
}

/// dx
pub fn lrn_backward(s: &LrnShape, x: &[f64], dy: &[f64]) -> Vec<f64> {
    Norm::across(s, x.len()).backward(x, dy)
}

/// y of normalization within maps
pub fn spatial_lrn_forward(s: &SpatialLrnShape, x: &[f64]) -> Vec<f64> {
    Norm::within(s, x.len()).forward(x)
}

/// dx
pub fn spatial_lrn_backward(s: &SpatialLrnShape, x: &[f64], dy: &[f64]) -> Vec<f64> {
    Norm::within(s, x.len()).backward(x, dy)
}

/// For every output the index of its window's first maximum.
pub fn max_pool_places(s: &PoolShape, n: usize, x: &[f32]) -> Vec<usize> {
    let mut places = Vec::new();
    for map in 0..n * s.c {
        for p in 0..s.p {
            for q in 0..s.q {
                let at = |i: usize| (map * s.h + p * s.stride + i / s.window) * s.w + q * s.stride + i % s.window;
                let rest = (1..s.window * s.window).map(at);
                places.push(rest.fold(at(0), |best, place| if x[place] > x[best] { place } else { best }));
            }
        }
    }
    places
}

/// dx: each dy at the first place of its window's maximum, or at all of them.
pub fn max_pool_backward(s: &PoolShape, n: usize, x: &[f32], dy: &[f64]) -> Vec<f64> {
    let (places, mut dx) = (max_pool_places(s, n, x), vec![0.; n * s.c * s.h * s.w]);
    pool_windows(s, n, |yi, xi| {
        let is_maximum = if s.all_ties { x[xi] == x[places[yi]] } else { xi == places[yi] };
        dx[xi] += if is_maximum { dy[yi] } else { 0. };
    });
    dx
}

/// Calls `visit(y, x)` with the indices of every value of every window.
fn pool_windows(s: &PoolShape, n: usize, mut visit: impl FnMut(usize, usize)) {
    for y in 0..n * s.c * s.p * s.q {
        let (map, p, q) = (y / s.q / s.p, y / s.q % s.p, y % s.q);
        for i in 0..s.window * s.window {
            visit(y, (map * s.h + p * s.stride + i / s.window) * s.w + q * s.stride + i % s.window);
        }
    }
}

/// y = the mean of each window
pub fn avg_pool_forward(s: &PoolShape, n: usize, x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.; n * s.c * s.p * s.q];
    pool_windows(s, n, |yi, xi| y[yi] += x[xi] / (s.window * s.window) as f64);
    y
}

/// dx
pub fn avg_pool_backward(s: &PoolShape, n: usize, dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.; n * s.c * s.h * s.w];
    pool_windows(s, n, |yi, xi| dx[xi] += dy[yi] / (s.window * s.window) as f64);
    dx
}

/// Loss of each image and the gradient of their mean with respect to the logits, over all classes.
pub fn softmax_cross_entropy(classes: usize, logits: &[f64], labels: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let (mut losses, mut gradient) = (Vec::new(), Vec::new());
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
        losses.push(sum.ln() + max - row[label as usize]);
        let one_hot = |class: usize| if class == label as usize { 1. } else { 0. };
        gradient.extend(
            row.iter().enumerate().map(|(class, v)| ((v - max).exp() / sum - one_hot(class)) / labels.len() as f64),
        );
    }
    (losses, gradient)
}
