//! Refuses to listen where other machines could reach the server without a key.

use std::net::{SocketAddr, ToSocketAddrs};

use super::{error::StartError, folder::had_keys};
use crate::config::Settings;

/// Refuses an address that other machines can reach, unless requests need a key or the settings allow it.
pub async fn check_exposure(settings: &Settings) -> Result<(), StartError> {
    let server = &settings.server;
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
    let folder = &settings.storage.data_dir;
    // A folder that ever had a key needs one, even if the last is revoked.
    if had_keys(folder).await? {
        return Ok(());
    }
    let folder = folder.display();
    Err(StartError(format!(
        "{listen} can be reached from other machines and there is no key: make one with `kith key create --data-dir {folder} --name NAME \
         --scope admin`, listen on 127.0.0.1, or allow it with --insecure"
    )))
}

/// `::ffff:127.0.0.1` is 127.0.0.1 written as IPv6.
fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
