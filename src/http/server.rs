//! The server: combines the routes, serves a listener until shutdown, then stops the app within the grace period.

use std::time::Duration;

use axum::{Extension, Router, middleware::from_fn_with_state};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, timeout_at},
};
use utoipa_axum::router::OpenApiRouter;

use super::{
    aliases,
    auth::Guard,
    body_limits::BodyLimits,
    checkpoints,
    connections::Connections,
    context::Context,
    dashboard, embeddings, events, health, history, images, load, map,
    measure::Requests,
    middleware, models,
    openapi::{self, Documents},
    pairs, prometheus,
    query_guard::{Operations, check_query},
    search, training,
    transport::Timeouts,
};
use crate::app::{App, StartError};

/// All routes of `app`, for a caller with its own transport.
pub fn router(app: App) -> Router {
    // Without its sender the receiver says "not stopping" forever.
    routes(Context::new(app, watch::channel(false).1))
}

fn routes(context: Context) -> Router {
    let settings = context.app.settings.clone();
    let guard = Guard {
        keys: context.app.keys.clone(),
        open_metrics: !settings.server.metrics_key,
    };
    let requests = Requests::new(&context.app.metrics);
    let limits = BodyLimits {
        budget: context.budget.clone(),
        max_bytes: settings.server.max_body_bytes,
        timeout: Duration::from_secs(settings.server.body_timeout_seconds),
        stopping: context.stopping.clone(),
    };
    let routes = OpenApiRouter::with_openapi(openapi::base())
        .merge(embeddings::router())
        .merge(models::router())
        .merge(images::router())
        .merge(pairs::router())
        .merge(search::router())
        .merge(map::router())
        .merge(training::router())
        .merge(checkpoints::router())
        .merge(aliases::router())
        .merge(events::router())
        .merge(history::router());
    // A supervisor's question is answered however much there is to do.
    let always = OpenApiRouter::new()
        .merge(dashboard::router())
        .merge(health::router())
        .merge(prometheus::router())
        .merge(openapi::router());
    let (routes, mut api) = routes.split_for_parts();
    let (always, more) = always.split_for_parts();
    api.merge(more);
    let documents = Documents::new(&api, guard.open_metrics);
    let operations = Operations::new(&api);
    let routes = load::limit_requests(routes, settings.server.max_requests)
        .merge(always)
        .layer(Extension(documents))
        .layer(from_fn_with_state(operations, check_query))
        .with_state(context);
    middleware::apply_layers(routes, limits, guard, requests, &settings.server)
}

/// Serves until `shutdown` is ready, then answers the open requests and stops the app, within `server.grace_seconds`.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let server = &app.settings.server;
    let grace = Duration::from_secs(server.grace_seconds);
    let (stop, stopping) = watch::channel(false);
    let (timeouts, max_connections) = (Timeouts::new(server), server.max_connections);
    let routes = routes(Context::new(app.clone(), stopping.clone()));
    let connections = Connections::new(routes, timeouts, max_connections, &app.metrics, stopping);
    let mut server = tokio::spawn(connections.serve(listener));
    shutdown.await;
    tracing::info!(grace_seconds = grace.as_secs(), "stopping");
    let now = Instant::now();
    stop.send_replace(true);
    // Open requests have half of the time, so that slow clients leave the other half for the snapshot.
    if timeout_at(now + grace / 2, &mut server).await.is_err() {
        tracing::warn!(
            "open requests were aborted: they took longer than half of server.grace_seconds"
        );
        server.abort();
    }
    timeout_at(now + grace, app.stop()).await.map_err(|_| {
        StartError("stopping took longer than server.grace_seconds: raise it; training resumes from the last complete snapshot".to_owned())
    })?
}
