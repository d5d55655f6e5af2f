//! API keys: making and revoking them, and the keys that a running server accepts, which follow the database.

mod caller;
mod error;
mod limits;
mod manage;
mod ring;
mod secret;

use serde::{Deserialize, Serialize};

pub use self::{
    caller::Caller,
    error::KeyError,
    limits::Exhausted,
    manage::{NewKey, create, find, revoke},
    ring::Keys,
    secret::Secret,
};
pub use crate::db::{KeyRow, Scope};

/// `[keys]`: what each key may use. Counted in memory, from the server's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// Most requests a minute; 0: no limit.
    pub requests_per_minute: u32,
    /// Most bytes of bodies a day; 0: no limit.
    pub bytes_per_day: u64,
}
