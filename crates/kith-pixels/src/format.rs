//! Detects the format of an image file from its content, and names common formats that are not supported.

use image::ImageFormat;

use super::PixelError;

/// A supported format.
pub(super) struct Format {
    pub(super) codec: ImageFormat,
    /// Its id in the database and in API answers.
    pub(super) id: &'static str,
    /// Its name in messages.
    pub(super) title: &'static str,
}

/// All supported formats.
const FORMATS: [Format; 7] = [
    format(ImageFormat::Jpeg, "jpeg", "JPEG"),
    format(ImageFormat::Png, "png", "PNG"),
    format(ImageFormat::WebP, "webp", "WebP"),
    format(ImageFormat::Gif, "gif", "GIF"),
    format(ImageFormat::Bmp, "bmp", "BMP"),
    format(ImageFormat::Tiff, "tiff", "TIFF"),
    format(ImageFormat::Qoi, "qoi", "QOI"),
];

/// File name extensions of supported images, in lower case: which files of a folder are images.
pub const EXTENSIONS: [&str; 11] = [
    "bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "qoi", "tif", "tiff", "webp",
];

const fn format(codec: ImageFormat, id: &'static str, title: &'static str) -> Format {
    Format { codec, id, title }
}

/// The names of the supported formats, separated by commas, for use in a sentence.
pub fn supported_formats() -> String {
    FORMATS.map(|format| format.title).join(", ")
}

/// The format of `bytes`, by their content.
///
/// # Errors
/// [`PixelError::Undecodable`] for an unsupported format; the message names it where it is a common one.
pub(super) fn detect(bytes: &[u8]) -> Result<&'static Format, PixelError> {
    let codec = image::guess_format(bytes).ok();
    let known = FORMATS.iter().find(|format| Some(format.codec) == codec);
    known.ok_or_else(|| PixelError::Undecodable(refusal(bytes)))
}

fn refusal(bytes: &[u8]) -> String {
    let supported = supported_formats();
    match foreign(bytes) {
        _ if bytes.is_empty() => format!("the image has no bytes; kith takes {supported}"),
        Some(name) => format!("this is {name}; kith takes {supported}: convert it"),
        None => format!("the bytes are no image that kith knows; it takes {supported}"),
    }
}

/// The name of a common unsupported format, with its article.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    if let Some(brand) = bytes
        .get(8..12)
        .filter(|_| bytes.get(4..8) == Some(b"ftyp"))
    {
        return Some(match brand {
            b"avif" | b"avis" => "an AVIF image",
            b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1" => {
                "a HEIC image"
            }
            b"crx " => "a camera's raw image",
            _ => "a video or another MP4 file",
        });
    }
    let starts: [(&[u8], &str); 22] = [
        (b"\xFF\x0A", "a JPEG XL image"),
        (b"\0\0\0\x0CJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\0\0\0\x0CjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"\xFF\x4F\xFF\x51", "a JPEG 2000 image"),
        (b"8BPS", "a Photoshop (PSD) image"),
        (b"%PDF", "a PDF document"),
        (b"%!PS", "a PostScript document"),
        (b"\0\0\x01\0", "an icon (ICO)"),
        (b"\0\0\x02\0", "a cursor (CUR)"),
        (b"\x76\x2F\x31\x01", "an OpenEXR image"),
        (b"#?RADIANCE", "a Radiance HDR image"),
        (b"DDS ", "a DDS texture"),
        (b"farbfeld", "a farbfeld image"),
        (b"gimp xcf", "a GIMP (XCF) image"),
        (b"\xAB\x4B\x54\x58", "a KTX texture"),
        (b"FUJIFILMCCD-RAW", "a camera's raw image"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1F\x8B", "a gzip file"),
        (b"\x1A\x45\xDF\xA3", "a Matroska or WebM video"),
        (b"RIFF", "a RIFF file that is not WebP"),
        (b"{", "JSON text"),
        (b"data:", "a data URI"),
    ];
    let found = starts.iter().find(|(start, _)| bytes.starts_with(start));
    found.map(|(_, name)| *name).or_else(|| foreign_text(bytes))
}

/// Unsupported formats that are text. An SVG may begin with an XML declaration, comments or white space.
fn foreign_text(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(1024)];
    let text = String::from_utf8_lossy(head).to_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('<') && text.contains("<svg") {
        return Some("an SVG drawing");
    }
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        return Some("an HTML page");
    }
    let netpbm = matches!(bytes, [b'P', b'1'..=b'7', b'\n' | b' ' | b'\r' | b'\t', ..]);
    netpbm.then_some("a Netpbm image (PNM, PBM, PGM, PPM or PAM)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_about_an_unsupported_format_names_it_and_the_supported_ones() {
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypheic\0\0"[..], "HEIC"),
            (b"\0\0\0\x1cftypavif\0\0", "AVIF"),
            (b"\xFF\x0A\0\0", "JPEG XL"),
            (b"8BPS\0\x01", "PSD"),
            (b"%PDF-1.7", "PDF"),
            (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG"),
            (b"<!DOCTYPE html><p>", "HTML"),
            (b"P6\n2 2\n255\n", "Netpbm"),
        ] {
            let text = refusal(bytes);
            assert!(
                text.contains(name) && text.contains("JPEG, PNG, WebP"),
                "{text}"
            );
        }
        assert!(refusal(b"hello").contains("no image that kith knows"));
    }

    #[test]
    fn every_extension_belongs_to_a_format_and_every_format_has_one() {
        for extension in EXTENSIONS {
            // Two names for JPEG that the codec's own list lacks or has by version.
            let codec = match extension {
                "jpe" | "jfif" => Some(ImageFormat::Jpeg),
                _ => ImageFormat::from_extension(extension),
            };
            assert!(
                FORMATS.iter().any(|format| Some(format.codec) == codec),
                "{extension}"
            );
        }
        assert!(FORMATS.iter().all(|format| EXTENSIONS.contains(&format.id)));
    }
}
