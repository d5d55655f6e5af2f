//! Refuses to listen where other machines could reach the server without authentication.

use std::net::{SocketAddr, ToSocketAddrs};

use super::error::StartError;
use crate::config::ServerConfig;

/// Refuses an address that other machines can reach, unless the settings allow it: there are no API keys.
pub fn check_exposure(server: &ServerConfig) -> Result<(), StartError> {
    let listen = &server.listen;
    let addresses: Vec<SocketAddr> = listen
        .to_socket_addrs()
        .map_err(|error| {
            StartError(format!(
                "server.listen {listen} is not an address ({error}): set one such as 127.0.0.1:7700"
            ))
        })?
        .collect();
    if server.insecure || addresses.iter().all(is_loopback) {
        return Ok(());
    }
    Err(StartError(format!(
        "{listen} can be reached from other machines and kith has no API keys: listen on 127.0.0.1 behind a proxy that \
         authenticates callers, or allow it with --insecure"
    )))
}

/// `::ffff:127.0.0.1` is 127.0.0.1 written as IPv6.
fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
