//! Error answers: one variant a status, and one JSON shape, `{"error": {message, type, param, code}}`, which OpenAI's clients parse.
//! Messages are cut to a maximum length here. `error_mapping.rs` turns the errors of other modules into these.

use std::time::Duration;

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::text::{MAX_MESSAGE, MAX_PARAM, truncated};

/// Seconds after which a refused caller may try again, unless the problem says otherwise.
const RETRY_SECONDS: u64 = 1;

/// How a caller shows its key.
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

/// What was wrong, as the caller reads it. It never names internals.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Problem {
    /// What was wrong and what to do.
    pub(super) message: String,
    /// Path of the field that was wrong, such as `input[3]`.
    pub(super) param: Option<String>,
    /// A stable name for programs.
    pub(super) code: &'static str,
    /// The `retry-after` of an answer that carries one.
    retry_seconds: u64,
}

/// Defines [`ApiError`] by a table: what each variant means, its status and the JSON's `type`.
macro_rules! api_errors {
    ($($(#[$meaning:meta])* $variant:ident = $status:ident, $type:literal;)*) => {
        /// An error answer.
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum ApiError {
            $($(#[$meaning])* $variant(Problem),)*
        }

        impl ApiError {
            /// Each status that an error answer may have, and its `type`.
            pub(super) const TYPES: &[(u16, &str)] =
                &[$((StatusCode::$status.as_u16(), $type)),*];

            /// Status, the JSON's `type`, and what was wrong.
            fn parts(&self) -> (StatusCode, &'static str, &Problem) {
                match self {
                    $(Self::$variant(problem) => (StatusCode::$status, $type, problem),)*
                }
            }

            fn problem_mut(&mut self) -> &mut Problem {
                match self {
                    $(Self::$variant(problem))|* => problem,
                }
            }
        }
    };
}

api_errors! {
    /// 400: the request is wrong; sending it again will not help.
    BadRequest = BAD_REQUEST, "invalid_request_error";
    /// 401: the request has no valid key; carries `www-authenticate`.
    Unauthorized = UNAUTHORIZED, "authentication_error";
    /// 403: the key may not do this, or the request comes from a web page of another site, or names a host that is not this server.
    Forbidden = FORBIDDEN, "permission_error";
    /// 404: no such route or resource.
    NotFound = NOT_FOUND, "not_found_error";
    /// 405: the route has no such method; the `allow` header lists those it has.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "invalid_request_error";
    /// 408: the request took longer than `server.timeout_seconds`.
    Timeout = REQUEST_TIMEOUT, "timeout_error";
    /// 409: the resource is in a state that forbids this.
    Conflict = CONFLICT, "conflict_error";
    /// 413: more bytes, images or pairs than the limits allow.
    TooLarge = PAYLOAD_TOO_LARGE, "invalid_request_error";
    /// 414: a URI longer than the server accepts.
    UriTooLong = URI_TOO_LONG, "invalid_request_error";
    /// 415: a content type or encoding that the route does not accept.
    UnsupportedMedia = UNSUPPORTED_MEDIA_TYPE, "invalid_request_error";
    /// 416: a range outside the file.
    BadRange = RANGE_NOT_SATISFIABLE, "invalid_request_error";
    /// 422: an idempotency key that was used for another request.
    Unprocessable = UNPROCESSABLE_ENTITY, "invalid_request_error";
    /// 429: a limit is reached for the moment; carries `retry-after`.
    Overloaded = TOO_MANY_REQUESTS, "rate_limit_error";
    /// 431: more headers than the server accepts.
    HeadersTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "invalid_request_error";
    /// 500: the server failed; the log has the cause under the request's id.
    Internal = INTERNAL_SERVER_ERROR, "server_error";
    /// 503: not ready yet, or stopping; carries `retry-after`.
    Unavailable = SERVICE_UNAVAILABLE, "server_error";
    /// 507: the server's disk is full.
    StorageFull = INSUFFICIENT_STORAGE, "server_error";
}

/// The code of an error answer, for the log. A response without it that has an error status does not have the documented shape yet.
#[derive(Clone, Copy)]
pub(super) struct ErrorCode(pub(super) &'static str);

/// Every error answer.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct ErrorDocument {
    error: ErrorFields,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ErrorFields {
    /// What was wrong and what to do, for people.
    message: String,
    /// The kind of error.
    r#type: &'static str,
    /// Path of the field that was wrong, such as `input[3]`.
    param: Option<String>,
    /// A stable name for programs.
    code: &'static str,
}

impl Problem {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: None,
            code,
            retry_seconds: RETRY_SECONDS,
        }
    }

    /// This problem with another `retry-after` than a second; part of a second counts as one.
    pub(super) fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
        self
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
            401 => Self::Unauthorized(problem("invalid_key", "this request needs a valid key")),
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

    /// The error as a JSON document.
    pub(super) fn to_value(&self) -> serde_json::Value {
        serde_json::json!(self.document())
    }

    /// The error as it stands in an answer, or in a line of a stream.
    pub(super) fn document(&self) -> ErrorDocument {
        let (_, r#type, problem) = self.parts();
        let Problem {
            message,
            param,
            code,
            ..
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
            let seconds = self.problem().retry_seconds;
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if matches!(self, Self::Unauthorized(_)) {
            response.headers_mut().insert(WWW_AUTHENTICATE, BEARER);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_never_sends_more_than_its_bounds_whatever_it_was_made_from() {
        let long = "a".repeat(1 << 20);
        let error = ApiError::invalid("code", long.clone(), long);
        let document = error.to_value();
        let length = |field: &str| document["error"][field].as_str().unwrap().len();
        assert!(length("message") <= MAX_MESSAGE, "{}", length("message"));
        assert!(length("param") <= MAX_PARAM, "{}", length("param"));
    }
}
