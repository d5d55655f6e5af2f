//! An image file becomes upright RGB over white, or a reason why not.
//! Must never know: what the pixels are for.

use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits as CodecLimits,
    metadata::Orientation,
};

use super::{Header, Limits, Picture, PixelError};

/// Most bytes a codec may allocate for each allowed pixel: 16-bit RGBA, and the same again to work in.
const CODEC_BYTES_PER_PIXEL: u64 = 16;
/// What a codec may always allocate, however few the pixels: tables and buffers of its own.
const CODEC_BYTES: u64 = 16 << 20;

/// Reads and checks the header only: cheap, never allocates the pixels.
///
/// # Errors
/// [`PixelError::TooLarge`] beyond `limits`; [`PixelError::Undecodable`] for what is no JPEG, PNG, WebP, GIF or BMP.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Header, PixelError> {
    if bytes.len() > limits.max_bytes {
        return Err(PixelError::TooLarge(format!(
            "the image has {} bytes and at most {} are allowed: compress it or scale it down",
            bytes.len(),
            limits.max_bytes
        )));
    }
    let format = format_of(bytes)?;
    let (width, height) = contain(|| reader(bytes, format, limits).into_dimensions())?;
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(PixelError::Undecodable("the image has no pixels".into()));
    }
    if pixels > limits.max_pixels {
        return Err(PixelError::TooLarge(format!(
            "the image has {width}x{height} = {pixels} pixels and at most {} are allowed: scale it down",
            limits.max_pixels
        )));
    }
    Ok(Header {
        format: name(format),
        width,
        height,
    })
}

/// Decodes after [`inspect`]: the first frame, turned as EXIF says, alpha over white.
///
/// # Errors
/// As [`inspect`], and [`PixelError::Undecodable`] for a broken file.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, PixelError> {
    inspect(bytes, limits)?;
    let format = format_of(bytes)?;
    if format == ImageFormat::Jpeg && !jpeg_ends(bytes) {
        return Err(PixelError::Undecodable(
            "the JPEG ends in the middle of its pixels: is the file whole?".into(),
        ));
    }
    let image = contain(|| {
        let mut decoder = reader(bytes, format, limits).into_decoder()?;
        // A broken EXIF block says nothing about the pixels: they are taken as they lie.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    })?;
    Ok(over_white(&image))
}

/// Whether a JPEG goes on to its end marker. The codec fills in grey for pixels that are missing and reports nothing, so a cut-off upload
/// would be learned from as it is. Segments carry their length and are skipped, thumbnails in them included; scans (ITU T.81, annex B)
/// never hold the marker's two bytes. Table segments between scans might by chance: then a cut-off file passes, never is a whole one refused.
fn jpeg_ends(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];
    // Behind the start marker.
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        match rest {
            [0xFF, START_OF_SCAN, scans @ ..] => {
                return scans.windows(2).any(|bytes| bytes == END_OF_IMAGE);
            }
            // Fill bytes, and markers without a segment.
            [0xFF, 0xFF | 0x01 | 0xD0..=0xD7, ..] => rest = &rest[1..],
            [0xFF, _, high, low, ..] => {
                let end = 2 + usize::from(u16::from_be_bytes([*high, *low]));
                rest = rest.get(end..).unwrap_or_default();
            }
            [_, tail @ ..] => rest = tail,
            [] => return false,
        }
    }
}

/// The format that the content shows, whatever the file was called.
fn format_of(bytes: &[u8]) -> Result<ImageFormat, PixelError> {
    image::guess_format(bytes)
        .ok()
        .filter(|format| !name(*format).is_empty())
        .ok_or_else(|| {
            PixelError::Undecodable("the bytes are no JPEG, PNG, WebP, GIF or BMP image".into())
        })
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "jpeg",
        ImageFormat::Png => "png",
        ImageFormat::WebP => "webp",
        ImageFormat::Gif => "gif",
        ImageFormat::Bmp => "bmp",
        _ => "",
    }
}

fn reader<'a>(
    bytes: &'a [u8],
    format: ImageFormat,
    limits: &Limits,
) -> ImageReader<Cursor<&'a [u8]>> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut codec = CodecLimits::default();
    codec.max_alloc = Some(CODEC_BYTES + CODEC_BYTES_PER_PIXEL * limits.max_pixels);
    reader.limits(codec);
    reader
}

/// Runs a codec on bytes from outside: whatever it does, a panic included, is an error of these bytes.
fn contain<T>(codec: impl FnOnce() -> image::ImageResult<T>) -> Result<T, PixelError> {
    match catch_unwind(AssertUnwindSafe(codec)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(image::ImageError::Limits(error))) => Err(PixelError::TooLarge(format!(
            "the image takes too much memory to decode ({error}): scale it down"
        ))),
        Ok(Err(error)) => Err(PixelError::Undecodable(format!(
            "the image cannot be decoded ({error}): is the file whole?"
        ))),
        Err(_) => Err(PixelError::Undecodable(
            "the image cannot be decoded: is the file whole?".into(),
        )),
    }
}

fn over_white(image: &DynamicImage) -> Picture {
    let (width, height) = (image.width(), image.height());
    if !image.color().has_alpha() {
        return Picture {
            width,
            height,
            rgb: image.to_rgb8().into_raw(),
        };
    }
    let rgb = image
        .to_rgba8()
        .pixels()
        .flat_map(|pixel| composite(pixel.0))
        .collect();
    Picture { width, height, rgb }
}

/// c·α + 255·(1 − α), rounded.
fn composite([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    let alpha = u32::from(alpha);
    [red, green, blue]
        .map(|value| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}
