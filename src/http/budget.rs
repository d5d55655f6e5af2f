//! The bound on bytes of request bodies held at once: a body's share is taken before any of it is read.
//! Must never know: what a body holds.

use std::sync::Arc;

use axum::{
    body::HttpBody,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, Problem};

/// The semaphore counts in these units, so that its 32-bit count reaches far enough.
const UNIT: usize = 1024;

/// Bytes that bodies may hold at once; cheap to clone.
#[derive(Clone)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    max_body_bytes: usize,
}

/// A request's share, given back when the last clone goes. A stream keeps one until its end.
#[derive(Clone)]
pub(super) struct Share {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Budget {
    /// `bytes`: in all; `max_body_bytes`: what a body of unknown length counts as.
    pub(super) fn new(bytes: usize, max_body_bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units)),
            max_body_bytes,
        }
    }

    /// Takes the share of a body of `length` bytes, at once or not at all.
    pub(super) fn take(&self, length: Option<u64>) -> Result<Share, ApiError> {
        let length = length.and_then(|length| usize::try_from(length).ok());
        let bytes = length
            .unwrap_or(self.max_body_bytes)
            .min(self.max_body_bytes);
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let permit = self.units.clone().try_acquire_many_owned(units);
        let permit = permit.map_err(|_| {
            let message = "too many large requests are being read: retry in a moment";
            ApiError::Overloaded(Problem::new("overloaded", message))
        })?;
        Ok(Share {
            _permit: Arc::new(permit),
        })
    }
}

/// Gives each request its share or refuses it with 429.
pub(super) async fn bound(
    State(budget): State<Budget>,
    mut request: Request,
    next: Next,
) -> Response {
    // A stream of lines counts as one body, whatever its length: only a part of it is held at a time.
    let length = match super::ndjson::is_stream(request.headers()) {
        true => None,
        false => request.body().size_hint().exact(),
    };
    match budget.take(length) {
        Ok(share) => {
            request.extensions_mut().insert(share.clone());
            let response = next.run(request).await;
            drop(share);
            response
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_the_budget_and_give_it_back() {
        let budget = Budget::new(4 * UNIT, 2 * UNIT);
        let first = budget.take(Some(UNIT as u64)).unwrap();
        let _unknown_length = budget.take(None).unwrap();
        assert!(matches!(budget.take(None), Err(ApiError::Overloaded(_))));
        drop(first);
        assert!(budget.take(None).is_ok());
    }
}
