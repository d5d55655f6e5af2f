#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod augment;
mod blur;
mod budget;
mod decode;
mod encode;
mod format;
mod jitter;
mod jpeg;
mod resize;
mod sample;

use serde::{Deserialize, Serialize};

pub use self::augment::{AugmentConfig, augment};
pub use self::decode::{decode, decode_with, inspect};
pub use self::encode::png;
pub use self::format::{EXTENSIONS, taken};
pub use self::resize::fit;
pub use self::sample::{SampleFormat, sample};

/// What an image may cost, checked from its header before it is decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most bytes one encoded image may have.
    pub max_bytes: usize,
    /// Most pixels (width × height) one image may have.
    pub max_pixels: u64,
    /// Most MiB that all decoders of the process may use at once; a decode beyond it waits for the others.
    pub decode_memory_mb: u64,
}

/// A decoded image: upright (EXIF applied), RGB, 8 bits, alpha composited over white.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedImage {
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
    /// `jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff` or `qoi`: decided by the content.
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
