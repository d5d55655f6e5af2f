//! Small copies of images, for people.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};
use image::codecs::jpeg::JpegEncoder;

use super::DecodedImage;

/// Quality of a thumbnail's JPEG, 1 to 100.
const QUALITY: u8 = 82;

/// The image as a JPEG file whose longer edge has at most `edge` pixels. A smaller image keeps its size.
///
/// # Panics
/// If `image.rgb` does not have `width · height · 3` bytes, or an edge is 0 or above 65,535.
pub fn thumbnail(image: &DecodedImage, edge: u32) -> Vec<u8> {
    let longer = image.width.max(image.height);
    let scaled = |side: u32| {
        let scaled = f64::from(side) * f64::from(edge.min(longer)) / f64::from(longer);
        (scaled.round() as u32).max(1)
    };
    let (width, height) = (scaled(image.width), scaled(image.height));
    let source = ImageRef::new(image.width, image.height, &image.rgb, PixelType::U8x3)
        .expect("an image has width x height x 3 bytes");
    let mut target = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .use_alpha(false);
    Resizer::new()
        .resize(&source, &mut target, Some(&options))
        .expect("both images are RGB bytes");
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, QUALITY)
        .encode(
            target.buffer(),
            width,
            height,
            image::ExtendedColorType::Rgb8,
        )
        .expect("memory takes any small RGB image as a JPEG");
    file
}
