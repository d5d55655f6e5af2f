//! Answers that stream a stored file, whole or in part, in chunks as the client reads; 304 for a client that has the file.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt};

use super::{
    error::{ApiError, Problem},
    range::{RequestedRange, requested_range},
};
use crate::blobs::{BlobError, BlobKey, Blobs};

/// A stored file, and the request for it.
pub(super) struct Download<'a> {
    pub(super) key: BlobKey,
    /// Bytes of the file.
    pub(super) size: u64,
    /// Hash of the content, used as entity tag.
    pub(super) sha256: String,
    /// Headers of the answer that describe the content.
    pub(super) headers: [(HeaderName, String); 2],
    /// Headers of the request.
    pub(super) request_headers: &'a HeaderMap,
}

impl Download<'_> {
    /// The answer. `guard` is held until the last byte is sent or the client goes away; it keeps the file from being deleted meanwhile.
    pub(super) async fn respond(
        self,
        blobs: &Blobs,
        guard: impl Send + 'static,
    ) -> Result<Response, ApiError> {
        let etag = format!("\"{}\"", self.sha256);
        let (status, range) = match requested_range(self.request_headers, self.size, &etag) {
            RequestedRange::Full => (StatusCode::OK, 0..self.size),
            RequestedRange::Partial(range) => (StatusCode::PARTIAL_CONTENT, range),
            RequestedRange::NotModified => return Ok(self.not_modified(&etag)),
            RequestedRange::Unsatisfiable => return Ok(self.unsatisfiable()),
        };
        let chunks = if range.is_empty() {
            futures::stream::empty().boxed()
        } else {
            blobs.stream(&self.key, range.clone()).await?
        };
        let chunks = chunks.inspect_err(move |error: &BlobError| {
            let _guard = &guard;
            tracing::error!(%error, "a download failed");
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

    fn unsatisfiable(&self) -> Response {
        let message = format!(
            "the file has {} bytes: ask for a range within them",
            self.size
        );
        let error = ApiError::BadRange(Problem::new("invalid_range", message).with_param("range"));
        let mut response = error.into_response();
        let size = format!("bytes */{}", self.size);
        insert(response.headers_mut(), header::CONTENT_RANGE, &size);
        response
    }
}

/// Sets a header; a text that is no header value is left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
