//! A picture for measuring, made of nothing: as smooth and as rough as a photograph, so that codecs work as hard.
//! Must never know: who measures.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};

/// The formats a sample can be had in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleFormat {
    /// Lossy, as most photographs are.
    Jpeg,
    /// Lossless.
    Png,
}

/// The bytes of an image file of `width` × `height` pixels.
pub fn sample(format: SampleFormat, width: u32, height: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| {
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
    picture
        .write_to(&mut bytes, format)
        .expect("RGB can be written in both formats, and memory takes all");
    bytes.into_inner()
}
