//! A picture becomes a file. Must never know: what it shows.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};

use super::DecodedImage;

/// The picture as a PNG file.
pub fn png(picture: &DecodedImage) -> Vec<u8> {
    let image = RgbImage::from_raw(picture.width, picture.height, picture.rgb.clone())
        .expect("a picture has width x height x 3 bytes");
    let mut file = Cursor::new(Vec::new());
    image
        .write_to(&mut file, ImageFormat::Png)
        .expect("memory takes any RGB image as a PNG");
    file.into_inner()
}
