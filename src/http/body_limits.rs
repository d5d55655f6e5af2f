//! Limits on request bodies while they arrive. A declared length that cannot be accepted is refused before anything is read; then bytes are
//! counted, charged to the [`BodyBudget`] and awaited for a limited time. A body that breaks a limit fails with a [`BodyError`].

use std::{
    error::Error,
    future::pending,
    pin::Pin,
    task::{Context as Task, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, header::CONTENT_LENGTH},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use tokio::{
    sync::watch,
    time::{Sleep, sleep},
};

use super::{
    activity::Activity,
    body_budget::{BodyBudget, BodyPermit},
    body_error::BodyError,
    error::{ApiError, Problem},
    media::MediaType,
};

/// How long a body may still arrive once the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The limits of all bodies; cheap to clone.
#[derive(Clone)]
pub(super) struct BodyLimits {
    pub(super) budget: BodyBudget,
    /// Most bytes of a body that is not a stream, after decompression.
    pub(super) max_bytes: usize,
    /// Longest wait for the next bytes.
    pub(super) timeout: Duration,
    /// Turns true when the server begins to stop.
    pub(super) stopping: watch::Receiver<bool>,
}

/// Refuses a declared length that cannot be accepted: the body is not read, and no `100 Continue` asks for it.
pub(super) async fn check_length(
    State(limits): State<BodyLimits>,
    request: Request,
    next: Next,
) -> Response {
    let declared = request.headers().get(CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let checked = match declared {
        Some(bytes) if !is_stream(request.headers()) => limits.check(bytes),
        _ => Ok(()),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Puts the limits around the decompressed body. Its permit lasts until the answer, or as long as a stream keeps a clone.
pub(super) async fn limit_body(
    State(limits): State<BodyLimits>,
    mut request: Request,
    next: Next,
) -> Response {
    let permit = limits.budget.permit();
    request.extensions_mut().insert(permit.clone());
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let stream = is_stream(&parts.headers);
    let body = LimitedBody {
        body,
        activity: parts.extensions.get().cloned(),
        permit: permit.clone(),
        remaining: (!stream).then_some(limits.max_bytes),
        // The reader of a stream has its own timeout, and ends the answer with a line that says so.
        timeout: (!stream).then_some(limits.timeout),
        timer: None,
        stop: Box::pin(stopped(limits.stopping)),
    };
    let response = next.run(Request::from_parts(parts, Body::new(body))).await;
    drop(permit);
    response
}

/// Whether the body is read line by line, with limits on each line in place of the whole.
fn is_stream(headers: &HeaderMap) -> bool {
    MediaType::from_headers(headers) == Some(MediaType::Ndjson)
}

impl BodyLimits {
    fn check(&self, bytes: u64) -> Result<(), ApiError> {
        if bytes > self.max_bytes as u64 {
            return Err(ApiError::body_too_large());
        }
        self.budget.check(bytes)
    }
}

/// Ready a moment after the server began to stop.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_ok() {
        sleep(STOP_GRACE).await;
    } else {
        // Without a sender the server never stops.
        pending::<()>().await;
    }
}

struct LimitedBody {
    body: Body,
    /// `None` without a connection, as in tests.
    activity: Option<Activity>,
    permit: BodyPermit,
    /// Bytes that may still come; `None` for a stream.
    remaining: Option<usize>,
    timeout: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl LimitedBody {
    /// Counts and charges bytes that have arrived.
    fn count(&mut self, bytes: usize) -> Result<(), ApiError> {
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining
                .checked_sub(bytes)
                .ok_or_else(ApiError::body_too_large)?;
        }
        self.permit.acquire(bytes)
    }

    /// The next bytes have not come: the connection and the bytes so far may have to go for others.
    fn stall(&self, task: &mut Task<'_>) {
        self.permit.stall(task.waker());
        if let Some(activity) = &self.activity {
            activity.set_stalled(true);
        }
    }

    fn resume(&self) {
        self.permit.resume();
        if let Some(activity) = &self.activity {
            activity.set_stalled(false);
        }
    }

    /// Why the wait for the next bytes is over, if it is.
    fn poll_expired(&mut self, task: &mut Task<'_>) -> Option<ApiError> {
        if let Some(timeout) = self.timeout {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
            if timer.as_mut().poll(task).is_ready() {
                let message = "no bytes of the body came for server.body_timeout_seconds: send the body without pauses";
                return Some(ApiError::Timeout(Problem::new("timeout", message)));
            }
        }
        let stop = self.stop.as_mut().poll(task);
        stop.is_ready().then(ApiError::stopping)
    }
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // Whatever comes after an eviction: the bytes before it are no longer charged.
        if self.permit.is_evicted() {
            let message =
                "the body stalled while others waited for memory: send the body without pauses";
            let error = ApiError::Timeout(Problem::new("timeout", message));
            return Poll::Ready(Some(Err(BodyError::from(error).into())));
        }
        let frame = match Pin::new(&mut self.body).poll_frame(task) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                self.stall(task);
                return match self.poll_expired(task) {
                    Some(error) => Poll::Ready(Some(Err(BodyError::from(error).into()))),
                    None => Poll::Pending,
                };
            }
        };
        self.timer = None;
        self.resume();
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        match self.count(bytes) {
            Ok(()) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Err(error) => Poll::Ready(Some(Err(BodyError::from(error).into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
