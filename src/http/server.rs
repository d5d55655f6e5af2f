//! The server: routes put together, a listener served until told to stop, then everything stopped in order and in time.

use std::time::Duration;

use axum::{Router, middleware::from_fn};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    aliases, checkpoints, connections::Connections, context::Context, embeddings, health, images,
    incoming::Bounds, middleware, models, pairs, query, training, transport::Patience,
};
use crate::app::{App, StartError};

/// All routes over `app`, for a caller that brings its own transport.
pub fn router(app: App) -> Router {
    // Without its sender the receiver says "not stopping" forever.
    routes(Context::new(app, watch::channel(false).1))
}

fn routes(context: Context) -> Router {
    let settings = context.app.settings.clone();
    let bounds = Bounds {
        budget: context.budget.clone(),
        max_bytes: settings.server.max_body_bytes,
        patience: Duration::from_secs(settings.server.body_timeout_seconds),
        stopping: context.stopping.clone(),
    };
    let routes = Router::new()
        .merge(embeddings::router())
        .merge(models::router())
        .merge(images::router())
        .merge(pairs::router())
        .merge(training::router())
        .merge(checkpoints::router())
        .merge(aliases::router())
        .merge(health::router())
        .layer(from_fn(query::refuse_unread))
        .with_state(context);
    middleware::apply_layers(routes, bounds, &settings.server)
}

/// Serves until `shutdown` is ready, then answers what was accepted and stops the app, within `server.grace_seconds`.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let server = &app.settings.server;
    let grace = Duration::from_secs(server.grace_seconds);
    let (stop, stopping) = watch::channel(false);
    let (patience, max) = (Patience::new(server), server.max_connections);
    let routes = routes(Context::new(app.clone(), stopping.clone()));
    let connections = Connections::new(routes, patience, max, stopping);
    let mut server = tokio::spawn(connections.serve(listener));
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
