//! The address that a server would listen on.

use tokio::net::TcpListener;

use super::check::Check;
use crate::{app, config::Settings};

const NAME: &str = "address";

/// Whether the address is free and may be listened on. One in use may be the server that is looked at.
pub(super) async fn address(settings: &Settings) -> Check {
    let listen = &settings.server.listen;
    if let Err(error) = app::check_exposure(settings).await {
        return Check::problem(NAME, error.to_string(), "see docs/api.md, Keys");
    }
    match TcpListener::bind(listen).await {
        Ok(_) => Check::good(NAME, format!("{listen} is free")),
        Err(error) => Check::warning(
            NAME,
            format!("{listen} cannot be listened on: {error}"),
            "if that is not a running kith (kith health), choose another with --set server.listen=ADDRESS:PORT",
        ),
    }
}
