//! Extractors whose rejections are [`ApiError`]s that name the field.

use axum::{
    body::{Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::request::Parts,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, Unexpected},
};

use super::{
    body_error::BodyError,
    error::{ApiError, Problem},
    field_error::field_problem,
    json::whole,
};

/// The whole body, within [`super::body_limits`].
pub(super) struct Body(pub(super) Bytes);

/// Query parameters. Unknown ones are refused where `T` refuses unknown fields.
pub(super) struct Params<T>(pub(super) T);

/// The id in the path. One that does not parse is the id of nothing, so the answer is 404.
pub(super) struct Id<T>(pub(super) T);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        // The body carries its own limit.
        let bytes = to_bytes(request.into_body(), usize::MAX).await;
        bytes.map(Self).map_err(|error| {
            BodyError::find(&error).unwrap_or_else(|| {
                let message = "the body is incomplete or cannot be decompressed: send it again";
                ApiError::BadRequest(Problem::new("invalid_body", message))
            })
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let query = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(query)
            .map(Self)
            .map_err(|error| {
                let (path, reason) = (error.path().to_string(), error.inner().to_string());
                ApiError::BadRequest(field_problem("invalid_parameter", &path, &reason))
            })
    }
}

/// Reads a whole number of a query. `4.0` is one, as in JSON bodies.
pub(super) fn whole_parameter<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = text.parse().ok().or_else(|| whole(text.parse().ok()?));
    let number = number.and_then(|number: u64| number.try_into().ok());
    number.ok_or_else(|| {
        D::Error::invalid_value(Unexpected::Str(&text), &"a whole number, 0 or above")
    })
}

/// [`whole_parameter`] of one that may be left out.
pub(super) fn optional_whole_parameter<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    whole_parameter(deserializer).map(Some)
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| {
            let message = "the id in the path is not an id of kith: list the resources to find it";
            ApiError::NotFound(Problem::new("unknown_id", message).with_param("id"))
        })
    }
}
