//! Bytes of an image file in, normalised pixels out: decode, orient, composite, resize, augment.
//! Must never know: tensors, storage, HTTP. Only room that uses `image` and `fast_image_resize`.
//! All pixel outputs are f32, height × width × channel (`[side, side, 3]`), ImageNet-normalised.

use serde::{Deserialize, Serialize};

/// What an image may cost, checked from its header before it is decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most bytes one encoded image may have.
    pub max_bytes: usize,
    /// Most pixels (width × height) one image may have.
    pub max_pixels: u64,
}

/// A decoded image: upright (EXIF applied), RGB, 8 bits, alpha composited over white.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// `height · width · 3` bytes.
    pub rgb: Vec<u8>,
}

/// What the header of an image file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// `jpeg`, `png`, `webp`, `gif` or `bmp`: decided by the content.
    pub format: &'static str,
    /// Pixels across, as stored (before EXIF orientation).
    pub width: u32,
    /// Pixels down, as stored.
    pub height: u32,
}

/// Why bytes are not an image that kith takes. `code()` is stable and goes out in API errors.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// `image_too_large`: too many bytes or pixels.
    #[error("{0}")]
    TooLarge(String),
    /// `image_undecodable`: not a supported format, or broken.
    #[error("{0}")]
    Undecodable(String),
}

impl PixelError {
    /// The stable error code of the HTTP interface.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "image_too_large",
            Self::Undecodable(_) => "image_undecodable",
        }
    }
}

/// Reads and checks the header only: cheap, never allocates the pixels.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Header, PixelError> {
    todo!("{} {limits:?}", bytes.len())
}

/// Decodes after [`inspect`].
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, PixelError> {
    todo!("{} {limits:?}", bytes.len())
}

/// Resizes the shorter edge to `side`, crops the centre, normalises: what serving and evaluation see.
pub fn fit(picture: &Picture, side: usize) -> Vec<f32> {
    todo!("{} {side}", picture.width)
}

/// Strength of the training augmentation (SimCLR's recipe); every probability and range is a setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Smallest share of the image's area that a random crop keeps (largest is 1).
    pub crop_min_area: f32,
    /// Probability of a horizontal flip.
    pub flip: f32,
    /// Probability of colour jitter.
    pub jitter: f32,
    /// Ranges of colour jitter: brightness, contrast, saturation, hue.
    pub jitter_strength: [f32; 4],
    /// Probability of dropping colour.
    pub greyscale: f32,
    /// Probability of a Gaussian blur (σ uniform in 0.1–2 pixels, kernel 10 % of the side).
    pub blur: f32,
}

/// One augmented view, `[side, side, 3]`, fully determined by `seed`.
pub fn augment(picture: &Picture, side: usize, config: &AugmentConfig, seed: u64) -> Vec<f32> {
    todo!("{} {side} {config:?} {seed}", picture.width)
}
