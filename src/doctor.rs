//! Looks at a machine, the settings and a data folder before a server needs them, and says what to change.

mod check;
mod folder;
mod machine;
mod network;

pub use check::{Check, State};

use crate::config::Settings;

/// All checks, in an order for reading. Nothing is changed; a server may be using the folder.
pub async fn examine(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![
        machine::processor(settings),
        machine::device(settings),
        machine::memory(settings),
        machine::open_files(settings),
    ];
    checks.extend(folder::examine(settings).await);
    checks.push(network::address(settings).await);
    checks
}
