//! Multipart bodies, field by field, each file bounded while it is read.
//! Must never know: which fields a route wants.

use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};

use super::{
    error::{ApiError, Problem},
    extract::too_large,
};

/// One part of a form.
pub(super) struct Part {
    pub(super) name: String,
    /// It has a file name: it is an upload, not a text field.
    pub(super) file: bool,
    pub(super) bytes: Bytes,
}

/// The next part, of at most `max_bytes`.
pub(super) async fn next(form: &mut Multipart, max_bytes: usize) -> Result<Option<Part>, ApiError> {
    let Some(field) = form.next_field().await.map_err(broken)? else {
        return Ok(None);
    };
    let name = field.name().unwrap_or_default().to_owned();
    let file = field.file_name().is_some();
    let bytes = read(field, &name, max_bytes).await?;
    Ok(Some(Part { name, file, bytes }))
}

async fn read(mut field: Field<'_>, name: &str, max_bytes: usize) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        if whole.len() + chunk.len() > max_bytes {
            let message = format!(
                "the part has more than limits.max_bytes = {max_bytes} bytes: send a smaller image"
            );
            return Err(ApiError::TooLarge(
                Problem::new("image_too_large", message).at(name),
            ));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// A form that cannot be read, or is too long.
pub(super) fn broken(error: MultipartError) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => {
            let message = "the multipart form cannot be read: send it with a boundary, complete";
            ApiError::BadRequest(Problem::new("invalid_multipart", message))
        }
    }
}

/// 400 for a part that the route does not know.
pub(super) fn unknown_part(name: &str, known: &str) -> ApiError {
    let message = format!("this form has no place for a part named \"{name}\": {known}");
    ApiError::invalid("unknown_field", name, message)
}
