//! The state of one connection: idle, working on a request, waiting for a body, or blocked because its client does not read.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as Task, Poll},
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// Shared by a connection's socket, its requests, and the server, which may close it; cheap to clone.
#[derive(Clone)]
pub(super) struct Activity {
    state: Arc<Mutex<State>>,
    close: Arc<Notify>,
}

struct State {
    /// Requests whose answer is not completely written to the socket yet.
    open: u32,
    /// Requests so far, open ones included.
    begun: u64,
    /// When the last request ended, or the connection began.
    idle_since: Instant,
    /// When the socket stopped taking bytes, if it has.
    blocked_since: Option<Instant>,
    /// When the body that is being read stopped arriving, if it has.
    stalled_since: Option<Instant>,
    http2: bool,
    /// Answers whose next bytes are not asked for, by request, and since when.
    unread: HashMap<u64, Instant>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                open: 0,
                begun: 0,
                idle_since: Instant::now(),
                blocked_since: None,
                stalled_since: None,
                http2: false,
                unread: HashMap::new(),
            })),
            close: Arc::default(),
        }
    }

    /// Begins a request, which is open until the guard is dropped.
    pub(super) fn begin(&self) -> OpenRequest {
        let mut state = self.state();
        state.open += 1;
        state.begun += 1;
        OpenRequest {
            activity: self.clone(),
            number: state.begun,
        }
    }

    /// The number of the next request, counted from 0; `None` while a request is open.
    pub(super) fn next_request(&self) -> Option<u64> {
        let state = self.state();
        (state.open == 0).then_some(state.begun)
    }

    /// Since when the connection has been idle; `None` while a request is open or bytes of an answer are unsent.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.open == 0 && state.blocked_since.is_none()).then_some(state.idle_since)
    }

    /// Since when the body of the only request has not arrived; `None` unless it is awaited.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let state = self.state();
        state.stalled_since.filter(|_| state.open == 1)
    }

    /// Notes that the client speaks HTTP/2.
    pub(super) fn set_http2(&self) {
        self.state().http2 = true;
    }

    /// Whether an answer's client has made no room for its next bytes for at least `time`. In HTTP/2 the connection goes on although one
    /// of its answers is not read; in HTTP/1.1 the socket tells: [`Activity::is_blocked_for`].
    pub(super) fn is_unread_for(&self, time: Duration) -> bool {
        let state = self.state();
        state.http2 && state.unread.values().any(|since| since.elapsed() >= time)
    }

    /// Notes whether the next bytes of a body are awaited.
    pub(super) fn set_stalled(&self, stalled: bool) {
        let since = &mut self.state().stalled_since;
        *since = stalled.then(|| since.unwrap_or_else(Instant::now));
    }

    /// Whether the client has read nothing for at least `time`.
    pub(super) fn is_blocked_for(&self, time: Duration) -> bool {
        let since = self.state().blocked_since;
        since.is_some_and(|since| since.elapsed() >= time)
    }

    /// Notes whether the socket takes bytes.
    pub(super) fn set_blocked(&self, blocked: bool) {
        let since = blocked.then(Instant::now);
        self.state().blocked_since = since;
    }

    /// Asks the connection to close if it is idle or waits for a body.
    pub(super) fn close(&self) {
        self.close.notify_one();
    }

    /// Waits until [`Activity::close`] is called.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single step, so a poisoned lock still guards valid state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a request open until it is dropped.
pub(super) struct OpenRequest {
    activity: Activity,
    number: u64,
}

impl OpenRequest {
    /// Notes whether bytes of the answer wait for the client to make room.
    fn set_unread(&self, unread: bool) {
        let state = &mut self.activity.state();
        if unread {
            state.unread.insert(self.number, Instant::now());
        } else {
            state.unread.remove(&self.number);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.open -= 1;
        state.stalled_since = None;
        state.idle_since = Instant::now();
        state.unread.remove(&self.number);
    }
}

/// An answer's body that keeps its request open until all of it is written.
pub(super) struct TrackedBody {
    body: Body,
    request: OpenRequest,
}

impl TrackedBody {
    pub(super) fn new(body: Body, request: OpenRequest) -> Self {
        Self { body, request }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(task);
        // Until it is asked for the next.
        self.request.set_unread(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
