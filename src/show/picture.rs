//! Images in the terminal.

use crate::data::ImageSet;
use crate::error::Result;

/// Image `index` as text: two rows of pixels per line, ten shades.
pub fn picture(set: &ImageSet, index: usize) -> Result<String> {
    const SHADES: &[u8] = b" .:-=+*#%@";
    let image = set.image(index)?;
    let plane = &image[..set.height * set.width];
    // At most 56 columns; a character is about twice as high as wide.
    let step = set.width.div_ceil(56).max(1);
    let mut out = String::new();
    for row in (0..set.height.saturating_sub(step)).step_by(2 * step) {
        out += "  ";
        for col in (0..set.width).step_by(step) {
            let below = (row + step).min(set.height - 1);
            let value = (usize::from(plane[row * set.width + col]) + usize::from(plane[below * set.width + col])) / 2;
            out.push(SHADES[value * (SHADES.len() - 1) / 255] as char);
        }
        out.push('\n');
    }
    Ok(out)
}
