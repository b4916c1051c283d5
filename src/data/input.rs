//! From bytes to the network's input: scale, crop, flip, subtract the mean (paper, sections 2 and 4.1).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Batch, ImageSet};
use crate::error::{Error, Result};
use crate::rng::{Philox, Purpose};

/// Where the network's window lies in the scaled image during training. At test time it is always the centre.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// The centre.
    Center,
    /// Anywhere, drawn for each image and epoch (paper 4.1).
    Random,
}

/// What is subtracted from pixels of 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Mean {
    /// `"pixel"`: the mean training image, pixel by pixel (paper, section 2).
    Image(MeanImage),
    /// A number.
    Value(f32),
}

/// The one word that [`Mean`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeanImage {
    /// Of every pixel.
    Pixel,
}

/// The `[input]` part of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecipe {
    /// Shorter side that images are scaled to before the crop; at least the network's image size.
    pub resize: usize,
    /// Crop in training.
    pub crop: Crop,
    /// Mirror half of the training images.
    pub flip: bool,
    /// Subtracted from each pixel.
    pub mean: Mean,
    /// Multiplied after that.
    pub scale: f32,
}

/// Two neighbours and the weight of the second: how one output position is read along one axis.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: f32,
}

/// Turns images of one set's format into the network's input.
pub struct Preprocessor {
    recipe: InputRecipe,
    /// Channels, height, width of the network's input.
    image: [usize; 3],
    /// Columns of a set's image.
    source_width: usize,
    rows: Vec<Tap>,
    cols: Vec<Tap>,
    /// C x resize x resize, to be subtracted.
    mean: Vec<f32>,
}

impl Preprocessor {
    /// For images like those of `train`, whose mean is taken where the recipe wants it.
    ///
    /// Fails where channels do not fit or the scaled image is smaller than the network's.
    pub fn new(recipe: &InputRecipe, image: [usize; 3], train: &ImageSet) -> Result<Preprocessor> {
        let mut input = Preprocessor::with_mean(recipe, image, train, Vec::new())?;
        let area = recipe.resize * recipe.resize;
        input.mean = match recipe.mean {
            Mean::Value(value) => vec![value; train.channels * area],
            Mean::Image(MeanImage::Pixel) => {
                let small = mean_image(train);
                let mut mean = vec![0.; train.channels * area];
                for (mean, small) in mean.chunks_exact_mut(area).zip(small.chunks_exact(train.height * train.width)) {
                    input.sample(small, |v| *v, [0, 0], recipe.resize, mean);
                }
                mean
            }
        };
        Ok(input)
    }

    /// With a mean image of a training run: C x resize x resize of a set like `set`.
    pub fn with_mean(recipe: &InputRecipe, image: [usize; 3], set: &ImageSet, mean: Vec<f32>) -> Result<Preprocessor> {
        if image[1] != image[2] || recipe.resize < image[1] {
            let problem = format!("{} is smaller than the network's image of {}x{}", recipe.resize, image[1], image[2]);
            return Err(Error::recipe("input.resize", problem));
        }
        if image[0] != set.channels && set.channels != 1 {
            let problem = format!("the network reads {} channel, the images have {}", image[0], set.channels);
            return Err(Error::recipe("net.image_channels", problem));
        }
        let short = set.height.min(set.width);
        let taps = |size: usize| (0..recipe.resize).map(|at| tap(at, size, short, recipe.resize)).collect();
        let (rows, cols) = (taps(set.height), taps(set.width));
        Ok(Preprocessor { recipe: recipe.clone(), image, source_width: set.width, rows, cols, mean })
    }

    /// The mean that is subtracted: C x resize x resize.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The images `indices` of `set` as a batch; in training, `augment` is the seed and the epoch.
    pub fn batch(&self, set: &ImageSet, indices: &[u32], augment: Option<(u64, u64)>) -> Batch {
        let elems = self.image.iter().product();
        let mut images = vec![0.; indices.len() * elems];
        images
            .par_chunks_exact_mut(elems)
            .zip(indices)
            .for_each(|(out, &index)| self.image(set, index as usize, augment, out));
        Batch { images, labels: indices.iter().map(|&index| set.labels[index as usize]).collect() }
    }

    fn image(&self, set: &ImageSet, index: usize, augment: Option<(u64, u64)>, out: &mut [f32]) {
        let (size, resize) = (self.image[1], self.recipe.resize);
        let room = resize - size;
        let mut corner = [room / 2, room / 2];
        let mut flip = false;
        if let Some((seed, epoch)) = augment {
            let rng = Philox::new(seed, Purpose::Augment, 0);
            let draw = |what, bound| rng.below([index as u32, epoch as u32, what, 0], bound) as usize;
            if self.recipe.crop == Crop::Random {
                corner = [draw(0, room as u32 + 1), draw(1, room as u32 + 1)];
            }
            flip = self.recipe.flip && draw(2, 2) == 1;
        }
        let planes = set.image(index).chunks_exact(set.height * set.width);
        for ((plane, mean), out) in
            planes.zip(self.mean.chunks_exact(resize * resize)).zip(out.chunks_exact_mut(size * size))
        {
            self.sample(plane, |v| f32::from(*v), corner, size, out);
            for (row, out) in out.chunks_exact_mut(size).enumerate() {
                let mean = &mean[(corner[0] + row) * resize + corner[1]..][..size];
                out.iter_mut().zip(mean).for_each(|(v, mean)| *v = (*v - mean) * self.recipe.scale);
                if flip {
                    out.reverse();
                }
            }
        }
        // A grey image for a network that reads colours: the same plane three times.
        for channel in set.channels..self.image[0] {
            out.copy_within(..size * size, channel * size * size);
        }
    }

    /// Bilinear scaling of the window of `size` x `size` at `corner` of the scaled plane.
    fn sample<T>(&self, plane: &[T], value: impl Fn(&T) -> f32, corner: [usize; 2], size: usize, out: &mut [f32]) {
        let width = self.source_width;
        let mut line = vec![0.; width];
        for (tap, out) in self.rows[corner[0]..][..size].iter().zip(out.chunks_exact_mut(size)) {
            let (above, below) = (&plane[tap.first * width..][..width], &plane[tap.second * width..][..width]);
            for ((v, a), b) in line.iter_mut().zip(above).zip(below) {
                *v = value(a) + tap.weight * (value(b) - value(a));
            }
            for (v, tap) in out.iter_mut().zip(&self.cols[corner[1]..][..size]) {
                *v = line[tap.first] + tap.weight * (line[tap.second] - line[tap.first]);
            }
        }
    }
}

/// Position `at` of `resize` along an axis of `size` pixels whose image's shorter side is `short`: pixel centres are
/// aligned, and a longer side is cut equally at both ends.
fn tap(at: usize, size: usize, short: usize, resize: usize) -> Tap {
    let place = (at as f32 + 0.5) * short as f32 / resize as f32 - 0.5 + (size - short) as f32 / 2.;
    let place = place.clamp(0., size as f32 - 1.);
    let first = place as usize;
    Tap { first, second: (first + 1).min(size - 1), weight: place - first as f32 }
}

/// The mean of a set's images, summed exactly.
fn mean_image(set: &ImageSet) -> Vec<f32> {
    let mut sums = vec![0u64; set.channels * set.height * set.width];
    for index in 0..set.len() {
        sums.iter_mut().zip(set.image(index)).for_each(|(sum, &v)| *sum += u64::from(v));
    }
    sums.into_iter().map(|sum| (sum as f64 / set.len() as f64) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(resize: usize, crop: Crop, flip: bool) -> InputRecipe {
        InputRecipe { resize, crop, flip, mean: Mean::Value(0.), scale: 1. }
    }

    fn ramp() -> ImageSet {
        let pixels = (0..4u8).flat_map(|row| (0..4u8).map(move |col| 40 * row + 10 * col)).collect();
        ImageSet { channels: 1, height: 4, width: 4, pixels, labels: vec![0] }
    }

    #[test]
    fn the_same_size_is_the_image_itself_and_three_channels_repeat_it() {
        let set = ramp();
        let batch =
            Preprocessor::new(&recipe(4, Crop::Center, false), [3, 4, 4], &set).unwrap().batch(&set, &[0], None);
        let expected: Vec<f32> = set.pixels.iter().map(|&v| f32::from(v)).collect();
        assert_eq!(batch.images, [&expected[..], &expected, &expected].concat());
    }

    #[test]
    fn scaling_by_two_agrees_with_pytorch() {
        // torch.nn.functional.interpolate(mode="bilinear", align_corners=False) of the ramp to 8x8, first row.
        let batch =
            Preprocessor::new(&recipe(8, Crop::Center, false), [1, 8, 8], &ramp()).unwrap().batch(&ramp(), &[0], None);
        assert_eq!(batch.images[..8], [0., 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30.]);
    }

    #[test]
    fn the_mean_image_leaves_nothing_of_a_set_of_one() {
        let recipe = InputRecipe { mean: Mean::Image(MeanImage::Pixel), ..recipe(6, Crop::Random, false) };
        let batch = Preprocessor::new(&recipe, [1, 4, 4], &ramp()).unwrap().batch(&ramp(), &[0], Some((1, 2)));
        assert!(batch.images.iter().all(|v| v.abs() < 1e-4), "{:?}", batch.images);
    }

    #[test]
    fn crops_and_flips_depend_on_seed_and_epoch_alone_and_reach_every_place() {
        let set = ramp();
        let input = Preprocessor::new(&recipe(6, Crop::Random, true), [1, 4, 4], &set).unwrap();
        let crop = |epoch| input.batch(&set, &[0], Some((7, epoch))).images;
        assert_eq!(crop(3), crop(3));
        let mut seen: Vec<Vec<u32>> = (0..400).map(|epoch| crop(epoch).iter().map(|v| v.to_bits()).collect()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3 * 3 * 2);
    }
}
