//! Multipart forms, read part by part with a maximum size of each.

use axum::extract::{
    FromRequest, Request,
    multipart::{Field, Multipart, MultipartError},
};
use bytes::{Bytes, BytesMut};

use super::{
    body_error::BodyError,
    error::{ApiError, Problem},
    text::quoted,
};

/// A form whose parts have a maximum size.
pub(super) struct Form {
    multipart: Multipart,
    max_bytes: usize,
}

/// One part of a form.
pub(super) struct Part {
    pub(super) name: String,
    /// Whether it is a file: it has a file name, which text fields have not.
    pub(super) is_file: bool,
    pub(super) bytes: Bytes,
}

impl Form {
    /// The form in the body of `request`; 400 without a boundary. `max_bytes`: of each part.
    pub(super) async fn from_request(request: Request, max_bytes: usize) -> Result<Self, ApiError> {
        let multipart = Multipart::from_request(request, &()).await;
        let multipart = multipart.map_err(|_| {
            invalid("the multipart form has no boundary: let your client set the content-type")
        })?;
        Ok(Self {
            multipart,
            max_bytes,
        })
    }

    /// The next part; `None` after the last. Fields that were left empty, which browsers send, are skipped.
    pub(super) async fn next_part(&mut self) -> Result<Option<Part>, ApiError> {
        while let Some(field) = self.multipart.next_field().await.map_err(unreadable)? {
            let name = field.name().unwrap_or_default().to_owned();
            let file_name = field.file_name().map(str::to_owned);
            let bytes = read(field, &name, self.max_bytes).await?;
            // An empty file that somebody chose is an image that cannot be decoded; it is not absent.
            let chosen = file_name.as_deref().is_some_and(|name| !name.is_empty());
            if chosen || !bytes.is_empty() {
                return Ok(Some(Part {
                    name,
                    is_file: file_name.is_some(),
                    bytes,
                }));
            }
        }
        Ok(None)
    }
}

async fn read(mut field: Field<'_>, name: &str, max_bytes: usize) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = field.chunk().await.map_err(unreadable)? {
        if whole.len() + chunk.len() > max_bytes {
            let message = format!(
                "the part has more than limits.max_bytes = {max_bytes} bytes: send a smaller image"
            );
            return Err(ApiError::TooLarge(
                Problem::new("image_too_large", message).with_param(name),
            ));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// 400 for a form that breaks off or is malformed; the limit's own answer for one whose body broke a limit.
fn unreadable(error: MultipartError) -> ApiError {
    BodyError::find(&error).unwrap_or_else(|| {
        invalid("the multipart form cannot be read: send it complete, with its boundary")
    })
}

/// 400 for a form that does not hold what the route reads.
pub(super) fn invalid(message: &str) -> ApiError {
    ApiError::BadRequest(Problem::new("invalid_multipart", message))
}

/// 400 for a part that the route does not read. `expected`: what to send.
pub(super) fn unknown_part(name: &str, expected: &str) -> ApiError {
    let message = format!(
        "this form has an unknown part named {}: {expected}",
        quoted(name)
    );
    ApiError::invalid("unknown_field", name, message)
}
