//! Sums over a set's pixels, exact whatever their order: the mean image, and how colours vary (paper, sections 2 and
//! 4.1).

use serde::{Deserialize, Serialize};

/// Sums over images of C H W with three channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    images: u64,
    /// Of every value of an image.
    values: Vec<u64>,
    /// Of the products of a pixel's channels: rr, rg, rb, gg, gb, bb.
    products: [u64; 6],
}

/// How the colours of a set's pixels, 0 to 255, vary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Colours {
    /// Of red, green and blue.
    pub mean: [f64; 3],
    /// Of pairs of them.
    pub covariance: [[f64; 3]; 3],
    /// Of the covariance, the largest first.
    pub eigenvalues: [f64; 3],
    /// One a row, each of length 1, in the order of the eigenvalues.
    pub eigenvectors: [[f64; 3]; 3],
}

impl Colours {
    /// The principal axes, each as long as the standard deviation along it.
    pub fn axes(&self) -> [[f32; 3]; 3] {
        let axis = |k: usize| self.eigenvectors[k].map(|v| (v * self.eigenvalues[k].sqrt()) as f32);
        [axis(0), axis(1), axis(2)]
    }
}

impl Sums {
    /// Counts an image: rows of red, green, blue.
    pub fn add(&mut self, square: &[u8]) {
        let area = square.len() / 3;
        self.images += 1;
        self.values.resize(square.len(), 0);
        let (red, rest) = self.values.split_at_mut(area);
        let (green, blue) = rest.split_at_mut(area);
        let mut products = [0u64; 6];
        for (((pixel, red), green), blue) in square.as_chunks::<3>().0.iter().zip(red).zip(green).zip(blue) {
            let [r, g, b] = [u64::from(pixel[0]), u64::from(pixel[1]), u64::from(pixel[2])];
            (*red, *green, *blue) = (*red + r, *green + g, *blue + b);
            for (sum, product) in products.iter_mut().zip([r * r, r * g, r * b, g * g, g * b, b * b]) {
                *sum += product;
            }
        }
        self.products.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
    }

    /// Counts what others have counted.
    pub fn merge(&mut self, other: &Sums) {
        self.images += other.images;
        self.values.resize(other.values.len().max(self.values.len()), 0);
        self.values.iter_mut().zip(&other.values).for_each(|(sum, v)| *sum += v);
        self.products.iter_mut().zip(other.products).for_each(|(sum, v)| *sum += v);
    }

    /// The mean image: C H W.
    pub fn mean_image(&self) -> Vec<f32> {
        self.values.iter().map(|&sum| (sum as f64 / self.images as f64) as f32).collect()
    }

    /// How colours vary.
    pub fn colours(&self) -> Colours {
        let area = self.values.len() / 3;
        let pixels = (self.images * area as u64) as f64;
        let mean: [f64; 3] = [0, 1, 2].map(|c| self.values[c * area..][..area].iter().sum::<u64>() as f64 / pixels);
        let [rr, rg, rb, gg, gb, bb] = self.products.map(|sum| sum as f64 / pixels);
        let mut covariance = [[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]];
        for (i, row) in covariance.iter_mut().enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                *value -= mean[i] * mean[j];
            }
        }
        let (eigenvalues, eigenvectors) = eigen(covariance);
        Colours { mean, covariance, eigenvalues, eigenvectors }
    }
}

/// Eigenvalues, the largest first, and eigenvectors of a symmetric matrix, by Jacobi's rotations. A vector's largest
/// component is positive.
fn eigen(mut a: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let mut v = [[1., 0., 0.], [0., 1., 0.], [0., 0., 1.]];
    for _ in 0..30 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if a[p][q] == 0. {
                continue;
            }
            let theta = (a[q][q] - a[p][p]) / (2. * a[p][q]);
            let t = theta.signum() / (theta.abs() + (theta * theta + 1.).sqrt());
            let c = 1. / (t * t + 1.).sqrt();
            let s = t * c;
            // Columns p and q, then rows p and q, of a; columns of v.
            for row in &mut a {
                (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
            }
            let (above, below) = (a[p], a[q]);
            a[p] = [0, 1, 2].map(|k| c * above[k] - s * below[k]);
            a[q] = [0, 1, 2].map(|k| s * above[k] + c * below[k]);
            for row in &mut v {
                (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
            }
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    let vectors = order.map(|i| {
        let vector = [v[0][i], v[1][i], v[2][i]];
        let largest = vector.into_iter().fold(0f64, |largest, v| if v.abs() > largest.abs() { v } else { largest });
        vector.map(|v| v * largest.signum())
    });
    (order.map(|i| a[i][i].max(0.)), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_reproduce_the_matrix() {
        let a = [[4096.3, 3712.8, 3220.1], [3712.8, 3954.5, 3655.2], [3220.1, 3655.2, 4133.9]];
        let (values, vectors) = eigen(a);
        assert!(values[0] > values[1] && values[1] > values[2]);
        for i in 0..3 {
            for j in 0..3 {
                let back: f64 = (0..3).map(|k| values[k] * vectors[k][i] * vectors[k][j]).sum();
                assert!((back - a[i][j]).abs() < 1e-9 * a[0][0], "{back} {}", a[i][j]);
                let dot: f64 = (0..3).map(|k| vectors[i][k] * vectors[j][k]).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn sums_are_the_same_in_any_parts() {
        let images: Vec<Vec<u8>> = (0..5u8).map(|i| (0..12).map(|k| i * 40 + k * (i + 1)).collect()).collect();
        let [mut whole, mut first, mut second] = [Sums::default(), Sums::default(), Sums::default()];
        images.iter().for_each(|image| whole.add(image));
        images[..2].iter().for_each(|image| first.add(image));
        images[2..].iter().for_each(|image| second.add(image));
        first.merge(&second);
        assert_eq!(first, whole);
        let red: f64 = images.iter().flat_map(|image| image.chunks(3).map(|p| f64::from(p[0]))).sum::<f64>() / 20.;
        assert!((whole.colours().mean[0] - red).abs() < 1e-12);
    }
}
