//! The media type of a request body, as `content-type` names it.

use axum::http::{HeaderMap, header::CONTENT_TYPE};

use super::error::{ApiError, Problem};

/// The kinds of body that routes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaType {
    /// `application/json`.
    Json,
    /// `image/*` or `application/octet-stream`: the bytes of one image.
    Image,
    /// `multipart/form-data`.
    Multipart,
    /// `application/x-ndjson`: one JSON document a line, streamed.
    Ndjson,
}

impl MediaType {
    /// The media type of a body; `None` if there is no `content-type`, or no route reads that type. Type and subtype are compared without
    /// parameters and without regard to case (RFC 9110, section 8.3.1).
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = value.split(';').next()?.trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Some(Self::Json),
            "multipart/form-data" => Some(Self::Multipart),
            "application/x-ndjson" => Some(Self::Ndjson),
            "application/octet-stream" => Some(Self::Image),
            _ => essence.starts_with("image/").then_some(Self::Image),
        }
    }

    /// The media type of a body that must be one of `accepted`; 415 otherwise.
    pub(super) fn require(headers: &HeaderMap, accepted: &[Self]) -> Result<Self, ApiError> {
        let found = Self::from_headers(headers).filter(|media| accepted.contains(media));
        found.ok_or_else(|| {
            let names: Vec<_> = accepted.iter().map(|media| media.name()).collect();
            let message = format!("send a content-type header, one of: {}", names.join(", "));
            ApiError::UnsupportedMedia(Problem::new("unsupported_media_type", message))
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Image => "image/*",
            Self::Multipart => "multipart/form-data",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media_type(value: &str) -> Option<MediaType> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
        MediaType::from_headers(&headers)
    }

    #[test]
    fn type_and_subtype_are_compared_without_parameters_and_case() {
        for (value, media) in [
            ("application/json", MediaType::Json),
            ("Application/JSON; charset=utf-8", MediaType::Json),
            ("application/x-ndjson", MediaType::Ndjson),
            (" application/X-NDJSON ;charset=utf-8", MediaType::Ndjson),
            ("multipart/form-data; boundary=a", MediaType::Multipart),
            ("IMAGE/png", MediaType::Image),
            ("application/octet-stream", MediaType::Image),
        ] {
            assert_eq!(media_type(value), Some(media), "{value}");
        }
    }

    #[test]
    fn a_type_that_only_begins_like_a_known_one_is_another_type() {
        for value in [
            "application/x-ndjson-seq",
            "application/x-ndjsonp; charset=utf-8",
            "application/json5",
            "application/x-ndjson/x",
            "image",
            "text/plain; application/x-ndjson",
            "",
        ] {
            assert_eq!(media_type(value), None, "{value}");
        }
        assert_eq!(MediaType::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn a_type_that_a_route_does_not_accept_is_415_with_those_it_accepts() {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "image/png".parse().unwrap())]);
        let accepted = [MediaType::Json, MediaType::Ndjson];
        let error = MediaType::require(&headers, &accepted).unwrap_err();
        assert_eq!(error.status().as_u16(), 415);
        let message = &error.problem().message;
        assert!(
            message.ends_with("application/json, application/x-ndjson"),
            "{message}"
        );
    }
}
