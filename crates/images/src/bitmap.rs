//! Pictures that the program draws, and writes as PNG.

use std::io;

use super::formats::png;
use super::scale;

/// Rows of grey or of red, green and blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    /// Columns and rows.
    pub size: [u32; 2],
    /// 1 or 3.
    pub channels: usize,
    /// Rows x columns x channels.
    pub values: Vec<u8>,
}

impl Bitmap {
    /// A black one.
    pub fn black(size: [u32; 2], channels: usize) -> Bitmap {
        Bitmap { size, channels, values: vec![0; size[0] as usize * size[1] as usize * channels] }
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.size[0]
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.size[1]
    }

    /// Gives a pixel the colour that `colour` has for each channel.
    pub fn put(&mut self, column: usize, row: usize, colour: impl Fn(usize) -> u8) {
        let at = (row * self.size[0] as usize + column) * self.channels;
        (0..self.channels).for_each(|channel| self.values[at + channel] = colour(channel));
    }

    /// Made smaller, so that no side is longer than `most`: a pixel is the mean of those that it covers.
    pub fn within(self, most: u32) -> io::Result<Bitmap> {
        let longest = self.size[0].max(self.size[1]);
        if longest <= most {
            return Ok(self);
        }
        let size = self.size.map(|side| (u64::from(side) * u64::from(most) / u64::from(longest)).max(1) as u32);
        let [from, to] = [self.size, size].map(|sides| sides.map(|side| side as usize));
        let values = scale::means(&self.values, self.channels, from, to).map_err(io::Error::other)?;
        Ok(Bitmap { size, channels: self.channels, values })
    }

    /// The bytes of a PNG file.
    pub fn png(&self) -> io::Result<Vec<u8>> {
        png::encode(&self.values, self.size, self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats;

    #[test]
    fn a_png_has_the_pictures_pixels() {
        let mut picture = Bitmap::black([3, 2], 3);
        picture.put(2, 1, |channel| [7, 80, 255][channel]);
        let read = formats::decode(&picture.png().unwrap()).unwrap();
        assert_eq!((read.width, read.height, &read.pixels), (3, 2, &picture.values));
        let mut grey = Bitmap::black([1, 4], 1);
        grey.put(0, 3, |_| 9);
        assert_eq!(formats::decode(&grey.png().unwrap()).unwrap().pixels, [0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9]);
    }

    #[test]
    fn a_smaller_one_has_the_means() {
        let values = [[10, 20, 30, 40], [30, 40, 50, 60]].concat();
        let picture = Bitmap { size: [4, 2], channels: 1, values };
        assert_eq!(picture.clone().within(4).unwrap(), picture);
        assert_eq!(picture.within(2).unwrap(), Bitmap { size: [2, 1], channels: 1, values: vec![25, 45] });
    }
}
