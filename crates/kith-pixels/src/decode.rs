//! Decodes an image file to upright RGB over white, with its alpha if asked, or says why it cannot.

use std::{
    borrow::Cow,
    io::{Cursor, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits as CodecLimits,
    metadata::Orientation,
};

use super::{
    DecodedImage, Header, Limits, PixelError,
    budget::{self, Charge, charge},
    format::{Format, detect},
    jpeg,
};
use sha2::{Digest, Sha256};

/// Bytes that a codec may allocate for each pixel: 16-bit RGBA, and the same again as work space.
const CODEC_BYTES_PER_PIXEL: u64 = 16;
/// Bytes that a codec may always allocate, however small the image: its own tables and buffers.
const CODEC_BYTES: u64 = 16 << 20;
/// Bytes for each pixel after the codec: RGBA, then RGB. Alpha that is kept has the place of the codec's work space, which is free by then.
const COMPOSITE_BYTES_PER_PIXEL: u64 = 7;
/// Prefix of an EXIF block in a JPEG; some programs write it into other formats too.
const EXIF_PREFIX: &[u8] = b"Exif\0\0";

/// Reads and checks the header alone. Never allocates the pixels.
///
/// # Errors
/// [`PixelError::TooLarge`] beyond `limits`; [`PixelError::Undecodable`] for an unsupported format, a broken header or an image without pixels.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Header, PixelError> {
    if bytes.len() > limits.max_bytes {
        return Err(PixelError::TooLarge(format!(
            "the image has {} bytes and at most {} are allowed (limits.max_bytes): compress it or scale it down",
            bytes.len(),
            limits.max_bytes
        )));
    }
    let format = detect(bytes)?;
    let file = with_tables(bytes, format);
    let (width, height) = contain(format, || {
        reader(&file, format, limits.max_pixels).into_dimensions()
    })?;
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(PixelError::Undecodable("the image has no pixels".into()));
    }
    if pixels > limits.max_pixels {
        return Err(PixelError::TooLarge(format!(
            "the image has {width}x{height} = {pixels} pixels and at most {} are allowed (limits.max_pixels): scale it down",
            limits.max_pixels
        )));
    }
    Ok(Header {
        format: format.id,
        width,
        height,
    })
}

/// Decodes the first frame of an image file, turns it upright by its EXIF orientation and composites alpha over white.
///
/// Checks the header as [`inspect`] does. Blocks while decoders of this process have `limits.decode_memory_mb` in use.
///
/// # Errors
/// Those of [`inspect`], and [`PixelError::Undecodable`] for a broken file or a fully transparent image.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<DecodedImage, PixelError> {
    decode_with(bytes, limits, |image| image)
}

/// Decodes as [`decode`] does, and keeps the alpha of an image of which some pixel is transparent.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_keeping_alpha(bytes: &[u8], limits: &Limits) -> Result<DecodedImage, PixelError> {
    let (image, format, charged) = pixels_of(bytes, limits)?;
    let decoded = over_white(image, format, true);
    drop(charged);
    decoded
}

/// Decodes as [`decode`] does, then passes the image to `work`. The memory stays charged to the process's budget until `work` returns.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_with<T>(
    bytes: &[u8],
    limits: &Limits,
    work: impl FnOnce(DecodedImage) -> T,
) -> Result<T, PixelError> {
    let (image, format, charged) = pixels_of(bytes, limits)?;
    let done = work(over_white(image, format, false)?);
    drop(charged);
    Ok(done)
}

/// Checks the header, then decodes as the codec does, upright. The memory is charged until the third value is dropped.
fn pixels_of(
    bytes: &[u8],
    limits: &Limits,
) -> Result<(DynamicImage, &'static Format, Charge<'static>), PixelError> {
    let header = inspect(bytes, limits)?;
    let format = detect(bytes)?;
    let pixels = u64::from(header.width) * u64::from(header.height);
    let file = with_tables(bytes, format);
    let (image, charged) = match format.codec {
        ImageFormat::Jpeg if !jpeg::has_end(&file) => without_end(&file, format, pixels, limits)?,
        _ => codec(&file, format, pixels, limits)?,
    };
    Ok((image, format, charged))
}

/// Bytes that decoding this image charges to the process's budget, from its header. The header is not checked as [`inspect`] does.
///
/// # Errors
/// [`PixelError::Undecodable`] for an unsupported format or a broken header.
pub fn decode_cost(bytes: &[u8], limits: &Limits) -> Result<u64, PixelError> {
    let format = detect(bytes)?;
    let file = with_tables(bytes, format);
    contain(format, || {
        Ok(cost(
            &reader(&file, format, limits.max_pixels).into_decoder()?,
        ))
    })
}

/// Whether decoding an image of this [`decode_cost`] would begin at once at this moment.
pub fn is_affordable(cost: u64, limits: &Limits) -> bool {
    budget::fits(cost, capacity(limits))
}

/// The file with the Huffman tables that its codec needs.
fn with_tables<'a>(bytes: &'a [u8], format: &Format) -> Cow<'a, [u8]> {
    match format.codec {
        ImageFormat::Jpeg => jpeg::with_tables(bytes),
        _ => bytes.into(),
    }
}

/// Runs the codec and turns the image upright.
fn codec(
    file: &[u8],
    format: &Format,
    pixels: u64,
    limits: &Limits,
) -> Result<(DynamicImage, Charge<'static>), PixelError> {
    contain(format, || {
        let mut decoder = reader(file, format, pixels).into_decoder()?;
        let charged = charge(cost(&decoder), capacity(limits));
        let orientation = orientation(&mut decoder);
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok((image, charged))
    })
}

fn cost(decoder: &impl ImageDecoder) -> u64 {
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    CODEC_BYTES + 2 * decoder.total_bytes() + COMPOSITE_BYTES_PER_PIXEL * pixels
}

fn capacity(limits: &Limits) -> u64 {
    limits.decode_memory_mb << 20
}

/// Decodes a JPEG without an end marker, provided that all its pixels are there. The codec silently fills missing ones with grey, and
/// training would learn from a cut-off upload.
fn without_end(
    file: &[u8],
    format: &Format,
    pixels: u64,
    limits: &Limits,
) -> Result<(DynamicImage, Charge<'static>), PixelError> {
    let cut = || {
        PixelError::Undecodable(
            "the JPEG ends in the middle of its pixels: is the file whole?".into(),
        )
    };
    if !jpeg::has_all_scans(file) {
        return Err(cut());
    }
    let mut first = None;
    let mut decoded = None;
    for ended in jpeg::endings(file) {
        // One at a time: two would wait for each other's memory.
        drop(decoded.take());
        let (image, charged) = codec(&ended, format, pixels, limits).map_err(|_| cut())?;
        let digest = Sha256::digest(image.as_bytes());
        if *first.get_or_insert(digest) != digest {
            return Err(cut());
        }
        decoded = Some((image, charged));
    }
    decoded.ok_or_else(cut)
}

/// The orientation that the metadata state. Broken metadata count as none: the pixels may still be whole.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    let exif = decoder.exif_metadata().ok().flatten();
    let exif = exif
        .as_deref()
        .and_then(|exif| exif.strip_prefix(EXIF_PREFIX));
    let prefixed = exif.and_then(Orientation::from_exif_chunk);
    prefixed
        .or_else(|| decoder.orientation().ok())
        .unwrap_or(Orientation::NoTransforms)
}

fn reader<'a>(bytes: &'a [u8], format: &Format, pixels: u64) -> ImageReader<Cursor<&'a [u8]>> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.codec);
    let mut codec = CodecLimits::default();
    codec.max_alloc = Some(CODEC_BYTES + CODEC_BYTES_PER_PIXEL * pixels);
    reader.limits(codec);
    reader
}

/// Runs a codec on untrusted bytes: every failure, a panic included, becomes an error about these bytes. The codec's own message goes to
/// the log only, since it speaks of the codec's internals.
fn contain<T>(
    format: &Format,
    codec: impl FnOnce() -> image::ImageResult<T>,
) -> Result<T, PixelError> {
    let error = match catch_unwind(AssertUnwindSafe(codec)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(_) => {
            tracing::warn!(format = format.id, "a decoder panicked");
            return Err(PixelError::Undecodable(format!(
                "the {} cannot be decoded: save it again or in another format",
                format.title
            )));
        }
    };
    tracing::debug!(format = format.id, %error, "an image cannot be decoded");
    let title = format.title;
    Err(match error {
        ImageError::Limits(_) => PixelError::TooLarge(format!(
            "the {title} takes too much memory to decode: scale it down"
        )),
        ImageError::Unsupported(_) => PixelError::Undecodable(format!(
            "the {title} is of a kind that kith's decoder does not support: save it as a plain {title} or PNG"
        )),
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            PixelError::Undecodable(format!("the {title} ends too early: is the file whole?"))
        }
        _ => PixelError::Undecodable(format!("the {title} is broken: is the file whole?")),
    })
}

/// RGB with alpha composited over white; `keep_alpha`: with the alpha, where a pixel is transparent.
fn over_white(
    image: DynamicImage,
    format: &Format,
    keep_alpha: bool,
) -> Result<DecodedImage, PixelError> {
    let (width, height) = (image.width(), image.height());
    if !image.color().has_alpha() {
        let rgb = image.into_rgb8().into_raw();
        return Ok(DecodedImage::opaque(width, height, rgb));
    }
    let rgba = image.into_rgba8().into_raw();
    if !is_invisible(&rgba) {
        let transparent = rgba.chunks_exact(4).any(|pixel| pixel[3] < 255);
        let alpha = || rgba.chunks_exact(4).map(|pixel| pixel[3]).collect();
        return Ok(DecodedImage {
            alpha: (keep_alpha && transparent).then(alpha),
            ..DecodedImage::opaque(width, height, composite(&rgba, |alpha| alpha))
        });
    }
    // Programs often leave a BMP's fourth byte at 0 without meaning transparency.
    if format.codec == ImageFormat::Bmp {
        let rgb = composite(&rgba, |_| 255);
        return Ok(DecodedImage::opaque(width, height, rgb));
    }
    // Its vector would say nothing.
    Err(PixelError::Undecodable(
        "every pixel of the image is fully transparent: it shows nothing".into(),
    ))
}

fn is_invisible(rgba: &[u8]) -> bool {
    rgba.chunks_exact(4).all(|pixel| pixel[3] == 0)
}

/// Computes c·α + 255·(1 − α), rounded. `alpha`: what a pixel's alpha counts as.
fn composite(rgba: &[u8], alpha: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for pixel in rgba.chunks_exact(4) {
        let alpha = u32::from(alpha(pixel[3]));
        let over =
            |value: &u8| ((u32::from(*value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        rgb.extend(pixel[..3].iter().map(over));
    }
    rgb
}
