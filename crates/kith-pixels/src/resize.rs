//! Crops, scales and normalises. Must never know: why.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};

use super::DecodedImage;

/// Mean and standard deviation of ImageNet's pixels by channel, in 0–1: the normalisation of torchvision's models.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// A rectangle of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Crop {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Crop {
    /// A rectangle of `width` × `height` in the middle.
    pub(super) fn centred(picture: &DecodedImage, width: f64, height: f64) -> Self {
        Self {
            left: (f64::from(picture.width) - width) / 2.0,
            top: (f64::from(picture.height) - height) / 2.0,
            width,
            height,
        }
    }
}

/// Scales the shorter edge to `side`, crops the centre, normalises: what serving and evaluation see. `[side, side, 3]`.
pub fn fit(picture: &DecodedImage, side: usize) -> Vec<f32> {
    let edge = f64::from(picture.width.min(picture.height));
    normalise(&scale(picture, Crop::centred(picture, edge, edge), side))
}

/// The crop at `side` × `side`, RGB bytes; bilinear with antialiasing, the same up and down.
pub(super) fn scale(picture: &DecodedImage, crop: Crop, side: usize) -> Vec<u8> {
    let whole = crop == Crop::centred(picture, f64::from(picture.width), f64::from(picture.height));
    if whole && picture.width as usize == side && picture.height as usize == side {
        return picture.rgb.clone();
    }
    let source = ImageRef::new(picture.width, picture.height, &picture.rgb, PixelType::U8x3)
        .expect("a picture has width x height x 3 bytes");
    let mut target = Image::new(side as u32, side as u32, PixelType::U8x3);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .use_alpha(false)
        .crop(crop.left, crop.top, crop.width, crop.height);
    Resizer::new()
        .resize(&source, &mut target, Some(&options))
        .expect("both images are RGB bytes and the crop lies inside");
    target.into_vec()
}

/// Bytes to normalised values.
pub(super) fn normalise(rgb: &[u8]) -> Vec<f32> {
    let table: [[f32; 256]; 3] = std::array::from_fn(|channel| {
        std::array::from_fn(|byte| (byte as f32 / 255.0 - MEAN[channel]) / DEVIATION[channel])
    });
    rgb.chunks_exact(3)
        .flat_map(|pixel| {
            std::array::from_fn::<f32, 3, _>(|channel| table[channel][usize::from(pixel[channel])])
        })
        .collect()
}

/// Values in 0–1 to normalised values, in place.
pub(super) fn normalise_unit(pixels: &mut [[f32; 3]]) {
    for pixel in pixels {
        for channel in 0..3 {
            pixel[channel] = (pixel[channel] - MEAN[channel]) / DEVIATION[channel];
        }
    }
}
