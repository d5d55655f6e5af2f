//! Encodes an image as a file.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};

use super::DecodedImage;

/// Encodes the image as a PNG file.
///
/// # Panics
/// If `image.rgb` does not have `width · height · 3` bytes.
pub fn encode_png(image: &DecodedImage) -> Vec<u8> {
    let image = RgbImage::from_raw(image.width, image.height, image.rgb.clone())
        .expect("an image has width x height x 3 bytes");
    let mut file = Cursor::new(Vec::new());
    image
        .write_to(&mut file, ImageFormat::Png)
        .expect("memory takes any RGB image as a PNG");
    file.into_inner()
}
