//! Which part of a file a request wants, and whether it has the file already: `Range`, `If-Range`, `If-None-Match`.

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// What to answer.
#[derive(Debug, PartialEq)]
pub(super) enum Wanted {
    /// 200: everything.
    Whole,
    /// 206: this part.
    Part(Range<u64>),
    /// 304: the client has it.
    Nothing,
    /// 416: there is no such part.
    Impossible,
}

/// For a file of `size` bytes with this `etag` (in its quotes).
pub(super) fn wanted(headers: &HeaderMap, size: u64, etag: &str) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| names(tags, etag)) {
        return Wanted::Nothing;
    }
    // A part of another version would not fit the client's beginning.
    if text(header::IF_RANGE).is_some_and(|tag| tag.trim() != etag) {
        return Wanted::Whole;
    }
    text(header::RANGE).map_or(Wanted::Whole, |range| part(range, size))
}

fn names(tags: &str, etag: &str) -> bool {
    let mut tags = tags.split(',').map(str::trim);
    tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// `bytes=a-b`, `bytes=a-` and `bytes=-n`. Several parts at once, other units and what cannot be read are answered with everything, as
/// RFC 9110 lets a server do.
fn part(range: &str, size: u64) -> Wanted {
    let parsed = range.trim().strip_prefix("bytes=").and_then(|range| {
        let (first, last) = range.split_once('-')?;
        Some((number(first)?, number(last)?))
    });
    let range = match parsed {
        Some((Some(first), Some(last))) if first > last => return Wanted::Whole,
        Some((Some(first), last)) => {
            first..last.map_or(size, |last| size.min(last.saturating_add(1)))
        }
        Some((None, Some(last))) => size.saturating_sub(last)..size,
        Some((None, None)) | None => return Wanted::Whole,
    };
    if range.is_empty() {
        Wanted::Impossible
    } else {
        Wanted::Part(range)
    }
}

/// Digits or nothing; the outer `None` is anything else.
fn number(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_rfc_9110_has_it() {
        for (range, wanted) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=2-99", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Impossible),
            ("bytes=-0", Wanted::Impossible),
            ("bytes=99999999999999999999999-", Wanted::Impossible),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
        ] {
            assert_eq!(part(range, 10), wanted, "{range}");
        }
    }

    #[test]
    fn a_client_that_has_the_file_is_told_so_and_a_part_fits_only_the_same_version() {
        let ask = |name, value: &'static str| {
            let headers = HeaderMap::from_iter([
                (header::RANGE, "bytes=0-1".parse().unwrap()),
                (name, value.parse().unwrap()),
            ]);
            wanted(&headers, 10, "\"a\"")
        };
        assert_eq!(
            ask(header::IF_NONE_MATCH, "\"b\", W/\"a\""),
            Wanted::Nothing
        );
        assert_eq!(ask(header::IF_NONE_MATCH, "*"), Wanted::Nothing);
        assert_eq!(ask(header::IF_NONE_MATCH, "\"b\""), Wanted::Part(0..2));
        assert_eq!(ask(header::IF_RANGE, "\"a\""), Wanted::Part(0..2));
        assert_eq!(ask(header::IF_RANGE, "\"b\""), Wanted::Whole);
    }
}
