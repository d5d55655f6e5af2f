//! Answers kept for retries with an `Idempotency-Key`: a retry gets the answer of the first request. They are kept in memory, up to a
//! number of bytes and for a day. A later retry stores its pairs again, which changes nothing: a pair is stored once.

use std::time::Duration;

use axum::{
    extract::Request,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use moka::{future::Cache, policy::EvictionPolicy};

use super::error::{ApiError, Problem};
use crate::{keys::Caller, types::Sha256};

/// The header by which a client identifies a request and its retries.
pub(super) const HEADER: &str = "idempotency-key";

/// Most bytes of a key.
const MAX_KEY: usize = 255;

/// How long an answer is kept.
const TIME_TO_LIVE: Duration = Duration::from_secs(24 * 60 * 60);

/// The answers by key. Beyond the maximum the least recently used ones are dropped.
pub(super) struct IdempotencyCache {
    answers: Cache<String, Outcome<StoredAnswer>>,
}

/// The outcome of the first request with a key.
#[derive(Clone)]
struct Outcome<T> {
    /// Hash of the request, to notice a key that is used for another one.
    request: Sha256,
    result: T,
}

/// A successful JSON answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredAnswer {
    pub(super) status: StatusCode,
    pub(super) json: Bytes,
}

impl IntoResponse for StoredAnswer {
    fn into_response(self) -> Response {
        (self.status, [(CONTENT_TYPE, "application/json")], self.json).into_response()
    }
}

/// The key of a request, if it has one. It is the caller's own: nobody gets the answer to another's request.
pub(super) fn key(request: &Request) -> Result<Option<String>, ApiError> {
    let Some(value) = request.headers().get(HEADER) else {
        return Ok(None);
    };
    let caller: Option<&Caller> = request.extensions().get();
    let caller = caller.map_or_else(String::new, |caller| caller.id().to_string());
    let text = value
        .to_str()
        .ok()
        .filter(|text| (1..=MAX_KEY).contains(&text.len()));
    text.map(|text| Some(format!("{caller} {text}")))
        .ok_or_else(|| {
            let message =
                format!("an idempotency key is 1 to {MAX_KEY} printable ASCII characters");
            ApiError::invalid("invalid_idempotency_key", HEADER, message)
        })
}

impl IdempotencyCache {
    /// A cache of at most `max_bytes` of keys and answers.
    pub(super) fn new(max_bytes: u64) -> Self {
        let bytes = |key: &String, outcome: &Outcome<StoredAnswer>| {
            u32::try_from(key.len() + outcome.result.json.len()).unwrap_or(u32::MAX)
        };
        Self {
            answers: Cache::builder()
                .max_capacity(max_bytes)
                .weigher(bytes)
                .time_to_live(TIME_TO_LIVE)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        }
    }

    /// The answer to the first request with `key`; that request is answered by `work`, and retries meanwhile wait for it. Errors are not
    /// kept. `request`: hash of the request; another request under the same key is refused with 422.
    pub(super) async fn answer(
        &self,
        key: Option<String>,
        request: Sha256,
        work: impl Future<Output = Result<StoredAnswer, ApiError>>,
    ) -> Result<StoredAnswer, ApiError> {
        let Some(key) = key else {
            return work.await;
        };
        let first = async {
            match work.await {
                Ok(result) => Ok(Outcome { request, result }),
                Err(result) => Err(Outcome { request, result }),
            }
        };
        let (first_request, result) = match self.answers.try_get_with(key, first).await {
            Ok(outcome) => (outcome.request, Ok(outcome.result)),
            Err(outcome) => (outcome.request, Err(outcome.result.clone())),
        };
        if first_request == request {
            return result;
        }
        let message = "this idempotency key was used for another request: send a new one";
        Err(ApiError::Unprocessable(
            Problem::new("idempotency_key_reused", message).with_param(HEADER),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::task::yield_now;

    use super::*;

    const MAX_BYTES: u64 = 1000;

    fn answer(text: &'static str) -> StoredAnswer {
        StoredAnswer {
            status: StatusCode::CREATED,
            json: Bytes::from_static(text.as_bytes()),
        }
    }

    async fn ask(
        cache: &IdempotencyCache,
        key: &str,
        body: &[u8],
        reply: Result<StoredAnswer, ApiError>,
    ) -> Result<StoredAnswer, ApiError> {
        cache
            .answer(Some(key.to_owned()), Sha256::digest(body), async {
                yield_now().await;
                reply
            })
            .await
    }

    #[tokio::test]
    async fn a_retry_is_answered_as_the_first_was() {
        let cache = IdempotencyCache::new(MAX_BYTES);
        assert_eq!(
            ask(&cache, "a", b"1", Ok(answer("first"))).await,
            Ok(answer("first"))
        );
        assert_eq!(
            ask(&cache, "a", b"1", Ok(answer("second"))).await,
            Ok(answer("first"))
        );
    }

    #[tokio::test]
    async fn a_key_used_for_another_request_is_refused() {
        let cache = IdempotencyCache::new(MAX_BYTES);
        ask(&cache, "a", b"1", Ok(answer("first"))).await.unwrap();
        let error = ask(&cache, "a", b"2", Ok(answer("second")))
            .await
            .unwrap_err();
        assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[tokio::test]
    async fn a_key_in_use_by_another_request_is_refused_whatever_becomes_of_that() {
        let cache = IdempotencyCache::new(MAX_BYTES);
        let bad = ApiError::invalid("x", "y", "z");
        for first in [Ok(answer("first")), Err(bad)] {
            let (a, b) = tokio::join!(
                ask(&cache, "a", b"1", first.clone()),
                ask(&cache, "a", b"2", Ok(answer("second")))
            );
            assert_eq!(a, first);
            assert_eq!(b.unwrap_err().status(), StatusCode::UNPROCESSABLE_ENTITY);
            cache.answers.invalidate("a").await;
        }
    }

    #[tokio::test]
    async fn a_failed_request_leaves_its_key_free_even_for_a_corrected_one() {
        let cache = IdempotencyCache::new(MAX_BYTES);
        let bad = ApiError::invalid("x", "y", "z");
        assert_eq!(ask(&cache, "a", b"1", Err(bad.clone())).await, Err(bad));
        assert_eq!(
            ask(&cache, "a", b"2", Ok(answer("good"))).await,
            Ok(answer("good"))
        );
    }

    #[tokio::test]
    async fn a_retry_takes_over_when_the_first_client_goes_away() {
        let cache = IdempotencyCache::new(MAX_BYTES);
        let key = || Some("a".to_owned());
        let mut first = Box::pin(cache.answer(key(), Sha256::digest(b"1"), std::future::pending()));
        let polled = futures::poll!(first.as_mut());
        assert!(polled.is_pending());
        let retry = ask(&cache, "a", b"1", Ok(answer("second")));
        let (retried, ()) = tokio::join!(retry, async { drop(first) });
        assert_eq!(retried, Ok(answer("second")));
    }

    #[tokio::test]
    async fn concurrent_retries_wait_for_the_first_and_do_not_work_again() {
        let (cache, works) = (IdempotencyCache::new(MAX_BYTES), AtomicUsize::new(0));
        let work = || {
            cache.answer(Some("a".to_owned()), Sha256::digest(b"1"), async {
                works.fetch_add(1, SeqCst);
                yield_now().await;
                Ok(answer("first"))
            })
        };
        let (a, b) = tokio::join!(work(), work());
        assert_eq!((a, b), (Ok(answer("first")), Ok(answer("first"))));
        assert_eq!(works.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn the_oldest_answers_are_dropped_beyond_the_maximum_of_bytes() {
        let of_two = 2 * ("a".len() + "first".len()) as u64;
        let cache = IdempotencyCache::new(of_two);
        for key in ["a", "b", "c"] {
            ask(&cache, key, b"1", Ok(answer("first"))).await.unwrap();
            cache.answers.run_pending_tasks().await;
        }
        assert_eq!(
            ask(&cache, "c", b"1", Ok(answer("again"))).await,
            Ok(answer("first"))
        );
        assert_eq!(
            ask(&cache, "a", b"1", Ok(answer("again"))).await,
            Ok(answer("again"))
        );
    }
}
