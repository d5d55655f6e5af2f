//! Crops, scales and normalises images.

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};

use super::DecodedImage;

/// Mean and standard deviation of ImageNet's pixels by channel, in 0–1, as torchvision's models use them.
pub(super) const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub(super) const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// A rectangle inside an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Crop {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Crop {
    /// All of the image.
    pub(super) fn whole(image: &DecodedImage) -> Self {
        Self::centred(image, f64::from(image.width), f64::from(image.height))
    }

    /// A rectangle of `width` × `height` in the middle.
    pub(super) fn centred(image: &DecodedImage, width: f64, height: f64) -> Self {
        Self {
            left: (f64::from(image.width) - width) / 2.0,
            top: (f64::from(image.height) - height) / 2.0,
            width,
            height,
        }
    }
}

/// The input of an encoder for serving and evaluation: scales the shorter edge to `side`, crops the centre, and normalises as for ImageNet.
/// Returns f32 `[side, side, 3]`.
///
/// # Panics
/// If `image.rgb` does not have `width · height · 3` bytes.
pub fn fit(image: &DecodedImage, side: usize) -> Vec<f32> {
    let edge = f64::from(image.width.min(image.height));
    normalise(&scale(image, Crop::centred(image, edge, edge), side))
}

/// The crop scaled to `side` × `side` RGB bytes: bilinear, with antialiasing when scaled down.
pub(super) fn scale(image: &DecodedImage, crop: Crop, side: usize) -> Vec<u8> {
    if crop == Crop::whole(image) && image.width as usize == side && image.height as usize == side {
        return image.rgb.clone();
    }
    scale_to(image, crop, (side, side))
}

/// The crop scaled to a size (across, down), as [`scale`] does.
pub(super) fn scale_to(image: &DecodedImage, crop: Crop, size: (usize, usize)) -> Vec<u8> {
    resample((image, &image.rgb), crop, size)
}

/// The crop of an image's transparency, one byte a pixel, scaled as [`scale`] does.
pub(super) fn scale_alpha(
    image: &DecodedImage,
    alpha: &[u8],
    crop: Crop,
    size: (usize, usize),
) -> Vec<u8> {
    // As grey pixels: kernels for single bytes would take as long to compile as the rest of this crate.
    let grey: Vec<u8> = alpha.iter().flat_map(|&byte| [byte; 3]).collect();
    resample((image, &grey), crop, size)
        .into_iter()
        .step_by(3)
        .collect()
}

/// `rgb`: pixels of the size of `image`. Their kind is a type, since `Resizer::resize` compiles the kernels of all kinds.
fn resample(
    (image, rgb): (&DecodedImage, &[u8]),
    crop: Crop,
    (wide, high): (usize, usize),
) -> Vec<u8> {
    let source = TypedImageRef::<U8x3>::from_buffer(image.width, image.height, rgb)
        .expect("an image has width x height x 3 bytes");
    let mut scaled = vec![0; wide * high * 3];
    let mut target = TypedImage::<U8x3>::from_buffer(wide as u32, high as u32, &mut scaled)
        .expect("as many bytes as its pixels have");
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .use_alpha(false)
        .crop(crop.left, crop.top, crop.width, crop.height);
    Resizer::new()
        .resize_typed(&source, &mut target, Some(&options))
        .expect("the crop lies inside");
    scaled
}

/// Converts RGB bytes to normalised values.
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

/// Normalises values in 0–1 in place.
pub(super) fn normalise_unit(pixels: &mut [[f32; 3]]) {
    for pixel in pixels {
        for channel in 0..3 {
            pixel[channel] = (pixel[channel] - MEAN[channel]) / DEVIATION[channel];
        }
    }
}

/// The inverse of [`normalise`], rounded: the bytes of an encoder's input.
pub(super) fn to_bytes(pixels: &[f32]) -> Vec<u8> {
    let byte = |(place, value): (usize, &f32)| {
        let channel = place % 3;
        ((value * DEVIATION[channel] + MEAN[channel]) * 255.0).round() as u8
    };
    pixels.iter().enumerate().map(byte).collect()
}
