//! What handlers share: the app, and the HTTP side's own bounded state.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::watch;

use super::{budget::Budget, idempotency::Idempotency};
use crate::app::App;

/// Answers kept for retries with an `Idempotency-Key`.
const KEPT_ANSWERS: usize = 1000;

/// The routers' state; cheap to clone.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) app: App,
    pub(super) idempotency: Arc<Idempotency>,
    pub(super) budget: Budget,
    /// Turns true when the server begins to stop.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Context {
    pub(super) fn new(app: App, stopping: watch::Receiver<bool>) -> Self {
        let server = &app.settings.server;
        Self {
            idempotency: Arc::new(Idempotency::new(KEPT_ANSWERS)),
            budget: Budget::new(server.max_buffered_bytes),
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
