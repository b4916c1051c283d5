//! The evaluation of the network on held-out images.

use std::sync::Arc;

use super::session::{Session, TrainObserver, softmax};
use crate::backend::Backend;
use crate::data::Images;
use crate::data::input::Preprocessor;
use crate::data::loader::{Loader, Order};
use crate::engine::pair::BatchResult;
use crate::error::Result;

impl<B: Backend> Session<B> {
    /// Runs all held-out images; `None` where the run must end first.
    pub fn evaluate(&mut self, observer: &mut dyn TrainObserver) -> Result<Option<BatchResult>> {
        let _span = tracing::info_span!("eval", step = self.state.step).entered();
        let (mut whole, count) = (BatchResult::default(), self.data.held_out.len());
        let orders: Vec<Order> = self.held_out_batches().collect();
        let mut loader = Loader::start(self.data.clone(), self.input.clone(), orders.clone().into_iter())?;
        for _ in orders {
            self.pair.want_stop(self.stop.asked().is_some());
            whole.add(&self.pair.evaluate(&loader.wait()?)?);
            observer.evaluating(whole.images, count);
            if self.pair.stops() {
                return Ok(None);
            }
        }
        Ok(Some(whole))
    }

    fn held_out_batches(&self) -> impl Iterator<Item = Order> {
        let (size, count) = (self.recipe.train.batch_size as u32, self.data.held_out.len() as u32);
        let batch = move |first: u32| (first..(first + size).min(count)).collect();
        (0..count).step_by(size as usize).map(move |first| Order {
            held_out: true,
            indices: batch(first),
            ..Order::default()
        })
    }

    /// Runs all held-out images in ten views each and averages the probabilities (paper 4.1); all streams must be in
    /// this process.
    pub fn evaluate_ten_views(&mut self, observer: &mut dyn TrainObserver) -> Result<BatchResult> {
        let input = Arc::new(self.input.of_whole_images());
        self.pair.set_input(input.shape(), input.mean())?;
        let evaluated = self.evaluate_views(input, observer);
        self.pair.set_input(self.input.shape(), self.input.mean())?;
        evaluated
    }

    fn evaluate_views(&mut self, input: Arc<Preprocessor>, observer: &mut dyn TrainObserver) -> Result<BatchResult> {
        let views = input.ten_views();
        let orders: Vec<Order> = self.held_out_batches().collect();
        let mut loader = Loader::start(self.data.clone(), input, orders.into_iter())?;
        let (mut whole, count) = (BatchResult::default(), self.data.held_out.len());
        while whole.images < count {
            // Read once, cut by the device for each view.
            let mut batch = loader.wait()?;
            let mut sums: Vec<Vec<f64>> = vec![Vec::new(); batch.len()];
            for &view in &views {
                if let Images::Bytes(_, windows) = &mut batch.images {
                    windows.fill(view);
                }
                self.pair.evaluate(&batch)?;
                for (sum, logits) in sums.iter_mut().zip(self.pair.logits(batch.len())?) {
                    sum.resize(logits.len(), 0.);
                    sum.iter_mut().zip(softmax(&logits)).for_each(|(sum, p)| *sum += p / views.len() as f64);
                }
            }
            let labels = batch.labels;
            for (probabilities, label) in sums.iter().zip(labels) {
                let of_label = probabilities[label as usize];
                // As the devices count: on a tie the lower class ranks higher.
                let above = |(class, p): (usize, &f64)| *p > of_label || (*p == of_label && class < label as usize);
                let above = probabilities.iter().enumerate().filter(|&row| above(row)).count();
                whole.add(&BatchResult {
                    images: 1,
                    loss_sum: -of_label.ln(),
                    top1_errors: usize::from(of_label.is_nan() || above >= 1),
                    top5_errors: usize::from(of_label.is_nan() || above >= 5),
                });
            }
            observer.evaluating(whole.images, count);
        }
        Ok(whole)
    }
}
