//! Extractors whose refusals have the documented shape and name the field.

use axum::{
    body::{Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::QueryRejection},
    http::{HeaderMap, header::CONTENT_TYPE, request::Parts},
};
use serde::de::DeserializeOwned;

pub(super) use super::json::parse;
use super::{
    error::{ApiError, Problem},
    incoming::refusal,
    wrong_field::explain,
};

/// The whole body, within the limit.
pub(super) struct Body(pub(super) Bytes);

/// Query parameters; unknown ones are refused where `T` refuses unknown fields.
pub(super) struct Params<T>(pub(super) T);

/// The id in the path; one that does not parse names nothing, so the answer is 404.
pub(super) struct Id<T>(pub(super) T);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        // The body carries its own bound.
        let bytes = to_bytes(request.into_body(), usize::MAX).await;
        bytes.map(Self).map_err(|error| {
            refusal(&error).unwrap_or_else(|| {
                let message = "the body broke off or cannot be inflated: send it again";
                ApiError::BadRequest(Problem::new("invalid_body", message))
            })
        })
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
            let (_, reason) = text.split_once(": ").unwrap_or(("", &text));
            let (field, reason) = reason.split_once(": ").unwrap_or(("", reason));
            ApiError::BadRequest(explain("invalid_parameter", field, reason))
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
