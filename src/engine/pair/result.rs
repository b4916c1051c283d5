//! The result of a batch.

/// The result of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchResult {
    /// Images.
    pub images: usize,
    /// Sum of the images' cross-entropies.
    pub loss_sum: f64,
    /// Images whose label is not the best class.
    pub top1_errors: usize,
    /// Images whose label is not among the best five.
    pub top5_errors: usize,
}

impl BatchResult {
    /// Mean cross-entropy.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.images.max(1) as f64
    }

    /// Share of images whose label is not the best class, 0 to 1.
    pub fn top1_error(&self) -> f64 {
        self.top1_errors as f64 / self.images.max(1) as f64
    }

    /// Share of images whose label is not among the best five, 0 to 1.
    pub fn top5_error(&self) -> f64 {
        self.top5_errors as f64 / self.images.max(1) as f64
    }

    /// Adds another batch.
    pub fn add(&mut self, other: &BatchResult) {
        self.images += other.images;
        self.loss_sum += other.loss_sum;
        self.top1_errors += other.top1_errors;
        self.top5_errors += other.top5_errors;
    }
}
