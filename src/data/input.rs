//! What becomes of an image on its way to the network: its size, the mean, and in training the random crops and flips
//! (paper, sections 2 and 4.1). Images are scaled and cut here; the rest of the arithmetic on pixels is the devices': see
//! `Backend::augment`.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::colours::{Colours, Sums};
use super::decode::Rgb;
use super::{Batch, DataSet, ImageSet, Images, scale};
use crate::error::{Error, Result};
use crate::rng::{Philox, Purpose};
use crate::shapes::{AugmentShape, Window};

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

/// The part of the mean image that is subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeanCrop {
    /// The window's own: each pixel's mean is that of its place.
    #[default]
    Window,
    /// The centre, whatever the window and its mirroring (2012 code, `convdata.py`).
    Center,
}

fn one() -> f32 {
    1.
}

fn alone() -> usize {
    1
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
    /// Standard deviation of the colour noise in training, in those of the set's colours along their principal axes
    /// (paper 4.1: 0.1); 0 for none.
    #[serde(default)]
    pub colour_noise: f32,
    /// Epochs with colour noise, from the first; unset: all (2012 code: 67).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour_noise_epochs: Option<u64>,
    /// What images are divided by while their colours change (2012 code: 1.1).
    #[serde(default = "one")]
    pub colour_noise_divisor: f32,
    /// Neighbours in a batch that share crop and flip (2012 code: 32).
    #[serde(default = "alone")]
    pub crop_chunk: usize,
    /// Subtracted from each pixel.
    pub mean: Mean,
    /// `window` or `center`: where the mean image is read.
    #[serde(default)]
    pub mean_crop: MeanCrop,
    /// Multiplied after that.
    pub scale: f32,
}

/// Makes batches of images of one set's format, and knows what the devices must do with them.
#[derive(Clone)]
pub struct Preprocessor {
    recipe: InputRecipe,
    shape: AugmentShape,
    /// C x resize x resize, to be subtracted.
    mean: Vec<f32>,
    /// By which colours vary: principal axes, each as long as the standard deviation along it.
    axes: Option<[[f32; 3]; 3]>,
}

impl Preprocessor {
    /// For images like those of `data`, whose mean is taken where the recipe wants it; `image` is the network's input.
    ///
    /// Fails where channels do not fit, the scaled image is smaller than the network's, or an image cannot be read.
    pub fn new(recipe: &InputRecipe, image: [usize; 3], data: &DataSet) -> Result<Preprocessor> {
        let train = &data.train;
        let mean = match recipe.mean {
            Mean::Value(value) => vec![value; train.channels * recipe.resize * recipe.resize],
            Mean::Image(MeanImage::Pixel) => {
                let small = match &data.prepared {
                    Some((mean, _)) => mean.clone(),
                    None => mean_image(train)?,
                };
                // The scaled mean is that of the scaled images, but for their rounding to bytes.
                scale_mean(small, [train.width, train.height], recipe.resize)?
            }
        };
        Preprocessor::with_mean(recipe, image, data, mean)
    }

    /// With a mean image of a training run: C x resize x resize of a set like `data`.
    pub fn with_mean(recipe: &InputRecipe, image: [usize; 3], data: &DataSet, mean: Vec<f32>) -> Result<Preprocessor> {
        let ([channels, height, size], set) = (image, &data.train);
        if height != size || recipe.resize < size {
            let problem = format!("{} is smaller than the network's image of {height}x{size}", recipe.resize);
            return Err(Error::recipe("input.resize", problem));
        }
        if channels != set.channels && set.channels != 1 {
            let problem = format!("the network reads {channels} channel, the images have {}", set.channels);
            return Err(Error::recipe("net.image_channels", problem));
        }
        let (c, resize, scale) = (set.channels, recipe.resize, recipe.scale);
        let centred_mean = recipe.mean_crop == MeanCrop::Center;
        let shape = AugmentShape { c, side: size, resize, channels, size, scale, centred_mean };
        let axes = match &data.prepared {
            _ if recipe.colour_noise == 0. => None,
            Some((_, colours)) => Some(colours.axes()),
            None => Some(colours(set)?.axes()),
        };
        Ok(Preprocessor { recipe: recipe.clone(), shape, mean, axes })
    }

    /// The same, but that devices get whole images and cut them, for looking at one in several windows.
    pub fn of_whole_images(&self) -> Preprocessor {
        Preprocessor { shape: AugmentShape { side: self.shape.resize, ..self.shape }, ..self.clone() }
    }

    /// What devices do with the bytes.
    pub fn shape(&self) -> &AugmentShape {
        &self.shape
    }

    /// The mean that is subtracted: C x resize x resize.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The images `indices` of `set` as a batch, read, decoded and scaled on the pool's threads; in training, `augment` is the
    /// seed and the epoch.
    ///
    /// Fails, naming the file, where an image cannot be read.
    pub fn batch(&self, set: &ImageSet, indices: &[u32], augment: Option<(u64, u64)>) -> Result<Batch> {
        let chunk = self.recipe.crop_chunk;
        let window = |(at, &index): (usize, &u32)| self.window(index, indices[at / chunk * chunk], augment);
        let windows: Vec<Window> = indices.iter().enumerate().map(window).collect();
        let AugmentShape { c, side, resize, .. } = self.shape;
        let mut pixels = vec![0; indices.len() * c * side * side];
        let images = pixels.par_chunks_exact_mut(c * side * side).zip(indices).zip(&windows);
        images.try_for_each(|((pixels, &index), window)| {
            let corner = if self.shape.is_cropped() { [window.row, window.col] } else { [0; 2] };
            set.window(index as usize, resize, corner.map(|at| at as usize), side, pixels)
        })?;
        let labels = indices.iter().map(|&index| set.labels[index as usize]).collect();
        Ok(Batch { images: Images::Bytes(pixels, windows), labels })
    }

    /// The paper's ten views of an image at test time: corners and centre, and the same mirrored (4.1).
    pub fn ten_views(&self) -> Vec<Window> {
        let room = (self.shape.resize - self.shape.size) as u32;
        let places = [[0, 0], [0, room], [room, 0], [room, room], [room / 2, room / 2]];
        let views = |mirrored| places.map(|[row, col]| Window { row, col, mirrored, ..Window::default() });
        [views(false), views(true)].concat()
    }

    /// What the network sees of image `index`, whose crop is that of image `first`.
    fn window(&self, index: u32, first: u32, augment: Option<(u64, u64)>) -> Window {
        let room = (self.shape.resize - self.shape.size) as u32;
        let centre = Window { row: room / 2, col: room / 2, ..Window::default() };
        let Some((seed, epoch)) = augment else { return centre };
        let rng = Philox::new(seed, Purpose::Augment, 0);
        let draw = |what, bound| rng.below([first, epoch as u32, what, 0], bound);
        let mirrored = self.recipe.flip && draw(2, 2) == 1;
        let (shift, scale) = match self.changes_colours(epoch) {
            true => (self.colour_shift(index, seed, epoch), 1. / self.recipe.colour_noise_divisor),
            false => ([0.; 3], 1.),
        };
        match self.recipe.crop {
            Crop::Random => Window { row: draw(0, room + 1), col: draw(1, room + 1), mirrored, shift, scale },
            Crop::Center => Window { mirrored, shift, scale, ..centre },
        }
    }

    /// Whether colours change in this epoch.
    fn changes_colours(&self, epoch: u64) -> bool {
        self.axes.is_some() && self.recipe.colour_noise_epochs.is_none_or(|epochs| epoch < epochs)
    }

    /// Paper 4.1: the sum of the principal axes, each times a normal number of its own. As in the 2012 code, an axis is
    /// as long as the standard deviation of the colours along it; the paper's text has the variance.
    fn colour_shift(&self, index: u32, seed: u64, epoch: u64) -> [f32; 3] {
        let rng = Philox::new(seed, Purpose::Colour, 0);
        let mut shift = [0.; 3];
        for (number, axis) in self.axes.iter().flatten().enumerate() {
            let alpha = self.recipe.colour_noise * rng.normal([index, epoch as u32, number as u32, 0]) as f32;
            shift.iter_mut().zip(axis).for_each(|(shift, v)| *shift += alpha * v);
        }
        shift
    }
}

/// A mean image (C H W) as images of `sides` (columns, rows) are scaled.
fn scale_mean(mean: Vec<f32>, sides: [usize; 2], size: usize) -> Result<Vec<f32>> {
    if sides == [size; 2] {
        return Ok(mean);
    }
    let planes = mean.chunks_exact(sides[0] * sides[1]).map(|plane| scale::floats(plane, sides, size));
    let planes: std::result::Result<Vec<_>, String> = planes.collect();
    planes.map(|planes| planes.concat()).map_err(|problem| Error::data("the mean image", problem))
}

/// The mean of a set's images, summed exactly.
fn mean_image(set: &ImageSet) -> Result<Vec<f32>> {
    let mut sums = vec![0u64; set.elems()];
    for index in 0..set.len() {
        sums.iter_mut().zip(set.image(index)?.iter()).for_each(|(sum, &v)| *sum += u64::from(v));
    }
    Ok(sums.into_iter().map(|sum| (sum as f64 / set.len() as f64) as f32).collect())
}

/// How a set's colours vary; grey ones together.
fn colours(set: &ImageSet) -> Result<Colours> {
    let mut sums = Sums::default();
    for index in 0..set.len() {
        sums.add(&Rgb::from_planes(set.channels, set.height, set.width, &set.image(index)?).pixels);
    }
    Ok(sums.colours())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(resize: usize, crop: Crop, flip: bool) -> InputRecipe {
        InputRecipe {
            resize,
            crop,
            flip,
            colour_noise: 0.,
            colour_noise_epochs: None,
            colour_noise_divisor: 1.,
            crop_chunk: 1,
            mean: Mean::Value(0.),
            mean_crop: MeanCrop::Window,
            scale: 1.,
        }
    }

    /// A batch as the network reads it.
    fn ready(input: &Preprocessor, data: &DataSet, indices: &[u32], augment: Option<(u64, u64)>) -> Vec<f32> {
        let batch = input.batch(&data.train, indices, augment).unwrap();
        let Images::Bytes(pixels, windows) = batch.images else { unreachable!() };
        let mut y = vec![0.; indices.len() * input.shape.channels * input.shape.size.pow(2)];
        alexnet_split_cpu::augment::augment(input.shape(), &pixels, &windows, input.mean(), &mut y);
        y
    }

    fn ramp() -> DataSet {
        let [train, held_out] = [(); 2].map(|()| ImageSet::in_memory([1, 4, 4], pixels(), vec![0]));
        DataSet { train, held_out, classes: vec!["ramp".into()], prepared: None }
    }

    fn pixels() -> Vec<u8> {
        (0..4u8).flat_map(|row| (0..4u8).map(move |col| 40 * row + 10 * col)).collect()
    }

    #[test]
    fn the_same_size_is_the_image_itself_and_three_channels_repeat_it() {
        let set = ramp();
        let input = Preprocessor::new(&recipe(4, Crop::Center, false), [3, 4, 4], &set).unwrap();
        let expected: Vec<f32> = pixels().iter().map(|&v| f32::from(v)).collect();
        assert_eq!(ready(&input, &set, &[0], None), [&expected[..], &expected, &expected].concat());
    }

    #[test]
    fn scaling_by_two_agrees_with_pytorch() {
        // torch.nn.functional.interpolate(mode="bilinear", align_corners=False) of the ramp to 8x8, first row: 0, 2.5,
        // 7.5 and so on; bytes are rounded.
        let input = Preprocessor::new(&recipe(8, Crop::Center, false), [1, 8, 8], &ramp()).unwrap();
        assert_eq!(ready(&input, &ramp(), &[0], None)[..8], [0., 3., 8., 13., 18., 23., 28., 30.]);
    }

    #[test]
    fn the_mean_image_leaves_nothing_of_a_set_of_one() {
        let recipe = InputRecipe { mean: Mean::Image(MeanImage::Pixel), ..recipe(6, Crop::Random, false) };
        let input = Preprocessor::new(&recipe, [1, 4, 4], &ramp()).unwrap();
        let left = ready(&input, &ramp(), &[0], Some((1, 2)));
        // Images are rounded to bytes, along rows and then along columns; their mean is not.
        assert!(left.iter().all(|v| v.abs() <= 1.), "{left:?}");
    }

    #[test]
    fn images_that_are_made_smaller_are_smoothed_as_prepare_does_it() {
        // A line of four columns is white; from one pixel to the next are four.
        let stripes: Vec<u8> = (0..16 * 16).map(|at| if at % 4 == 0 { 255 } else { 0 }).collect();
        let set = |pixels: &[u8]| ImageSet::in_memory([1, 16, 16], pixels.to_vec(), vec![0]);
        let data =
            DataSet { train: set(&stripes), held_out: set(&stripes), classes: vec!["stripes".into()], prepared: None };
        let input = Preprocessor::new(&recipe(4, Crop::Center, false), [1, 4, 4], &data).unwrap();
        let found = ready(&input, &data, &[0], None);
        let prepared = Rgb::from_planes(1, 16, 16, &stripes).square(4).unwrap();
        assert_eq!(found, prepared.chunks(3).map(|pixel| f32::from(pixel[0])).collect::<Vec<_>>());
        // Pillow's row, `resize((4, 4), Image.BILINEAR)`: a quarter of what is seen is white, at the edges more or less.
        assert_eq!(found[..4], [73., 64., 64., 46.]);
    }

    #[test]
    fn the_mean_image_is_scaled_as_the_images_are() {
        let pixels: Vec<u8> = (0..30 * 2 * 63).map(|at: usize| (at * at * 7 / 13 % 251) as u8).collect();
        let set = || ImageSet::in_memory([2, 9, 7], pixels.clone(), vec![0; 30]);
        let data = DataSet { train: set(), held_out: set(), classes: vec!["noise".into()], prepared: None };
        for size in [5, 12] {
            let recipe = InputRecipe { mean: Mean::Image(MeanImage::Pixel), ..recipe(size, Crop::Center, false) };
            let input = Preprocessor::new(&recipe, [2, size, size], &data).unwrap();
            let indices: Vec<u32> = (0..30).collect();
            let Images::Bytes(bytes, _) = input.batch(&data.train, &indices, None).unwrap().images else { panic!() };
            for (at, mean) in input.mean().iter().enumerate() {
                let values = bytes.iter().skip(at).step_by(2 * size * size).map(|&v| f32::from(v));
                let of_images = values.sum::<f32>() / 30.;
                assert!((mean - of_images).abs() < 0.5, "{size}, {at}: {mean}, images {of_images}");
            }
        }
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
