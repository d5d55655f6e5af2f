//! Multipart bodies, field by field, each file bounded while it is read.

use axum::extract::multipart::{Field, Multipart, MultipartError};
use bytes::{Bytes, BytesMut};

use super::{
    error::{ApiError, Problem},
    incoming::refusal,
    words::quoted,
};

/// One part of a form.
pub(super) struct Part {
    pub(super) name: String,
    /// It has a file name: it is an upload, not a text field.
    pub(super) file: bool,
    pub(super) bytes: Bytes,
}

/// The next part that holds something, of at most `max_bytes`. Browsers send fields that were left empty, too: those count as absent.
pub(super) async fn next(form: &mut Multipart, max_bytes: usize) -> Result<Option<Part>, ApiError> {
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        let file = field.file_name().map(str::to_owned);
        let bytes = read(field, &name, max_bytes).await?;
        // A file that was chosen and is empty is an image that cannot be read, not an absent one.
        let chosen = file.as_deref().is_some_and(|file| !file.is_empty());
        if chosen || !bytes.is_empty() {
            let file = file.is_some();
            return Ok(Some(Part { name, file, bytes }));
        }
    }
    Ok(None)
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

/// A form that cannot be read, or whose body broke a bound.
pub(super) fn broken(error: MultipartError) -> ApiError {
    refusal(&error).unwrap_or_else(|| {
        let message = "the multipart form cannot be read: send it with a boundary, complete";
        ApiError::BadRequest(Problem::new("invalid_multipart", message))
    })
}

/// 400 for a part that the route does not know.
pub(super) fn unknown_part(name: &str, known: &str) -> ApiError {
    let message = format!(
        "this form has no place for a part named {}: {known}",
        quoted(name)
    );
    ApiError::invalid("unknown_field", name, message)
}
