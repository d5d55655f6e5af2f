//! The id of a request, in its answer and its log lines: the caller's if that is valid, else one that the server makes.

use axum::http::{HeaderName, HeaderValue, Request};
use tower_http::request_id::{MakeRequestId, RequestId};
use uuid::Uuid;

/// The header of the id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Most bytes of a caller's id.
const MAX_BYTES: usize = 128;

/// Makes ids for requests without one.
#[derive(Clone, Copy)]
pub(super) struct MakeId;

impl MakeRequestId for MakeId {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        let id = HeaderValue::from_str(&new_id());
        id.ok().map(RequestId::new)
    }
}

/// A new id, a UUIDv7.
pub(super) fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// Removes an id that is sent twice, too long, or not visible ASCII, so that it is replaced.
pub(super) fn remove_invalid<B>(mut request: Request<B>) -> Request<B> {
    let mut ids = request.headers().get_all(&REQUEST_ID).iter();
    let valid = |id: &HeaderValue| {
        let bytes = id.as_bytes();
        (1..=MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    let keep = ids.next().is_none_or(valid) && ids.next().is_none();
    if !keep {
        request.headers_mut().remove(&REQUEST_ID);
    }
    request
}
