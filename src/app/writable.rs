//! Whether the data folder can be written. It is tried on demand, and the result is cached for a moment so that probes are cheap.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{blobs::Blobs, db::Db};

/// How long a result is cached.
const CACHED_FOR: Duration = Duration::from_secs(2);
/// How long a write may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Writes a little to the database and to the blob store; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Writable {
    db: Db,
    blobs: Blobs,
    last: Arc<Mutex<Option<Attempt>>>,
}

/// The last write.
#[derive(Debug)]
struct Attempt {
    at: Instant,
    result: Result<(), String>,
}

impl Writable {
    pub(super) fn new(db: Db, blobs: Blobs) -> Self {
        Self {
            db,
            blobs,
            last: Arc::default(),
        }
    }

    /// An error says why nothing can be written, in one sentence. Concurrent calls share one write.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some(attempt) = &*last
            && attempt.at.elapsed() < CACHED_FOR
        {
            return attempt.result.clone();
        }
        let result = match timeout(TIMEOUT, self.write()).await {
            Ok(result) => result,
            Err(_) => Err(format!(
                "the data folder took no write within {} seconds",
                TIMEOUT.as_secs()
            )),
        };
        *last = Some(Attempt {
            at: Instant::now(),
            result: result.clone(),
        });
        result
    }

    async fn write(&self) -> Result<(), String> {
        let refused =
            |error: &dyn std::error::Error| format!("the data folder takes no write: {error}");
        self.blobs
            .probe_write()
            .await
            .map_err(|error| refused(&error))?;
        self.db.probe_write().await.map_err(|error| refused(&error))
    }
}
