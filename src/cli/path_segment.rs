//! Text from a command line as a part of a URL.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the unreserved characters (RFC 3986, section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The text as one segment of a path, so that it cannot name another route.
pub(crate) fn segment(text: &str) -> String {
    match text {
        // They would stand for a route above.
        "." | ".." => text.replace('.', "%2E"),
        _ => utf8_percent_encode(text, ESCAPED).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_one_segment() {
        assert_eq!(segment("sku-81"), "sku-81");
        assert_eq!(segment("a/b?c=ü&d"), "a%2Fb%3Fc%3D%C3%BC%26d");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
