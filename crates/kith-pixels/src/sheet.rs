//! A contact sheet: square images in rows, with a little space between them.

use super::{DecodedImage, resize::to_bytes};

/// Pixels between images, and around them.
const GAP: usize = 4;
/// What lies between images: mid grey, on which white and black backgrounds can be told.
const GROUND: u8 = 128;

/// Square images in rows of a fixed length. Its size is known from the start.
pub struct Sheet {
    side: usize,
    columns: usize,
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Sheet {
    /// An empty sheet for images of `side` pixels, `columns` a row.
    pub fn new(side: usize, columns: usize, rows: usize) -> Self {
        let [width, height] = Self::size(side, columns, rows);
        Self {
            side,
            columns,
            width,
            height,
            rgb: vec![GROUND; width * height * 3],
        }
    }

    /// Pixels across and down of a sheet.
    pub fn size(side: usize, columns: usize, rows: usize) -> [usize; 2] {
        [columns, rows].map(|count| GAP + count * (side + GAP))
    }

    /// Puts an encoder's input, f32 `[side, side, 3]` normalised as for ImageNet, at a place: row by row from the top left.
    ///
    /// # Panics
    /// If the place is not on the sheet, or `pixels` has another length.
    pub fn put(&mut self, place: usize, pixels: &[f32]) {
        assert_eq!(pixels.len(), self.side * self.side * 3, "length of a view");
        let left = GAP + place % self.columns * (self.side + GAP);
        let top = GAP + place / self.columns * (self.side + GAP);
        let bytes = to_bytes(pixels);
        for (row, line) in bytes.chunks_exact(3 * self.side).enumerate() {
            let start = 3 * ((top + row) * self.width + left);
            self.rgb[start..start + line.len()].copy_from_slice(line);
        }
    }

    /// The sheet as an image.
    pub fn into_image(self) -> DecodedImage {
        DecodedImage::opaque(self.width as u32, self.height as u32, self.rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize::normalise;

    #[test]
    fn an_image_lies_where_it_was_put_with_the_bytes_it_was_made_from() {
        let bytes: Vec<u8> = (0..2 * 2 * 3).map(|i| i * 20).collect();
        let mut sheet = Sheet::new(2, 3, 2);
        sheet.put(5, &normalise(&bytes));
        let image = sheet.into_image();
        assert_eq!((image.width, image.height), (22, 16));
        let at = |x: usize, y: usize| &image.rgb[3 * (y * 22 + x)..][..3];
        assert_eq!(at(16, 10), &bytes[..3]);
        assert_eq!(at(17, 11), &bytes[9..]);
        let drawn = image.rgb.chunks(3).filter(|pixel| **pixel != [128; 3]);
        assert_eq!(drawn.count(), 4);
    }
}
