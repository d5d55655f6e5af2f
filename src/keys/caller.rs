//! The holder of a key who sends a request.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use subtle::{Choice, ConstantTimeEq};
use uuid::Uuid;

use super::{Exhausted, KeyError, KeyRow, KeysConfig, Scope, limits::Limits};
use crate::types::Sha256;

/// A key in use, shared by all its requests; cheap to clone.
#[derive(Clone)]
pub struct Caller {
    key: Arc<Key>,
}

struct Key {
    row: KeyRow,
    revoked: AtomicBool,
    limits: Limits,
}

impl Caller {
    pub(super) fn new(row: KeyRow, config: &KeysConfig) -> Self {
        Self {
            key: Arc::new(Key {
                row,
                revoked: AtomicBool::new(false),
                limits: Limits::new(config),
            }),
        }
    }

    /// The key's id.
    pub fn id(&self) -> Uuid {
        self.key.row.id
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.key.row.name
    }

    /// Whether the key has `scope`, or one that includes it.
    pub fn may(&self, scope: Scope) -> bool {
        self.scope() >= scope
    }

    /// The key's scope.
    pub fn scope(&self) -> Scope {
        self.key.row.scope
    }

    /// An error once the key is revoked or expired. A long stream asks again and again.
    pub fn check_usable(&self) -> Result<(), KeyError> {
        if self.key.revoked.load(Ordering::Relaxed) {
            return Err(KeyError::Unknown);
        }
        match self.key.row.expires_at {
            Some(at) if at <= Timestamp::now() => Err(KeyError::Expired(at)),
            _ => Ok(()),
        }
    }

    /// Counts a request.
    pub fn count_request(&self) -> Result<(), Exhausted> {
        self.key.limits.count_request()
    }

    /// Counts the first bytes of a body, of which `declared` are announced: an error if so many are not left.
    pub fn begin_body(&self, declared: Option<u64>) -> Result<(), Exhausted> {
        self.key.limits.begin_body(declared)
    }

    /// Counts the bytes of a body from `before` to `after`, which [`Self::begin_body`] began.
    pub fn count_bytes(&self, before: u64, after: u64) -> Result<(), Exhausted> {
        self.key.limits.count_bytes(before, after)
    }

    /// Whether the key's text has this hash, in a time that does not depend on either.
    pub(super) fn has_hash(&self, hash: &Sha256) -> Choice {
        self.key.row.sha256.as_bytes().ct_eq(hash.as_bytes())
    }

    pub(super) fn revoke(&self) {
        self.key.revoked.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.id())
    }
}
