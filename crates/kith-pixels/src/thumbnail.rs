//! Small copies of images, for people.

use image::codecs::jpeg::JpegEncoder;

use super::{
    DecodedImage,
    resize::{Crop, scale_to},
};

/// Quality of a thumbnail's JPEG, 1 to 100.
const QUALITY: u8 = 82;

/// The image as a JPEG file whose longer edge has at most `edge` pixels. A smaller image keeps its size.
///
/// # Panics
/// If `image.rgb` does not have `width · height · 3` bytes, or an edge is 0 or above 65,535.
pub fn thumbnail(image: &DecodedImage, edge: u32) -> Vec<u8> {
    let longer = image.width.max(image.height);
    let edge_of = |side: u32| {
        let scaled = f64::from(side) * f64::from(edge.min(longer)) / f64::from(longer);
        (scaled.round() as u32).max(1)
    };
    let (width, height) = (edge_of(image.width), edge_of(image.height));
    let scaled = scale_to(image, Crop::whole(image), (width as usize, height as usize));
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, QUALITY)
        .encode(&scaled, width, height, image::ExtendedColorType::Rgb8)
        .expect("memory takes any small RGB image as a JPEG");
    file
}
