//! What one connection is doing: waiting for a request, working on one, or blocked because its client does not read.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as Task, Poll},
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// Shared by a connection's socket, its requests, and the server that may close it; cheap to clone.
#[derive(Clone)]
pub(super) struct Activity {
    state: Arc<Mutex<State>>,
    close: Arc<Notify>,
}

struct State {
    /// Requests whose answer is not handed over to the socket yet.
    open: u32,
    /// Requests so far.
    begun: u64,
    /// Since when no request is open.
    waiting_since: Instant,
    /// Since when the socket takes nothing more.
    blocked_since: Option<Instant>,
    /// Since when the next bytes of a body have not come.
    starved_since: Option<Instant>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                open: 0,
                begun: 0,
                waiting_since: Instant::now(),
                blocked_since: None,
                starved_since: None,
            })),
            close: Arc::default(),
        }
    }

    /// A request begins; it is open until the guard goes.
    pub(super) fn begin(&self) -> OpenRequest {
        let mut state = self.state();
        state.open += 1;
        state.begun += 1;
        OpenRequest(self.clone())
    }

    /// Number of the request that is waited for; `None` while one is open.
    pub(super) fn awaited(&self) -> Option<u64> {
        let state = self.state();
        (state.open == 0).then_some(state.begun)
    }

    /// Since when there is nothing to do here; `None` while a request is open or an answer not sent.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.open == 0 && state.blocked_since.is_none()).then_some(state.waiting_since)
    }

    /// Since when a request's body does not go on.
    pub(super) fn starved_since(&self) -> Option<Instant> {
        self.state().starved_since
    }

    /// The next bytes of a body have not come, or they have.
    pub(super) fn set_starved(&self, starved: bool) {
        let since = &mut self.state().starved_since;
        *since = starved.then(|| since.unwrap_or_else(Instant::now));
    }

    /// Whether the client has read nothing for so long.
    pub(super) fn is_blocked_for(&self, time: Duration) -> bool {
        let since = self.state().blocked_since;
        since.is_some_and(|since| since.elapsed() >= time)
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        let since = blocked.then(Instant::now);
        self.state().blocked_since = since;
    }

    /// Asks the connection to end if nothing goes on.
    pub(super) fn close(&self) {
        self.close.notify_one();
    }

    /// Ready when [`Activity::close`] was called.
    pub(super) async fn closing(&self) {
        self.close.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single step, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a request open.
pub(super) struct OpenRequest(Activity);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        state.starved_since = None;
        state.waiting_since = Instant::now();
    }
}

/// An answer's body that keeps its request open until all of it is handed over.
pub(super) struct Tracked {
    body: Body,
    _request: OpenRequest,
}

impl Tracked {
    pub(super) fn new(body: Body, request: OpenRequest) -> Self {
        Self {
            body,
            _request: request,
        }
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
