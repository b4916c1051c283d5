//! Small sets that are read whole: IDX and CIFAR.

use rayon::prelude::*;

use super::{Item, Picture, Source};
use crate::error::Result;
use crate::small::SmallImages;

/// Images in memory.
pub struct Memory {
    set: SmallImages,
    items: Vec<Item>,
}

impl Memory {
    /// `name` is what the images are called, with their numbers.
    pub fn new(name: &str, set: SmallImages) -> Memory {
        let item = |(number, &class)| Item { name: format!("{name} {number}"), class };
        let items = set.labels.iter().enumerate().map(item).collect();
        Memory { set, items }
    }

    fn picture(&self, index: u32) -> Result<Picture> {
        let SmallImages { channels, height, width, .. } = self.set;
        let values = self.set.image(index as usize).to_vec();
        Ok(Picture::Planes { channels, height, width, values })
    }
}

impl Source for Memory {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn read(&self, indices: &[u32], work: &(dyn Fn(usize, Result<Picture>) + Sync)) {
        indices.par_iter().enumerate().for_each(|(place, &index)| work(place, self.picture(index)));
    }
}
