//! Synthetic image files for benchmarks: about as smooth and as noisy as a photograph, so that codecs work as hard.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};

/// The format of a [`sample`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleFormat {
    /// JPEG, as most photographs are.
    Jpeg,
    /// PNG.
    Png,
}

/// A synthetic image file of `width` × `height` pixels.
pub fn sample(format: SampleFormat, width: u32, height: u32) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| {
        let noise = (x * 7919 + y * 104_729) % 23;
        let wave = |period: u32, shift: u32| {
            let angle = (x * 3 + y * 2 + shift) as f32 / period as f32;
            (110.0 + 100.0 * angle.sin()) as u8 + noise as u8
        };
        image::Rgb([wave(61, 0), wave(83, 40), wave(127, 90)])
    });
    let format = match format {
        SampleFormat::Jpeg => ImageFormat::Jpeg,
        SampleFormat::Png => ImageFormat::Png,
    };
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, format)
        .expect("RGB can be written in both formats, and memory takes all");
    bytes.into_inner()
}
