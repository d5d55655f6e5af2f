//! Extractors whose refusals have the documented shape and name the field.
//! Must never know: what the fields mean.

use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE, request::Parts},
};
use serde::de::DeserializeOwned;

use super::error::{ApiError, Problem};

/// Above this a body is parsed away from the async threads, in bytes.
const PARSE_ELSEWHERE: usize = 64 * 1024;

/// The whole body, within the limit.
pub(super) struct Body(pub(super) Bytes);

/// Query parameters; unknown ones are refused where `T` refuses unknown fields.
pub(super) struct Params<T>(pub(super) T);

/// The id in the path; one that does not parse names nothing, so the answer is 404.
pub(super) struct Id<T>(pub(super) T);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await;
        bytes.map(Self).map_err(unreadable)
    }
}

fn unreadable(rejection: BytesRejection) -> ApiError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiError::BadRequest(Problem::new(
            "invalid_body",
            "the body broke off: send it again",
        )),
    }
}

/// 413 for a body above `server.max_body_bytes`.
pub(super) fn too_large() -> ApiError {
    let message = "the body is larger than server.max_body_bytes: send less at once";
    ApiError::TooLarge(Problem::new("body_too_large", message))
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        let query = query.map_err(|rejection: QueryRejection| {
            let text = rejection.body_text();
            let reason = text
                .split_once(": ")
                .map_or(text.as_str(), |(_, reason)| reason);
            let message = format!("the query cannot be read: {reason}");
            match reason.split_once(": ") {
                Some((field, _)) => ApiError::invalid("invalid_parameter", field, message),
                None => ApiError::BadRequest(Problem::new("invalid_parameter", message)),
            }
        })?;
        Ok(Self(query.0))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| {
            let message =
                "the id in the path is not one that kith gives: see the list of what there is";
            ApiError::NotFound(Problem::new("unknown_id", message).at("id"))
        })
    }
}

/// What a body is, by its `content-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    /// `image/*` or `application/octet-stream`: one image's bytes.
    Image,
    Multipart,
    /// One JSON document a line.
    Lines,
}

impl Media {
    /// Refuses a content type that is none of `taken`.
    pub(super) fn of(headers: &HeaderMap, taken: &[Self]) -> Result<Self, ApiError> {
        let found = Self::named(headers).filter(|media| taken.contains(media));
        found.ok_or_else(|| {
            let names: Vec<_> = taken.iter().map(|media| media.name()).collect();
            let message = format!("send a content-type header, one of: {}", names.join(", "));
            ApiError::UnsupportedMedia(Problem::new("unsupported_media_type", message))
        })
    }

    fn named(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = text
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        Some(match essence.as_str() {
            "application/json" => Self::Json,
            "multipart/form-data" => Self::Multipart,
            "application/x-ndjson" => Self::Lines,
            "application/octet-stream" => Self::Image,
            image if image.starts_with("image/") => Self::Image,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Image => "image/*",
            Self::Multipart => "multipart/form-data",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// Parses a JSON body and checks it with `then`; a large one away from the async threads, as both may take long.
pub(super) async fn parse<T: DeserializeOwned, R: Send + 'static>(
    body: Bytes,
    then: impl FnOnce(T) -> Result<R, ApiError> + Send + 'static,
) -> Result<R, ApiError> {
    let small = body.len() <= PARSE_ELSEWHERE;
    let work = move || json(&body).and_then(then);
    if small {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(ApiError::internal(panic)))
}

/// Parses JSON; a refusal names the field.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut document = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                ApiError::invalid("invalid_field", path, inner.to_string())
            }
            _ => not_json(&inner),
        }
    })?;
    document.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> ApiError {
    let message = format!("the body is not JSON: {error}");
    ApiError::BadRequest(Problem::new("invalid_json", message))
}
