//! The state that handlers share: the app, the idempotency cache and the budget of body bytes, and the gauges of `/metrics`.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::{Semaphore, watch};

use super::{body_budget::BodyBudget, gauges::StateGauges, idempotency::IdempotencyCache};
use crate::app::App;

/// Most bytes of answers that are kept for retries with an `Idempotency-Key`.
const MAX_IDEMPOTENCY_BYTES: u64 = 16 << 20;

/// Most clients that watch events at once.
pub(super) const MAX_WATCHERS: usize = 64;

/// The state of the routers; cheap to clone.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) app: App,
    pub(super) idempotency: Arc<IdempotencyCache>,
    pub(super) budget: BodyBudget,
    pub(super) gauges: Arc<StateGauges>,
    /// Places for clients that watch events.
    pub(super) watchers: Arc<Semaphore>,
    /// Turns true when the server begins to stop.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Context {
    pub(super) fn new(app: App, stopping: watch::Receiver<bool>) -> Self {
        let server = &app.settings.server;
        Self {
            idempotency: Arc::new(IdempotencyCache::new(MAX_IDEMPOTENCY_BYTES)),
            budget: BodyBudget::new(server.max_buffered_bytes),
            gauges: Arc::new(StateGauges::new(&app)),
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
            app,
            stopping,
        }
    }
}

impl FromRef<Context> for App {
    fn from_ref(context: &Context) -> Self {
        context.app.clone()
    }
}
