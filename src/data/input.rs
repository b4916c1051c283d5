//! What becomes of an image on its way to the network: the mean, and in training the random crops and flips (paper,
//! sections 2 and 4.1). The arithmetic on pixels is the devices': see `Backend::augment`.

use serde::{Deserialize, Serialize};

use super::{Batch, ImageSet, Images};
use crate::backend::cpu::augment::scale_window;
use crate::backend::{AugmentShape, Window};
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

/// Makes batches of images of one set's format, and knows what the devices must do with them.
pub struct Preprocessor {
    recipe: InputRecipe,
    shape: AugmentShape,
    /// C x resize x resize, to be subtracted.
    mean: Vec<f32>,
}

impl Preprocessor {
    /// For images like those of `train`, whose mean is taken where the recipe wants it; `image` is the network's input.
    ///
    /// Fails where channels do not fit or the scaled image is smaller than the network's.
    pub fn new(recipe: &InputRecipe, image: [usize; 3], train: &ImageSet) -> Result<Preprocessor> {
        let area = recipe.resize * recipe.resize;
        let mean = match recipe.mean {
            Mean::Value(value) => vec![value; train.channels * area],
            Mean::Image(MeanImage::Pixel) => {
                let (small, size) = (mean_image(train), [train.height, train.width]);
                let mut mean = vec![0.; train.channels * area];
                for (mean, small) in mean.chunks_exact_mut(area).zip(small.chunks_exact(size[0] * size[1])) {
                    scale_window(small, size, recipe.resize, [0, 0], recipe.resize, |v| *v, mean);
                }
                mean
            }
        };
        Preprocessor::with_mean(recipe, image, train, mean)
    }

    /// With a mean image of a training run: C x resize x resize of a set like `set`.
    pub fn with_mean(recipe: &InputRecipe, image: [usize; 3], set: &ImageSet, mean: Vec<f32>) -> Result<Preprocessor> {
        let [channels, height, size] = image;
        if height != size || recipe.resize < size {
            let problem = format!("{} is smaller than the network's image of {height}x{size}", recipe.resize);
            return Err(Error::recipe("input.resize", problem));
        }
        if channels != set.channels && set.channels != 1 {
            let problem = format!("the network reads {channels} channel, the images have {}", set.channels);
            return Err(Error::recipe("net.image_channels", problem));
        }
        let (c, h, w) = (set.channels, set.height, set.width);
        let shape = AugmentShape { c, h, w, resize: recipe.resize, channels, size, scale: recipe.scale };
        Ok(Preprocessor { recipe: recipe.clone(), shape, mean })
    }

    /// What devices do with the bytes.
    pub fn shape(&self) -> &AugmentShape {
        &self.shape
    }

    /// The mean that is subtracted: C x resize x resize.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The images `indices` of `set` as a batch; in training, `augment` is the seed and the epoch.
    pub fn batch(&self, set: &ImageSet, indices: &[u32], augment: Option<(u64, u64)>) -> Batch {
        let pixels = indices.iter().flat_map(|&index| set.image(index as usize)).copied().collect();
        let windows = indices.iter().map(|&index| self.window(index, augment)).collect();
        let labels = indices.iter().map(|&index| set.labels[index as usize]).collect();
        Batch { images: Images::Bytes(pixels, windows), labels }
    }

    /// What the network sees of image `index`.
    fn window(&self, index: u32, augment: Option<(u64, u64)>) -> Window {
        let room = (self.shape.resize - self.shape.size) as u32;
        let centre = Window { row: room / 2, col: room / 2, mirrored: false };
        let Some((seed, epoch)) = augment else { return centre };
        let rng = Philox::new(seed, Purpose::Augment, 0);
        let draw = |what, bound| rng.below([index, epoch as u32, what, 0], bound);
        let mirrored = self.recipe.flip && draw(2, 2) == 1;
        match self.recipe.crop {
            Crop::Random => Window { row: draw(0, room + 1), col: draw(1, room + 1), mirrored },
            Crop::Center => Window { mirrored, ..centre },
        }
    }
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
    use crate::backend::cpu;

    fn recipe(resize: usize, crop: Crop, flip: bool) -> InputRecipe {
        InputRecipe { resize, crop, flip, mean: Mean::Value(0.), scale: 1. }
    }

    /// A batch as the network reads it.
    fn ready(input: &Preprocessor, set: &ImageSet, indices: &[u32], augment: Option<(u64, u64)>) -> Vec<f32> {
        let Images::Bytes(pixels, windows) = input.batch(set, indices, augment).images else { unreachable!() };
        let mut y = vec![0.; indices.len() * input.shape.channels * input.shape.size.pow(2)];
        cpu::augment::augment(input.shape(), &pixels, &windows, input.mean(), &mut y);
        y
    }

    fn ramp() -> ImageSet {
        let pixels = (0..4u8).flat_map(|row| (0..4u8).map(move |col| 40 * row + 10 * col)).collect();
        ImageSet { channels: 1, height: 4, width: 4, pixels, labels: vec![0] }
    }

    #[test]
    fn the_same_size_is_the_image_itself_and_three_channels_repeat_it() {
        let set = ramp();
        let input = Preprocessor::new(&recipe(4, Crop::Center, false), [3, 4, 4], &set).unwrap();
        let expected: Vec<f32> = set.pixels.iter().map(|&v| f32::from(v)).collect();
        assert_eq!(ready(&input, &set, &[0], None), [&expected[..], &expected, &expected].concat());
    }

    #[test]
    fn scaling_by_two_agrees_with_pytorch() {
        // torch.nn.functional.interpolate(mode="bilinear", align_corners=False) of the ramp to 8x8, first row.
        let input = Preprocessor::new(&recipe(8, Crop::Center, false), [1, 8, 8], &ramp()).unwrap();
        assert_eq!(ready(&input, &ramp(), &[0], None)[..8], [0., 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30.]);
    }

    #[test]
    fn the_mean_image_leaves_nothing_of_a_set_of_one() {
        let recipe = InputRecipe { mean: Mean::Image(MeanImage::Pixel), ..recipe(6, Crop::Random, false) };
        let input = Preprocessor::new(&recipe, [1, 4, 4], &ramp()).unwrap();
        let left = ready(&input, &ramp(), &[0], Some((1, 2)));
        assert!(left.iter().all(|v| v.abs() < 1e-4), "{left:?}");
    }

    #[test]
    fn crops_and_flips_depend_on_seed_and_epoch_alone_and_reach_every_place() {
        let set = ramp();
        let input = Preprocessor::new(&recipe(6, Crop::Random, true), [1, 4, 4], &set).unwrap();
        let crop = |epoch| ready(&input, &set, &[0], Some((7, epoch)));
        assert_eq!(crop(3), crop(3));
        let mut seen: Vec<Vec<u32>> = (0..400).map(|epoch| crop(epoch).iter().map(|v| v.to_bits()).collect()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3 * 3 * 2);
    }
}
