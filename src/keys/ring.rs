//! The keys that a running server accepts. They are read again twice a second, so that a request never waits for the database, and a key that
//! another process makes or revokes counts within a second.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Mutex;

use super::{Caller, KeyError, KeysConfig};
use crate::{
    db::{Db, DbError},
    telemetry::LogThrottle,
    types::Sha256,
};

/// How often the keys are read.
const INTERVAL: Duration = Duration::from_millis(500);

/// The keys of a running server; cheap to clone.
#[derive(Clone)]
pub struct Keys {
    ring: Arc<Ring>,
}

struct Ring {
    db: Db,
    config: KeysConfig,
    callers: RwLock<Vec<Caller>>,
    /// Whether requests need a key. It never turns false again: a server whose last key is revoked or expired must not become open.
    required: AtomicBool,
    stopped: AtomicBool,
    /// Held while the keys are read, so that an older reading never replaces a newer one.
    reading: Mutex<()>,
    errors: LogThrottle,
}

impl Keys {
    /// Reads the keys, and follows the database until the app stops.
    pub async fn start(db: Db, config: KeysConfig) -> Result<Self, DbError> {
        let keys = Self {
            ring: Arc::new(Ring {
                db,
                config,
                callers: RwLock::default(),
                required: AtomicBool::new(false),
                stopped: AtomicBool::new(false),
                reading: Mutex::default(),
                errors: LogThrottle::default(),
            }),
        };
        keys.refresh().await?;
        if keys.required() && !keys.any_usable() {
            tracing::warn!("every key is revoked or expired: `kith key create` makes another");
        }
        let followed = Arc::downgrade(&keys.ring);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                match followed.upgrade() {
                    Some(ring) if !ring.stopped.load(Ordering::Relaxed) => ring.tick().await,
                    _ => return,
                }
            }
        });
        Ok(keys)
    }

    /// Whether requests need a key: there is one, or ever was.
    pub fn required(&self) -> bool {
        self.ring.required.load(Ordering::Relaxed)
    }

    fn any_usable(&self) -> bool {
        let callers = self.ring.callers.read();
        let callers = callers.unwrap_or_else(PoisonError::into_inner);
        callers.iter().any(|caller| caller.check_usable().is_ok())
    }

    /// The holder of the key that a request carries.
    pub fn authenticate(&self, key: &str) -> Result<Caller, KeyError> {
        let hash = Sha256::digest(key.as_bytes());
        let callers = self.ring.callers.read();
        let callers = callers.unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        // All are compared, whichever matches.
        for caller in callers.iter() {
            if caller.has_hash(&hash).into() {
                found = Some(caller.clone());
            }
        }
        drop(callers);
        let caller = found.ok_or(KeyError::Unknown)?;
        caller.check_usable()?;
        Ok(caller)
    }

    /// Reads the keys now.
    pub async fn refresh(&self) -> Result<(), DbError> {
        self.ring.refresh().await
    }

    /// Ends the reading, before the database closes.
    pub(crate) fn stop(&self) {
        self.ring.stopped.store(true, Ordering::Relaxed);
    }
}

impl Ring {
    async fn tick(&self) {
        // The keys stay as they were read last.
        if let Err(error) = self.refresh().await
            && !self.stopped.load(Ordering::Relaxed)
            && let Some(left_out) = self.errors.ready()
        {
            tracing::error!(%error, left_out, "the keys cannot be read: new and revoked ones are not noticed");
        }
    }

    async fn refresh(&self) -> Result<(), DbError> {
        let _reading = self.reading.lock().await;
        let rows = self.db.keys_in_use().await?;
        let required =
            self.required.load(Ordering::Relaxed) || !rows.is_empty() || self.db.had_keys().await?;
        let before = self.callers.read();
        let before = before.unwrap_or_else(PoisonError::into_inner).clone();
        // A key that stays keeps what it has used of its limits.
        let kept = |id| before.iter().find(|caller| caller.id() == id).cloned();
        let now: Vec<Caller> = rows
            .into_iter()
            .map(|row| kept(row.id).unwrap_or_else(|| Caller::new(row, &self.config)))
            .collect();
        let lacks = |all: &[Caller], one: &&Caller| all.iter().all(|other| other.id() != one.id());
        for caller in now.iter().filter(|caller| lacks(&before, caller)) {
            tracing::info!(target: "audit", key_id = %caller.id(), key = caller.name(), scope = ?caller.scope(), "a key is accepted");
        }
        for caller in before.iter().filter(|caller| lacks(&now, caller)) {
            caller.revoke();
            tracing::info!(target: "audit", key_id = %caller.id(), key = caller.name(), "a key is revoked");
        }
        *self.callers.write().unwrap_or_else(PoisonError::into_inner) = now;
        self.required.store(required, Ordering::Relaxed);
        Ok(())
    }
}
