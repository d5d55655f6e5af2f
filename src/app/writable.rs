//! Whether the data folder takes writes: tried when asked, and remembered for a moment so that probes cost nothing.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{blobs::Blobs, db::Db};

/// How long an answer holds.
const FRESH: Duration = Duration::from_secs(2);
/// How long a try may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries a small write to the database and to the blob store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Writable {
    db: Db,
    blobs: Blobs,
    last: Arc<Mutex<Option<Tried>>>,
}

/// The last try: when, and why it failed if it did.
type Tried = (Instant, Result<(), String>);

impl Writable {
    pub(super) fn new(db: Db, blobs: Blobs) -> Self {
        Self {
            db,
            blobs,
            last: Arc::default(),
        }
    }

    /// Why nothing can be written, in one sentence. Those who ask at the same time share one try.
    pub async fn check(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = match timeout(PATIENCE, self.attempt()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!(
                "the data folder took no write within {} seconds",
                PATIENCE.as_secs()
            )),
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn attempt(&self) -> Result<(), String> {
        let refused =
            |error: &dyn std::error::Error| format!("the data folder takes no write: {error}");
        self.blobs
            .probe_write()
            .await
            .map_err(|error| refused(&error))?;
        self.db.probe_write().await.map_err(|error| refused(&error))
    }
}
