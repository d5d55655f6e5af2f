//! Work that goes on to its end when its client goes away: what it begins must not be left half done.

use tracing::Instrument;

use super::error::ApiError;

/// Does `work` in a task of its own and gives its answer.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(ApiError::stopping()),
    }
}
