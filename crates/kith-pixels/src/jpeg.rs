//! Reads JPEG segments (ITU T.81, annex B) for what the codec does not do: it tells whether a file holds all its pixels, and adds the
//! standard Huffman tables that video frames leave out.

use std::borrow::Cow;

const START_OF_SCAN: u8 = 0xDA;
const HUFFMAN_TABLES: u8 = 0xC4;
const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];
/// Coefficients of a block.
const COEFFICIENTS: usize = 64;
/// Precision of a coefficient that no scan has brought yet.
const MISSING: u8 = u8::MAX;

/// The tables of annex K.3 as the payload of one segment: DC and AC of luminance, DC and AC of chrominance.
const STANDARD_TABLES: &[u8; 416] = b"\
    \x00\x00\x01\x05\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x10\x00\x02\
    \x01\x03\x03\x02\x04\x03\x05\x05\x04\x04\x00\x00\x01\x7D\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\
    \x14\x32\x81\x91\xA1\x08\x23\x42\xB1\xC1\x15\x52\xD1\xF0\x24\x33\x62\x72\x82\x09\x0A\x16\x17\x18\x19\x1A\x25\x26\x27\x28\x29\x2A\
    \x34\x35\x36\x37\x38\x39\x3A\x43\x44\x45\x46\x47\x48\x49\x4A\x53\x54\x55\x56\x57\x58\x59\x5A\x63\x64\x65\x66\x67\x68\x69\x6A\x73\
    \x74\x75\x76\x77\x78\x79\x7A\x83\x84\x85\x86\x87\x88\x89\x8A\x92\x93\x94\x95\x96\x97\x98\x99\x9A\xA2\xA3\xA4\xA5\xA6\xA7\xA8\xA9\
    \xAA\xB2\xB3\xB4\xB5\xB6\xB7\xB8\xB9\xBA\xC2\xC3\xC4\xC5\xC6\xC7\xC8\xC9\xCA\xD2\xD3\xD4\xD5\xD6\xD7\xD8\xD9\xDA\xE1\xE2\xE3\xE4\
    \xE5\xE6\xE7\xE8\xE9\xEA\xF1\xF2\xF3\xF4\xF5\xF6\xF7\xF8\xF9\xFA\x01\x00\x03\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\
    \x00\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x11\x00\x02\x01\x02\x04\x04\x03\x04\x07\x05\x04\x04\x00\x01\x02\x77\x00\x01\
    \x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22\x32\x81\x08\x14\x42\x91\xA1\xB1\xC1\x09\x23\x33\x52\xF0\x15\x62\
    \x72\xD1\x0A\x16\x24\x34\xE1\x25\xF1\x17\x18\x19\x1A\x26\x27\x28\x29\x2A\x35\x36\x37\x38\x39\x3A\x43\x44\x45\x46\x47\x48\x49\x4A\
    \x53\x54\x55\x56\x57\x58\x59\x5A\x63\x64\x65\x66\x67\x68\x69\x6A\x73\x74\x75\x76\x77\x78\x79\x7A\x82\x83\x84\x85\x86\x87\x88\x89\
    \x8A\x92\x93\x94\x95\x96\x97\x98\x99\x9A\xA2\xA3\xA4\xA5\xA6\xA7\xA8\xA9\xAA\xB2\xB3\xB4\xB5\xB6\xB7\xB8\xB9\xBA\xC2\xC3\xC4\xC5\
    \xC6\xC7\xC8\xC9\xCA\xD2\xD3\xD4\xD5\xD6\xD7\xD8\xD9\xDA\xE2\xE3\xE4\xE5\xE6\xE7\xE8\xE9\xEA\xF2\xF3\xF4\xF5\xF6\xF7\xF8\xF9\xFA\
";

/// A part of a file that begins with a marker.
struct Segment<'a> {
    marker: u8,
    payload: &'a [u8],
    /// The bytes after it: for a scan, its entropy-coded data and all that follows.
    rest: &'a [u8],
}

/// The next segment; bytes before its marker are skipped.
fn next(mut bytes: &[u8]) -> Option<Segment<'_>> {
    loop {
        match bytes {
            // Stuffed bytes of a scan, fill bytes, and markers without a segment.
            [0xFF, 0x00 | 0x01 | 0xD0..=0xD8, ..] => bytes = &bytes[2..],
            [0xFF, 0xFF, ..] => bytes = &bytes[1..],
            [0xFF, marker, high, low, ..] => {
                let end = 2 + usize::from(u16::from_be_bytes([*high, *low]));
                return Some(Segment {
                    marker: *marker,
                    payload: bytes.get(4..end)?,
                    rest: &bytes[end..],
                });
            }
            [_, tail @ ..] => bytes = tail,
            [] => return None,
        }
    }
}

fn segments(bytes: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let segment = next(rest)?;
        rest = segment.rest;
        Some(segment)
    })
}

/// Whether the file has its end marker. Segments carry their length and are skipped, with any thumbnails in them; scans never contain the
/// marker's two bytes. A table segment between scans might contain them by chance: then a cut-off file passes, but a whole one is never
/// refused.
pub(super) fn has_end(bytes: &[u8]) -> bool {
    let scan = segments(bytes).find(|segment| segment.marker == START_OF_SCAN);
    scan.is_some_and(|scan| scan.rest.windows(2).any(|pair| pair == END_OF_IMAGE))
}

/// Whether the scans that begin in the file bring every coefficient of every component in full precision. A progressive file that was
/// cut between two scans has only some of them.
pub(super) fn has_all_scans(bytes: &[u8]) -> bool {
    let mut precision: Vec<(u8, [u8; COEFFICIENTS])> = Vec::new();
    for segment in segments(bytes) {
        match segment.marker {
            0xC0..=0xC2 => {
                let ids = segment
                    .payload
                    .get(6..)
                    .unwrap_or_default()
                    .iter()
                    .step_by(3);
                precision = ids.map(|id| (*id, [MISSING; COEFFICIENTS])).collect();
            }
            START_OF_SCAN => record_scan(segment.payload, &mut precision),
            _ => {}
        }
    }
    let whole = |(_, bits): &(u8, [u8; COEFFICIENTS])| bits.iter().all(|bit| *bit == 0);
    !precision.is_empty() && precision.iter().all(whole)
}

/// Records to which bit (0: the last one) a scan brings which coefficients.
fn record_scan(header: &[u8], precision: &mut [(u8, [u8; COEFFICIENTS])]) {
    let Some((count, rest)) = header.split_first() else {
        return;
    };
    let names = 2 * usize::from(*count);
    let (Some(names), Some([first, last, bits])) = (rest.get(..names), rest.get(names..names + 3))
    else {
        return;
    };
    for id in names.iter().step_by(2) {
        let component = precision.iter_mut().find(|(name, _)| name == id);
        let covered =
            component.and_then(|(_, all)| all.get_mut(usize::from(*first)..=usize::from(*last)));
        covered.unwrap_or_default().fill(bits & 0x0F);
    }
}

/// Three completions of a file without its end: an end marker at once, and one after bits that alternate from 0 and from 1. If pixels are
/// missing, the three decode differently; if none is, the bits behind the last block are never read.
pub(super) fn endings(bytes: &[u8]) -> [Vec<u8>; 3] {
    // Fill bytes and half of a marker, or a byte whose stuffing is lost.
    let kept = bytes.iter().rposition(|byte| *byte != 0xFF);
    let bytes = &bytes[..kept.map_or(0, |last| last + 1)];
    [&[][..], &[0x55; 256], &[0xAA; 256]].map(|bits| [bytes, bits, &END_OF_IMAGE].concat())
}

/// The file, with the standard Huffman tables if it has none: frames of a Motion JPEG leave them out.
pub(super) fn with_tables(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut baseline = false;
    for segment in segments(bytes) {
        match segment.marker {
            HUFFMAN_TABLES => return bytes.into(),
            0xC0 | 0xC1 => baseline = true,
            START_OF_SCAN => break,
            _ => {}
        }
    }
    match bytes.split_at_checked(2) {
        Some((start, rest)) if baseline => {
            let length = (STANDARD_TABLES.len() as u16 + 2).to_be_bytes();
            [
                start,
                &[0xFF, HUFFMAN_TABLES],
                &length,
                STANDARD_TABLES,
                rest,
            ]
            .concat()
            .into()
        }
        _ => bytes.into(),
    }
}
