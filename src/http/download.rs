//! Stored files on their way out: read in chunks as the client reads, whole or in part, and not at all when the client has them.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt};

use super::{
    error::{ApiError, Problem},
    range::{Wanted, wanted},
};
use crate::blobs::{BlobError, BlobKey, Blobs};

/// A stored file that a client asks for.
pub(super) struct Download<'a> {
    pub(super) key: BlobKey,
    /// Bytes that the file must have.
    pub(super) size: u64,
    /// Hash of its content.
    pub(super) sha256: String,
    /// What the content is, for the answer's headers.
    pub(super) headers: [(HeaderName, String); 2],
    /// The request's headers.
    pub(super) request: &'a HeaderMap,
}

impl Download<'_> {
    /// The answer. `guard` lives until the last byte is sent or the client has gone, and keeps the file from being deleted meanwhile.
    pub(super) async fn answer(
        self,
        blobs: &Blobs,
        guard: impl Send + 'static,
    ) -> Result<Response, ApiError> {
        let etag = format!("\"{}\"", self.sha256);
        let (status, range) = match wanted(self.request, self.size, &etag) {
            Wanted::Whole => (StatusCode::OK, 0..self.size),
            Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Wanted::Nothing => return Ok(self.not_modified(&etag)),
            Wanted::Impossible => return Ok(self.impossible()),
        };
        let chunks = if range.is_empty() {
            futures::stream::empty().boxed()
        } else {
            let chunks = blobs.stream(&self.key, range.clone()).await;
            chunks?
        };
        let chunks = chunks.inspect_err(move |error: &BlobError| {
            let _guard = &guard;
            tracing::error!(%error, "a download broke off");
        });
        let mut response = (status, Body::from_stream(chunks)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        insert(headers, header::ETAG, &etag);
        for (name, value) in self.headers {
            insert(headers, name, &value);
        }
        if status == StatusCode::PARTIAL_CONTENT {
            let part = format!("bytes {}-{}/{}", range.start, range.end - 1, self.size);
            insert(headers, header::CONTENT_RANGE, &part);
        }
        Ok(response)
    }

    fn not_modified(&self, etag: &str) -> Response {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        insert(response.headers_mut(), header::ETAG, etag);
        response
    }

    fn impossible(&self) -> Response {
        let message = format!("the file has {} bytes: ask for a part of those", self.size);
        let error = ApiError::BadRange(Problem::new("invalid_range", message).at("range"));
        let mut response = error.into_response();
        let size = format!("bytes */{}", self.size);
        insert(response.headers_mut(), header::CONTENT_RANGE, &size);
        response
    }
}

/// Sets a header whose text is plain ASCII.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
