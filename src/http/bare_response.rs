//! Responses that hyper makes before any route runs, to a malformed, too long or too slow head. They have no body; they are replaced by
//! errors of the documented shape, with a request id and a line in the log.

use axum::http::{StatusCode, header};
use bytes::Bytes;

use super::{
    error::{ApiError, Problem},
    request_id::{REQUEST_ID, new_id},
    security_headers::{ALWAYS, NO_STORE},
};

/// The error in place of `written`, if hyper made that: a complete head without a body and without the request id that every response
/// of a route has.
pub(super) fn error_of(written: &[u8]) -> Option<ApiError> {
    let head = std::str::from_utf8(written.strip_suffix(b"\r\n\r\n")?).ok()?;
    let (first, headers) = head.split_once("\r\n")?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let headers = headers.to_ascii_lowercase();
    let routed = headers.contains(REQUEST_ID.as_str()) || head.contains("\r\n\r\n");
    let bare = !routed && headers.contains("content-length: 0");
    (bare && status.is_client_error()).then(|| status_error(status))
}

/// 408 for a head that was not complete in time.
pub(super) fn head_timeout() -> ApiError {
    let message =
        "the request's head took longer than server.header_timeout_seconds: send it without pauses";
    ApiError::Timeout(Problem::new("timeout", message))
}

fn status_error(status: StatusCode) -> ApiError {
    ApiError::from_status(status)
        .unwrap_or_else(|| ApiError::internal(format!("hyper answered {status}")))
}

/// The whole response of `error`, with a line in the log.
pub(super) fn render(error: &ApiError) -> Bytes {
    let (id, status) = (new_id(), error.status());
    tracing::info!(%id, status = status.as_u16(), code = error.problem().code, "refused a request whose head could not be read");
    let body = error.to_value().to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{REQUEST_ID}: {id}\r\nconnection: close\r\n",
        body.len()
    );
    let caching = (header::CACHE_CONTROL, NO_STORE);
    let security = ALWAYS.into_iter().chain([caching]);
    let security = security.map(|(name, value)| {
        let value = value.to_str().unwrap_or_default();
        format!("{name}: {value}\r\n")
    });
    Bytes::from(head + &security.collect::<String>() + "\r\n" + &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_head_of_hyper_is_replaced() {
        let bare =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let text = String::from_utf8(render(&error_of(bare).unwrap()).to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 ") && text.contains("headers_too_large"));
        assert!(text.contains("x-request-id: "));
        assert!(text.contains("\r\nx-content-type-options: nosniff\r\n"));
        assert!(text.contains("\r\ncache-control: no-store\r\n"));
        for other in [
            "HTTP/1.1 404 Not Found\r\nx-request-id: a\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "an image that ends like a head\r\n\r\n",
        ] {
            assert_eq!(error_of(other.as_bytes()), None, "{other}");
        }
    }
}
