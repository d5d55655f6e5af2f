//! Error answers: one variant a status, and one JSON shape, `{"error": {message, type, param, code}}`, which OpenAI's clients parse.
//! Messages are cut to a maximum length here. `error_mapping.rs` turns the errors of other modules into these.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::text::{MAX_MESSAGE, MAX_PARAM, truncated};

/// Seconds after which a refused caller may try again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What was wrong, as the caller reads it. It never names internals.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Problem {
    /// What was wrong and what to do.
    pub(super) message: String,
    /// Path of the field that was wrong, such as `input[3]`.
    pub(super) param: Option<String>,
    /// A stable name for programs.
    pub(super) code: &'static str,
}

/// An error answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ApiError {
    /// 400: the request is wrong; sending it again will not help.
    BadRequest(Problem),
    /// 403: the request comes from a web page of another site, or names a host that is not this server.
    Forbidden(Problem),
    /// 404: no such route or resource.
    NotFound(Problem),
    /// 405: the route has no such method; the `allow` header lists those it has.
    MethodNotAllowed(Problem),
    /// 408: the request took longer than `server.timeout_seconds`.
    Timeout(Problem),
    /// 409: the resource is in a state that forbids this.
    Conflict(Problem),
    /// 413: more bytes, images or pairs than the limits allow.
    TooLarge(Problem),
    /// 414: a URI longer than the server accepts.
    UriTooLong(Problem),
    /// 415: a content type or encoding that the route does not accept.
    UnsupportedMedia(Problem),
    /// 416: a range outside the file.
    BadRange(Problem),
    /// 422: an idempotency key that was used for another request.
    Unprocessable(Problem),
    /// 429: a limit is reached for the moment; carries `retry-after`.
    Overloaded(Problem),
    /// 431: more headers than the server accepts.
    HeadersTooLarge(Problem),
    /// 500: the server failed; the log has the cause under the request's id.
    Internal(Problem),
    /// 503: not ready yet, or stopping; carries `retry-after`.
    Unavailable(Problem),
    /// 507: the server's disk is full.
    StorageFull(Problem),
}

/// The code of an error answer, for the log. A response without it that has an error status does not have the documented shape yet.
#[derive(Clone, Copy)]
pub(super) struct ErrorCode(pub(super) &'static str);

#[derive(Serialize)]
struct ErrorDocument {
    error: ErrorFields,
}

#[derive(Serialize)]
struct ErrorFields {
    message: String,
    r#type: &'static str,
    param: Option<String>,
    code: &'static str,
}

impl Problem {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: None,
            code,
        }
    }

    /// This problem with the path of the field that was wrong.
    pub(super) fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }
}

impl ApiError {
    /// 400 about one field.
    pub(super) fn invalid(
        code: &'static str,
        param: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::BadRequest(Problem::new(code, message).with_param(param))
    }

    /// 500. The cause goes to the log, not to the caller.
    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::Internal(Problem::new(
            "internal_error",
            "the server failed on this request: its log has the cause, under this answer's x-request-id",
        ))
    }

    /// 413 for a body above `server.max_body_bytes`.
    pub(super) fn body_too_large() -> Self {
        let message = "the body is larger than server.max_body_bytes: send less at once";
        Self::TooLarge(Problem::new("body_too_large", message))
    }

    /// 503 while the server stops.
    pub(super) fn stopping() -> Self {
        let message = "the server is stopping: retry when it is back";
        Self::Unavailable(Problem::new("stopping", message))
    }

    /// 503 before a checkpoint is loaded.
    pub(super) fn no_checkpoint() -> Self {
        let message = "no checkpoint is loaded yet: retry in a moment";
        Self::Unavailable(Problem::new("not_ready", message))
    }

    /// The answer in place of a bare error status, as tower's layers and hyper give it; `None` if `status` is not an error.
    pub(super) fn from_status(status: StatusCode) -> Option<Self> {
        let problem = Problem::new;
        Some(match status.as_u16() {
            404 => Self::NotFound(problem(
                "unknown_route",
                "there is no such route: GET / lists them",
            )),
            403 => Self::Forbidden(problem("forbidden", "this request is not allowed")),
            405 => Self::MethodNotAllowed(problem(
                "method_not_allowed",
                "this route has no such method: see the allow header",
            )),
            408 => Self::Timeout(problem(
                "timeout",
                "the request took longer than server.timeout_seconds: send less at once",
            )),
            413 => Self::body_too_large(),
            414 => Self::UriTooLong(problem(
                "uri_too_long",
                "the URI is longer than this server accepts: send long values in the body",
            )),
            431 => Self::HeadersTooLarge(problem(
                "headers_too_large",
                "the request has more or longer headers than this server accepts: send fewer",
            )),
            415 => Self::UnsupportedMedia(problem(
                "unsupported_media_type",
                "this route does not accept that content-type",
            )),
            400..500 => Self::BadRequest(problem("invalid_request", "the request cannot be read")),
            500.. => Self::Internal(problem(
                "internal_error",
                "the server failed on this request: its log has the cause",
            )),
            _ => return None,
        })
    }

    /// This error with the path of another field.
    pub(super) fn with_param(mut self, param: impl Into<String>) -> Self {
        self.problem_mut().param = Some(param.into());
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.parts().0
    }

    pub(super) fn problem(&self) -> &Problem {
        self.parts().2
    }

    /// Status, the JSON's `type`, and what was wrong.
    fn parts(&self) -> (StatusCode, &'static str, &Problem) {
        const INVALID: &str = "invalid_request_error";
        match self {
            Self::BadRequest(p) => (StatusCode::BAD_REQUEST, INVALID, p),
            Self::Forbidden(p) => (StatusCode::FORBIDDEN, "permission_error", p),
            Self::NotFound(p) => (StatusCode::NOT_FOUND, "not_found_error", p),
            Self::MethodNotAllowed(p) => (StatusCode::METHOD_NOT_ALLOWED, INVALID, p),
            Self::Timeout(p) => (StatusCode::REQUEST_TIMEOUT, "timeout_error", p),
            Self::Conflict(p) => (StatusCode::CONFLICT, "conflict_error", p),
            Self::TooLarge(p) => (StatusCode::PAYLOAD_TOO_LARGE, INVALID, p),
            Self::UriTooLong(p) => (StatusCode::URI_TOO_LONG, INVALID, p),
            Self::UnsupportedMedia(p) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, p),
            Self::BadRange(p) => (StatusCode::RANGE_NOT_SATISFIABLE, INVALID, p),
            Self::Unprocessable(p) => (StatusCode::UNPROCESSABLE_ENTITY, INVALID, p),
            Self::Overloaded(p) => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", p),
            Self::HeadersTooLarge(p) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, INVALID, p),
            Self::Internal(p) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", p),
            Self::Unavailable(p) => (StatusCode::SERVICE_UNAVAILABLE, "server_error", p),
            Self::StorageFull(p) => (StatusCode::INSUFFICIENT_STORAGE, "server_error", p),
        }
    }

    fn problem_mut(&mut self) -> &mut Problem {
        match self {
            Self::BadRequest(p)
            | Self::Forbidden(p)
            | Self::UriTooLong(p)
            | Self::BadRange(p)
            | Self::HeadersTooLarge(p)
            | Self::NotFound(p)
            | Self::MethodNotAllowed(p)
            | Self::Timeout(p)
            | Self::Conflict(p)
            | Self::TooLarge(p)
            | Self::UnsupportedMedia(p)
            | Self::Unprocessable(p)
            | Self::Overloaded(p)
            | Self::Internal(p)
            | Self::Unavailable(p)
            | Self::StorageFull(p) => p,
        }
    }

    /// The error as a JSON document, such as a line of a stream.
    pub(super) fn to_value(&self) -> serde_json::Value {
        serde_json::json!(self.document())
    }

    fn document(&self) -> ErrorDocument {
        let (_, r#type, problem) = self.parts();
        let Problem {
            message,
            param,
            code,
        } = problem;
        ErrorDocument {
            error: ErrorFields {
                message: truncated(message, MAX_MESSAGE),
                r#type,
                param: param.as_deref().map(|param| truncated(param, MAX_PARAM)),
                code,
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.document())).into_response();
        response
            .extensions_mut()
            .insert(ErrorCode(self.problem().code));
        if matches!(self, Self::Overloaded(_) | Self::Unavailable(_)) {
            response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
        }
        response
    }
}
