//! Converts the errors of other modules to [`ApiError`]s: status, code and field.

use super::error::{ApiError, Problem};
use crate::{
    blobs::BlobError,
    checkpoint::CheckpointError,
    db::DbError,
    image_store::ImageError,
    ingest::{IngestError, Place},
    keys::{Exhausted, KeyError},
    search::SearchError,
    serve::ServeError,
    thumbnails::ThumbnailError,
    train::{TrainError, WriteFailure},
};
use kith_pixels::PixelError;

impl From<PixelError> for ApiError {
    fn from(error: PixelError) -> Self {
        let problem = Problem::new(error.code(), without_decoder_message(&error.to_string()));
        match error {
            PixelError::TooLarge(_) => Self::TooLarge(problem),
            PixelError::Undecodable(_) => Self::BadRequest(problem),
        }
    }
}

/// Removes a decoder's own message, which is in brackets after `decode` or `decoded` and names internals. It goes to the log.
fn without_decoder_message(message: &str) -> String {
    let start = ["decode (", "decoded ("].into_iter().find_map(|before| {
        let start = message.find(before)?;
        Some(start + before.len() - " (".len())
    });
    let parts = start.and_then(|start| Some((start, message.rfind(')')?)));
    let Some((start, end)) = parts.filter(|(start, end)| start < end) else {
        return message.to_owned();
    };
    tracing::debug!(message, "an image could not be decoded");
    format!("{}{}", &message[..start], &message[end + 1..])
}

impl From<ServeError> for ApiError {
    fn from(error: ServeError) -> Self {
        let message = error.to_string();
        match error {
            ServeError::Pixels { index, source } => {
                Self::from(source).with_param(format!("input[{index}]"))
            }
            ServeError::TooMany { .. } => {
                Self::TooLarge(Problem::new("too_many_images", message).with_param("input"))
            }
            ServeError::Overloaded | ServeError::LongWait => {
                Self::Overloaded(Problem::new("overloaded", message))
            }
            ServeError::NotReady => Self::Unavailable(Problem::new("not_ready", message)),
            ServeError::Stopping => ApiError::stopping(),
            ServeError::Checkpoint(error) => error.into(),
            ServeError::NotFinite { chosen: true, .. } => {
                Self::Conflict(Problem::new("checkpoint_not_finite", message))
            }
            ServeError::NotFinite { .. } => {
                Self::Internal(Problem::new("checkpoint_not_finite", message))
            }
            ServeError::Nn(_) | ServeError::Encode(_) => Self::internal(message),
        }
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        let message = error.to_string();
        match error {
            SearchError::Disabled => Self::Conflict(Problem::new("search_disabled", message)),
            SearchError::Overloaded(_) => Self::Overloaded(Problem::new("overloaded", message)),
            SearchError::UnknownImage(_) => {
                Self::NotFound(Problem::new("unknown_image", message).with_param("id"))
            }
            SearchError::Vector(_) => {
                Self::BadRequest(Problem::new("invalid_vector", message).with_param("vector"))
            }
            // A search has one image.
            SearchError::Serve(ServeError::Pixels { source, .. }) => {
                Self::from(source).with_param("image")
            }
            SearchError::Serve(error @ ServeError::Checkpoint(_)) => {
                Self::from(error).with_param("checkpoint")
            }
            SearchError::Serve(error) => error.into(),
            SearchError::Checkpoint(error) => Self::from(error).with_param("checkpoint"),
            SearchError::Image(error) => IngestError::Image(error).into(),
            SearchError::Db(error) => error.into(),
            SearchError::Thread(_) => Self::internal(message),
        }
    }
}

impl From<ThumbnailError> for ApiError {
    fn from(error: ThumbnailError) -> Self {
        match error {
            ThumbnailError::Image(error) => match &*error {
                ImageError::Damaged { .. } => Self::Conflict(
                    Problem::new("image_damaged", error.to_string()).with_param("id"),
                ),
                _ => Self::internal(error),
            },
            ThumbnailError::Pixels(error) => Self::from((*error).clone()).with_param("id"),
            ThumbnailError::Unknown(_) => {
                Self::NotFound(Problem::new("unknown_image", error.to_string()).with_param("id"))
            }
            ThumbnailError::Thread(_) => Self::internal(error),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        let message = error.to_string();
        let refused = |code| Self::Unauthorized(Problem::new(code, &message));
        match error {
            KeyError::Missing => refused("missing_key"),
            KeyError::Unknown => refused("invalid_key"),
            KeyError::Expired(_) => refused("expired_key"),
            KeyError::Db(error) => error.into(),
            KeyError::BadName(_) | KeyError::Past(_) | KeyError::NotFound(_) => {
                Self::internal(message)
            }
        }
    }
}

impl From<Exhausted> for ApiError {
    fn from(exhausted: Exhausted) -> Self {
        let (code, setting, wait) = match exhausted {
            Exhausted::Requests(wait) => ("rate_limited", "keys.requests_per_minute", wait),
            Exhausted::Bytes(wait) => ("quota_exceeded", "keys.bytes_per_day", wait),
            Exhausted::TooLarge => {
                let message = "the body is larger than all that a key may send, keys.bytes_per_day: send less at once";
                return Self::TooLarge(Problem::new("body_too_large", message));
            }
        };
        let message =
            format!("this key has used up its {setting}: retry after the seconds of retry-after");
        Self::Overloaded(Problem::new(code, message).with_retry_after(wait))
    }
}

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> Self {
        let message = error.to_string();
        match error {
            IngestError::Pixels { place, source } => {
                let param = place.map_or("image".to_owned(), param);
                Self::from(source).with_param(param)
            }
            IngestError::UnknownImage { place, .. } => {
                Self::NotFound(Problem::new("unknown_image", message).with_param(param(place)))
            }
            IngestError::Stopping => ApiError::stopping(),
            IngestError::Image(ImageError::Damaged { .. }) => {
                Self::Conflict(Problem::new("image_damaged", message).with_param("id"))
            }
            IngestError::Image(ImageError::Blobs(error)) | IngestError::Blobs(error) => {
                error.into()
            }
            IngestError::Image(ImageError::Db(error)) | IngestError::Db(error) => error.into(),
        }
    }
}

impl From<CheckpointError> for ApiError {
    fn from(error: CheckpointError) -> Self {
        let message = error.to_string();
        match error {
            CheckpointError::Unknown(_) => {
                Self::NotFound(Problem::new("unknown_checkpoint", message))
            }
            CheckpointError::Stopping => ApiError::stopping(),
            CheckpointError::Live(_) => Self::Conflict(Problem::new("checkpoint_live", message)),
            CheckpointError::NotFinite(_) => {
                Self::Conflict(Problem::new("checkpoint_not_finite", message))
            }
            CheckpointError::Preprocessing { .. } => {
                Self::Conflict(Problem::new("checkpoint_preprocessing", message))
            }
            CheckpointError::Aliased(_) => {
                Self::Conflict(Problem::new("checkpoint_aliased", message))
            }
            CheckpointError::Quota { .. } => {
                Self::Conflict(Problem::new("checkpoint_quota", message))
            }
            CheckpointError::Damaged { id, .. } => {
                tracing::error!(error = %message, "a request named a damaged checkpoint");
                let message = format!("checkpoint {id} is damaged: choose another, and delete it");
                Self::Conflict(Problem::new("checkpoint_damaged", message))
            }
            CheckpointError::Blobs(error) => error.into(),
            CheckpointError::Db(error) => error.into(),
            CheckpointError::AllLost { .. } | CheckpointError::Nn(_) => Self::internal(message),
        }
    }
}

impl From<TrainError> for ApiError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Stopped => ApiError::stopping(),
            TrainError::Invalid(message) => {
                Self::BadRequest(Problem::new("invalid_value", message))
            }
            TrainError::Unavailable(message) => {
                Self::Unavailable(Problem::new("training_failed", message))
            }
            TrainError::Disabled => {
                Self::Conflict(Problem::new("training_disabled", error.to_string()))
            }
            TrainError::Unwritten { failure, .. } => match failure {
                WriteFailure::NotFinite => Self::Conflict(Problem::new(
                    "weights_not_finite",
                    "the weights that training holds are not finite, so nothing was written: GET /v1/training has the reason, and PATCH \
                     /v1/training {\"state\": \"running\"} goes back to the best checkpoint",
                )),
                WriteFailure::StorageFull => storage_full(&DbError::Full),
                WriteFailure::Other => {
                    Self::Unavailable(Problem::new("snapshot_failed", error.to_string()))
                }
            },
            TrainError::Unsaved(_) => Self::internal(error),
            TrainError::Checkpoint(error) => error.into(),
        }
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Full => storage_full(&error),
            DbError::MissingCheckpoint(_) => {
                Self::NotFound(Problem::new("unknown_checkpoint", error.to_string()))
            }
            DbError::OtherGroup { index, .. } => {
                let problem = Problem::new("group_conflict", error.to_string());
                Self::Conflict(problem.with_param(format!("pairs[{index}].group")))
            }
            DbError::OtherWeight { index, .. } => {
                let problem = Problem::new("weight_conflict", error.to_string());
                Self::Conflict(problem.with_param(format!("pairs[{index}].weight")))
            }
            error => Self::internal(error),
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Full => storage_full(&error),
            BlobError::NotFound(_) => {
                let message = "it was deleted while it was asked for";
                Self::NotFound(Problem::new("not_found", message))
            }
            error => Self::internal(error),
        }
    }
}

/// 507: nothing can be stored until there is space.
fn storage_full(error: &dyn std::error::Error) -> ApiError {
    tracing::error!(%error, "a request failed");
    ApiError::StorageFull(Problem::new("storage_full", error.to_string()))
}

fn param(place: Place) -> String {
    format!("pairs[{}].{}", place.index, place.side)
}

#[cfg(test)]
mod tests {
    use axum::{http::StatusCode, response::IntoResponse};

    use super::*;

    #[test]
    fn a_snapshot_while_training_has_failed_is_503_with_retry_after() {
        let error = ApiError::from(TrainError::Unavailable("training failed".to_owned()));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
    }

    #[test]
    fn a_snapshot_that_cannot_be_written_is_answered_by_its_reason() {
        let id = crate::types::CheckpointId::now();
        for (error, status) in [
            (CheckpointError::NotFinite(id), StatusCode::CONFLICT),
            (DbError::Full.into(), StatusCode::INSUFFICIENT_STORAGE),
            (BlobError::Full.into(), StatusCode::INSUFFICIENT_STORAGE),
            (
                CheckpointError::Unknown(id),
                StatusCode::SERVICE_UNAVAILABLE,
            ),
        ] {
            let failure = WriteFailure::from(&error);
            let error = ApiError::from(TrainError::Unwritten { id, failure });
            assert_eq!(error.into_response().status(), status, "{failure:?}");
        }
    }

    #[test]
    fn a_checkpoint_that_is_not_there_is_404() {
        let error = DbError::MissingCheckpoint(crate::types::CheckpointId::now());
        let error = ApiError::from(error);
        assert_eq!(error.into_response().status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_file_deleted_during_its_request_is_404() {
        let error = ApiError::from(BlobError::NotFound("images/ab/abc".to_owned()));
        assert_eq!(error.into_response().status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_decoders_message_is_removed_and_other_brackets_stay() {
        for (message, shown) in [
            (
                "the image cannot be decoded (Format error (x), expected 5): is the file whole?",
                "the image cannot be decoded: is the file whole?",
            ),
            (
                "the image has 9 pixels (3 x 3)",
                "the image has 9 pixels (3 x 3)",
            ),
            (
                "it cannot be decoded: is it whole?",
                "it cannot be decoded: is it whole?",
            ),
        ] {
            assert_eq!(without_decoder_message(message), shown);
        }
    }
}
