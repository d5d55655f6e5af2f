//! The part of a file that a request asks for: `Range`, `If-Range` and `If-None-Match` (RFC 9110).

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub(super) enum RequestedRange {
    /// 200: the whole file.
    Full,
    /// 206: these bytes.
    Partial(Range<u64>),
    /// 304: the client has this version.
    NotModified,
    /// 416: the file has no such bytes.
    Unsatisfiable,
}

/// What `headers` ask of a file of `size` bytes whose entity tag is `etag`, quotes included.
pub(super) fn requested_range(headers: &HeaderMap, size: u64, etag: &str) -> RequestedRange {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| matches(tags, etag)) {
        return RequestedRange::NotModified;
    }
    // A part of this version does not fit the client's part of another.
    if text(header::IF_RANGE).is_some_and(|tag| tag.trim() != etag) {
        return RequestedRange::Full;
    }
    text(header::RANGE).map_or(RequestedRange::Full, |range| parse(range, size))
}

/// Whether `etag` is in a list of entity tags.
fn matches(tags: &str, etag: &str) -> bool {
    let mut tags = tags.split(',').map(str::trim);
    tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// Reads `bytes=a-b`, `bytes=a-` and `bytes=-n`. Several ranges, other units and malformed ones ask for the whole file, as RFC 9110 allows.
fn parse(range: &str, size: u64) -> RequestedRange {
    let parsed = range.trim().strip_prefix("bytes=").and_then(|range| {
        let (first, last) = range.split_once('-')?;
        Some((position(first)?, position(last)?))
    });
    let range = match parsed {
        Some((Some(first), Some(last))) if first > last => return RequestedRange::Full,
        Some((Some(first), last)) => {
            first..last.map_or(size, |last| size.min(last.saturating_add(1)))
        }
        Some((None, Some(last))) => size.saturating_sub(last)..size,
        Some((None, None)) | None => return RequestedRange::Full,
    };
    if range.is_empty() {
        RequestedRange::Unsatisfiable
    } else {
        RequestedRange::Partial(range)
    }
}

/// Digits, or `Some(None)` for an empty text; `None` for anything else.
fn position(text: &str) -> Option<Option<u64>> {
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
    fn a_range_is_parsed_as_rfc_9110_defines_it() {
        for (range, expected) in [
            ("bytes=0-0", RequestedRange::Partial(0..1)),
            ("bytes=2-", RequestedRange::Partial(2..10)),
            ("bytes=2-99", RequestedRange::Partial(2..10)),
            ("bytes=-3", RequestedRange::Partial(7..10)),
            ("bytes=-99", RequestedRange::Partial(0..10)),
            ("bytes=10-", RequestedRange::Unsatisfiable),
            ("bytes=-0", RequestedRange::Unsatisfiable),
            (
                "bytes=99999999999999999999999-",
                RequestedRange::Unsatisfiable,
            ),
            ("bytes=5-2", RequestedRange::Full),
            ("bytes=0-1,4-5", RequestedRange::Full),
            ("lines=0-1", RequestedRange::Full),
            ("bytes=-", RequestedRange::Full),
        ] {
            assert_eq!(parse(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn a_client_with_the_same_version_gets_304_and_a_range_applies_to_the_same_version_only() {
        let ask = |name, value: &'static str| {
            let headers = HeaderMap::from_iter([
                (header::RANGE, "bytes=0-1".parse().unwrap()),
                (name, value.parse().unwrap()),
            ]);
            requested_range(&headers, 10, "\"a\"")
        };
        assert_eq!(
            ask(header::IF_NONE_MATCH, "\"b\", W/\"a\""),
            RequestedRange::NotModified
        );
        assert_eq!(ask(header::IF_NONE_MATCH, "*"), RequestedRange::NotModified);
        assert_eq!(
            ask(header::IF_NONE_MATCH, "\"b\""),
            RequestedRange::Partial(0..2)
        );
        assert_eq!(
            ask(header::IF_RANGE, "\"a\""),
            RequestedRange::Partial(0..2)
        );
        assert_eq!(ask(header::IF_RANGE, "\"b\""), RequestedRange::Full);
    }
}
