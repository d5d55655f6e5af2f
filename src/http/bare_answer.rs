//! Answers that the HTTP library gives before any route is asked (a broken, too long or too slow head). They have no body; here they get the
//! documented shape, a request id, and a line in the log.

use axum::http::StatusCode;
use bytes::Bytes;

use super::{
    error::ApiError,
    request_id::{REQUEST_ID, new_id},
};

/// The shaped answer in place of `sent`, if that is one of the library's own: a whole head without a body and without a request id, which
/// every answer of a route has.
pub(super) fn shaped(sent: &[u8]) -> Option<Bytes> {
    let head = std::str::from_utf8(sent.strip_suffix(b"\r\n\r\n")?).ok()?;
    let (first, headers) = head.split_once("\r\n")?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let headers = headers.to_ascii_lowercase();
    let own = headers.contains(REQUEST_ID.as_str()) || head.contains("\r\n\r\n");
    let bare = !own && headers.contains("content-length: 0");
    (bare && status.is_client_error()).then(|| answer(&library_error(status)))
}

/// 408 of a head that never ended.
pub(super) fn timeout() -> Bytes {
    let message =
        "the request's head took longer than server.header_timeout_seconds: send it in one go";
    answer(&ApiError::Timeout(super::error::Problem::new(
        "timeout", message,
    )))
}

fn library_error(status: StatusCode) -> ApiError {
    ApiError::of_status(status).unwrap_or_else(|| {
        ApiError::internal(format!("the HTTP library answered {status} by itself"))
    })
}

fn answer(error: &ApiError) -> Bytes {
    let (id, status) = (new_id(), error.status());
    tracing::info!(%id, status = status.as_u16(), code = error.problem().code, "refused a request that could not be read");
    let body = error.to_value().to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{REQUEST_ID}: {id}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    Bytes::from(head + &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_head_of_the_library_is_replaced() {
        let bare =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let text = String::from_utf8(shaped(bare).unwrap().to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 ") && text.contains("headers_too_large"));
        assert!(text.contains("x-request-id: "));
        for other in [
            "HTTP/1.1 404 Not Found\r\nx-request-id: a\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "an image that ends like a head\r\n\r\n",
        ] {
            assert_eq!(shaped(other.as_bytes()), None, "{other}");
        }
    }
}
