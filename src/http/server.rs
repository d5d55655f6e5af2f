//! The server: routes put together, a listener served until told to stop, then everything stopped in order and in time.
//! Must never know: signals; the caller brings the listener and the wish to stop.

use std::time::Duration;

use axum::{Router, extract::DefaultBodyLimit};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    checkpoints, context::Context, embeddings, health, images, middleware, models, pairs, training,
};
use crate::app::{App, StartError};

/// All routes over `app`, for a caller that brings its own transport.
pub fn router(app: App) -> Router {
    // Without its sender the receiver says "not stopping" forever.
    routes(Context::new(app, watch::channel(false).1))
}

fn routes(context: Context) -> Router {
    let server = &context.app.settings.server;
    let timeout = Duration::from_secs(server.timeout_seconds);
    let (limit, budget) = (server.max_body_bytes, context.budget.clone());
    let routes = Router::new()
        .merge(embeddings::router())
        .merge(models::router())
        .merge(images::router())
        .merge(pairs::router())
        .merge(training::router())
        .merge(checkpoints::router())
        .merge(health::router())
        .layer(DefaultBodyLimit::max(limit))
        .with_state(context);
    middleware::surround(routes, budget, timeout)
}

/// Serves until `shutdown` is ready, then answers what was accepted and stops the app, within `server.grace_seconds`.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let grace = Duration::from_secs(app.settings.server.grace_seconds);
    let (stop, stopping) = watch::channel(false);
    let mut stopped = stopping.clone();
    let server = axum::serve(listener, routes(Context::new(app.clone(), stopping)))
        .with_graceful_shutdown(async move {
            // An error means that the sender is gone, which is a wish to stop, too.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
    let mut server = tokio::spawn(server.into_future());
    shutdown.await;
    tracing::info!(grace_seconds = grace.as_secs(), "stopping");
    let now = Instant::now();
    stop.send_replace(true);
    // Half of the time for open requests, so that the snapshot has the other half whatever clients do.
    if timeout_at(now + grace / 2, &mut server).await.is_err() {
        tracing::warn!("requests were cut off: they took longer than half of server.grace_seconds");
        server.abort();
    }
    timeout_at(now + grace, app.stop()).await.map_err(|_| {
        StartError("stopping took longer than server.grace_seconds: the last complete snapshot stands; raise it".to_owned())
    })?
}
