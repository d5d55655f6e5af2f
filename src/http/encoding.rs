//! The content encoding of a body: gzip and zstd are accepted, others are refused before a byte is read.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, header::CONTENT_ENCODING},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    error::{ApiError, Problem},
    text::quoted,
};

/// Normalises the header to the names that the decompression layer knows.
pub(super) async fn check_encoding(mut request: Request, next: Next) -> Response {
    match encoding(request.headers()) {
        Ok(None) => request.headers_mut().remove(CONTENT_ENCODING),
        Ok(Some(name)) => request
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static(name)),
        Err(error) => return error.into_response(),
    };
    next.run(request).await
}

/// The encoding of the body; `None` if it is not compressed.
fn encoding(headers: &HeaderMap) -> Result<Option<&'static str>, ApiError> {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let names = values.flat_map(|value| {
        String::from_utf8_lossy(value.as_bytes())
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase())
            .collect::<Vec<_>>()
    });
    let names: Vec<String> = names
        .filter(|name| !name.is_empty() && name != "identity")
        .collect();
    match names.as_slice() {
        [] => Ok(None),
        [name] if name == "gzip" || name == "x-gzip" => Ok(Some("gzip")),
        [name] if name == "zstd" => Ok(Some("zstd")),
        names => {
            let message = format!(
                "the content-encoding {} is not supported: send gzip, zstd, or no encoding",
                quoted(&names.join(", "))
            );
            Err(ApiError::UnsupportedMedia(
                Problem::new("unsupported_encoding", message).with_param("content-encoding"),
            ))
        }
    }
}
