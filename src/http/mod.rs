//! The HTTP interface: routes, extractors, errors.
//! Must never know: how anything is done; a handler extracts, calls one room and responds. Only room that uses `axum` and `tower`.

use std::future::Future;

use tokio::net::TcpListener;

use crate::app::{App, StartError};

/// Serves until `shutdown` is ready, then answers what was accepted and stops the app, within `server.grace_seconds`.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let _ = (listener, app, shutdown);
    todo!()
}
