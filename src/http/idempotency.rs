//! Answers kept for retries with an `Idempotency-Key`: the retry is answered as the first request was.
//! In memory and bounded; after a restart, or when many other keys came between, a retry stores its pairs again, which finds them
//! there and changes nothing. Must never know: what is answered.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::error::{ApiError, Problem};
use crate::types::Sha256;

/// The header, by which clients name a request across its retries.
pub(super) const HEADER: &str = "idempotency-key";

/// Longest key, in bytes.
const MAX_KEY: usize = 255;

/// The newest answers, oldest first.
pub(super) struct Idempotency {
    capacity: usize,
    entries: Mutex<VecDeque<Arc<Entry>>>,
}

struct Entry {
    key: String,
    /// Hash of what was asked, so that a key used for something else is noticed.
    request: Sha256,
    /// Empty while the first request is worked on; its retries wait here.
    answer: OnceCell<Answer>,
}

/// A successful JSON answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) json: Bytes,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, [(CONTENT_TYPE, "application/json")], self.json).into_response()
    }
}

/// The request's key, if it has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .ok()
        .filter(|text| (1..=MAX_KEY).contains(&text.len()));
    text.map(|text| Some(text.to_owned())).ok_or_else(|| {
        let message = format!("an idempotency key is 1 to {MAX_KEY} printable ASCII characters");
        ApiError::invalid("invalid_idempotency_key", HEADER, message)
    })
}

impl Idempotency {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: Mutex::new(VecDeque::new()),
        }
    }

    /// The first answer given under `key`, or `work`'s. An error is not kept: its retry works again.
    pub(super) async fn answer(
        &self,
        key: Option<String>,
        request: Sha256,
        work: impl Future<Output = Result<Answer, ApiError>>,
    ) -> Result<Answer, ApiError> {
        let Some(key) = key else {
            return work.await;
        };
        let entry = self.entry(key, request);
        if entry.request != request {
            let message = "this idempotency key was used for another request: take a new one";
            return Err(ApiError::Unprocessable(
                Problem::new("idempotency_key_reused", message).at(HEADER),
            ));
        }
        entry.answer.get_or_try_init(|| work).await.cloned()
    }

    fn entry(&self, key: String, request: Sha256) -> Arc<Entry> {
        // Every change of the list is a single step, so a panic elsewhere leaves it whole.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = entries.iter().position(|entry| entry.key == key) {
            let entry = entries[at].clone();
            let failed = entry.answer.get().is_none() && Arc::strong_count(&entry) == 2;
            if !failed {
                return entry;
            }
            // Nobody works on it and it has no answer: its request failed, and the key is free again.
            entries.remove(at);
        }
        if entries.len() >= self.capacity {
            entries.pop_front();
        }
        let entry = Arc::new(Entry {
            key,
            request,
            answer: OnceCell::new(),
        });
        entries.push_back(entry.clone());
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    fn answer(text: &'static str) -> Answer {
        Answer {
            status: StatusCode::CREATED,
            json: Bytes::from_static(text.as_bytes()),
        }
    }

    async fn ask(
        kept: &Idempotency,
        key: &str,
        body: &[u8],
        reply: Result<Answer, ApiError>,
    ) -> Result<Answer, ApiError> {
        kept.answer(Some(key.to_owned()), Sha256::of(body), async { reply })
            .await
    }

    #[tokio::test]
    async fn a_retry_is_answered_as_the_first_was() {
        let kept = Idempotency::new(2);
        assert_eq!(
            ask(&kept, "a", b"1", Ok(answer("first"))).await,
            Ok(answer("first"))
        );
        assert_eq!(
            ask(&kept, "a", b"1", Ok(answer("second"))).await,
            Ok(answer("first"))
        );
    }

    #[tokio::test]
    async fn a_key_used_for_another_request_is_refused() {
        let kept = Idempotency::new(2);
        ask(&kept, "a", b"1", Ok(answer("first"))).await.unwrap();
        let error = ask(&kept, "a", b"2", Ok(answer("second")))
            .await
            .unwrap_err();
        assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[tokio::test]
    async fn a_failed_request_leaves_its_key_free_even_for_a_corrected_one() {
        let kept = Idempotency::new(2);
        let bad = ApiError::invalid("x", "y", "z");
        assert_eq!(ask(&kept, "a", b"1", Err(bad.clone())).await, Err(bad));
        assert_eq!(
            ask(&kept, "a", b"2", Ok(answer("good"))).await,
            Ok(answer("good"))
        );
    }

    #[tokio::test]
    async fn concurrent_retries_wait_for_the_first_and_do_not_work_again() {
        let (kept, works) = (Idempotency::new(2), AtomicUsize::new(0));
        let work = || {
            kept.answer(Some("a".to_owned()), Sha256::of(b"1"), async {
                works.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
                Ok(answer("first"))
            })
        };
        let (a, b) = tokio::join!(work(), work());
        assert_eq!((a, b), (Ok(answer("first")), Ok(answer("first"))));
        assert_eq!(works.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn the_oldest_answer_goes_when_the_bound_is_reached() {
        let kept = Idempotency::new(2);
        for key in ["a", "b", "c"] {
            ask(&kept, key, b"1", Ok(answer("first"))).await.unwrap();
        }
        assert_eq!(
            ask(&kept, "c", b"1", Ok(answer("again"))).await,
            Ok(answer("first"))
        );
        assert_eq!(
            ask(&kept, "a", b"1", Ok(answer("again"))).await,
            Ok(answer("again"))
        );
    }
}
