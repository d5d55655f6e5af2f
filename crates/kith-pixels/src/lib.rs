#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod affine;
mod augment;
mod augment_config;
mod background;
mod blur;
mod budget;
mod decode;
mod encode;
mod format;
mod jitter;
mod jpeg;
mod outline;
mod palette;
mod preprocessing;
mod recompress;
mod resize;
mod sample;
mod sheet;
mod thumbnail;
mod view;

use serde::{Deserialize, Serialize};

pub use self::augment::augment;
pub use self::augment_config::{AugmentConfig, Preset};
pub use self::decode::{
    decode, decode_cost, decode_keeping_alpha, decode_with, inspect, is_affordable,
};
pub use self::encode::encode_png;
pub use self::format::{EXTENSIONS, supported_formats};
pub use self::preprocessing::Preprocessing;
pub use self::resize::fit;
pub use self::sample::{SampleFormat, sample};
pub use self::sheet::Sheet;
pub use self::thumbnail::thumbnail;

/// Limits on an image, checked from its header before it is decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Maximum bytes of an encoded image.
    pub max_bytes: usize,
    /// Maximum pixels (width × height) of an image.
    pub max_pixels: u64,
    /// Maximum MiB that all decoders of the process may use at once; a decode beyond it waits for the others.
    pub decode_memory_mb: u64,
}

/// A decoded image: upright (EXIF applied), RGB, 8 bits, composited over white.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedImage {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// `height · width · 3` bytes.
    pub rgb: Vec<u8>,
    /// `height · width` bytes, 255 for opaque; `None` where no pixel is transparent, or where [`decode_keeping_alpha`] was not asked.
    pub alpha: Option<Vec<u8>>,
}

impl DecodedImage {
    /// An image without transparent pixels. `rgb`: `height · width · 3` bytes.
    pub fn opaque(width: u32, height: u32, rgb: Vec<u8>) -> Self {
        Self {
            width,
            height,
            rgb,
            alpha: None,
        }
    }

    /// Bytes of its pixels in memory.
    pub fn bytes(&self) -> usize {
        self.rgb.len() + self.alpha.as_ref().map_or(0, Vec::len)
    }
}

/// The header of an image file.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// `jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff` or `qoi`, detected from the content.
    pub format: &'static str,
    /// Pixels across, as stored (before EXIF orientation).
    pub width: u32,
    /// Pixels down, as stored.
    pub height: u32,
}

/// Why bytes are not accepted as an image.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PixelError {
    /// Too many bytes or pixels; code `image_too_large`.
    #[error("{0}")]
    TooLarge(String),
    /// An unsupported format, or a broken file; code `image_undecodable`.
    #[error("{0}")]
    Undecodable(String),
}

impl PixelError {
    /// The stable code of this error in the HTTP interface.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "image_too_large",
            Self::Undecodable(_) => "image_undecodable",
        }
    }
}
