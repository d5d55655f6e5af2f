//! Headers on every answer that tell browsers and caches to do nothing with it that nobody asked for.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};

/// An answer is data: no page frames it, no browser guesses its type or runs what it says, no link from it tells where it was. A handler that
/// answers with a page of its own sets its own `content-security-policy`.
pub(super) const ALWAYS: [(HeaderName, HeaderValue); 3] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
];

/// For what changes or is somebody's data.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// For files with an `etag`: a browser may keep one, and asks each time whether it may still show it.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Adds the headers that the answer does not have yet.
pub(super) async fn add_security_headers(mut response: Response) -> Response {
    add(response.headers_mut());
    response
}

fn add(headers: &mut HeaderMap) {
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(value);
    }
    let caching = if headers.contains_key(header::ETAG) {
        REVALIDATE
    } else {
        NO_STORE
    };
    headers.entry(header::CACHE_CONTROL).or_insert(caching);
}
