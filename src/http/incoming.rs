//! Request bodies on their way in: an impossible length is refused before anything is read, then bytes are counted, charged and awaited
//! only so long. A body that breaks a bound fails with the answer that the caller gets.

use std::{
    error::Error,
    fmt,
    future::pending,
    pin::Pin,
    task::{Context as Task, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::header::CONTENT_LENGTH,
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
    budget::{Budget, Charge},
    error::{ApiError, Problem},
    extract::too_large,
    mapping::stopping,
    ndjson,
};

/// How long a body may still arrive once the server stops.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// The bounds of all bodies; cheap to clone.
#[derive(Clone)]
pub(super) struct Bounds {
    pub(super) budget: Budget,
    /// Most bytes of a body that is no stream, after inflating.
    pub(super) max_bytes: usize,
    /// How long the next bytes may take.
    pub(super) patience: Duration,
    /// Turns true when the server begins to stop.
    pub(super) stopping: watch::Receiver<bool>,
}

/// Refuses a declared length that cannot be taken: the body is not read, and no `100 Continue` asks for it.
pub(super) async fn check_length(
    State(bounds): State<Bounds>,
    request: Request,
    next: Next,
) -> Response {
    let declared = request.headers().get(CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let stream = ndjson::is_stream(request.headers());
    let checked = match declared {
        Some(bytes) if !stream && bytes > bounds.max_bytes as u64 => Err(too_large()),
        Some(bytes) if !stream => bounds.budget.check(bytes),
        _ => Ok(()),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Puts the bounds around the (inflated) body. Its charge lasts until the answer, or as long as a stream keeps a clone.
pub(super) async fn bound_body(
    State(bounds): State<Bounds>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        let mut request = request;
        request.extensions_mut().insert(bounds.budget.open());
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let charge = bounds.budget.open();
    parts.extensions.insert(charge.clone());
    let stream = ndjson::is_stream(&parts.headers);
    let body = Bounded {
        body,
        activity: parts.extensions.get().cloned(),
        charge: charge.clone(),
        left: (!stream).then_some(bounds.max_bytes),
        // A stream's own reader says how long it waits, and ends with a line that says why.
        patience: (!stream).then_some(bounds.patience),
        timer: None,
        stop: Box::pin(stopped(bounds.stopping)),
    };
    let response = next.run(Request::from_parts(parts, Body::new(body))).await;
    drop(charge);
    response
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    let stops = stopping.wait_for(|stop| *stop).await.is_ok();
    if stops {
        sleep(LAST_BYTES).await;
    } else {
        // Nobody can make the server stop.
        pending::<()>().await;
    }
}

struct Bounded {
    body: Body,
    /// The connection's, where there is one. A stream may pause: its reader says how long.
    activity: Option<Activity>,
    charge: Charge,
    left: Option<usize>,
    patience: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Bounded {
    /// Counts and charges what has arrived.
    fn take(&mut self, bytes: usize) -> Result<(), ApiError> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(bytes).ok_or_else(too_large)?;
        }
        self.charge.add(bytes)
    }

    fn set_starved(&self, starved: bool) {
        if let Some(activity) = &self.activity {
            activity.set_starved(starved);
        }
    }

    /// Why waiting is over, if it is.
    fn impatient(&mut self, task: &mut Task<'_>) -> Option<ApiError> {
        if let Some(patience) = self.patience {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
            if timer.as_mut().poll(task).is_ready() {
                let message =
                    "no byte of the body came for server.body_timeout_seconds: send it in one go";
                return Some(ApiError::Timeout(Problem::new("timeout", message)));
            }
        }
        let stop = self.stop.as_mut().poll(task);
        stop.is_ready().then(stopping)
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(task) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                self.set_starved(self.patience.is_some());
                return match self.impatient(task) {
                    Some(error) => Poll::Ready(Some(Err(BodyError(error).into()))),
                    None => Poll::Pending,
                };
            }
        };
        self.timer = None;
        self.set_starved(false);
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        match self.take(bytes) {
            Ok(()) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Err(error) => Poll::Ready(Some(Err(BodyError(error).into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A bound that a body broke, on its way through libraries that know only errors.
#[derive(Debug)]
struct BodyError(ApiError);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.problem().message)
    }
}

impl Error for BodyError {}

/// The answer inside an error that a body gave, whatever libraries wrapped around it.
pub(super) fn refusal(error: &(dyn Error + 'static)) -> Option<ApiError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(BodyError(refusal)) = error.downcast_ref() {
            return Some(refusal.clone());
        }
        next = error.source();
    }
    None
}
