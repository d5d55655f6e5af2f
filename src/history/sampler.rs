//! Takes a sample at intervals.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::{
    latency::Buckets,
    sample::{HistoryConfig, Sample},
};
use crate::{
    db::{Db, DbError},
    disk,
    foreground::Foreground,
    serve::Serving,
    telemetry::{LogThrottle, Metrics},
    train::Trainer,
};

/// Most samples of an answer; a longer history is thinned.
const MAX_SAMPLES: u32 = 1000;

/// What is sampled.
pub struct Sources {
    /// Where samples are kept.
    pub db: Db,
    /// The serving side.
    pub serving: Serving,
    /// The training side.
    pub trainer: Trainer,
    /// The requests that training pauses for.
    pub foreground: Foreground,
    /// The series of the server.
    pub metrics: Metrics,
    /// The data folder.
    pub data_dir: PathBuf,
}

/// Handle to the history; cheap to clone.
#[derive(Clone)]
pub struct History {
    db: Db,
    /// `None`: no samples are taken.
    sampling: Option<Arc<JoinHandle<()>>>,
}

/// What a sample is compared with.
struct Before {
    at: Instant,
    latency: Buckets,
    paused: Duration,
}

impl History {
    /// Begins to sample, unless the settings say not to.
    pub fn start(config: HistoryConfig, sources: Sources) -> Self {
        let db = sources.db.clone();
        let sampling = (config.every_seconds > 0)
            .then(|| Arc::new(tokio::spawn(sample_always(config, sources))));
        Self { db, sampling }
    }

    /// Takes no more samples.
    pub fn stop(&self) {
        if let Some(sampling) = &self.sampling {
            sampling.abort();
        }
    }

    /// The samples since a moment, the oldest first, thinned evenly above 1,000.
    ///
    /// # Errors
    /// [`DbError`] if they cannot be read.
    pub async fn since(&self, since: Timestamp) -> Result<Vec<Sample>, DbError> {
        let rows = self
            .db
            .history_since(since.as_second(), MAX_SAMPLES)
            .await?;
        // One of an older version may lack a figure: it is left out.
        let samples = rows.iter().filter_map(|row| serde_json::from_str(row).ok());
        Ok(samples.collect())
    }
}

async fn sample_always(config: HistoryConfig, sources: Sources) {
    let errors = LogThrottle::default();
    let mut before = look(&sources);
    loop {
        tokio::time::sleep(Duration::from_secs(config.every_seconds)).await;
        let now = look(&sources);
        let stored = store(&sources, &before, &now, config.days).await;
        if let Err(error) = stored
            && let Some(left_out) = errors.ready()
        {
            tracing::warn!(%error, left_out, "a sample of the history cannot be stored");
        }
        before = now;
    }
}

fn look(sources: &Sources) -> Before {
    Before {
        at: Instant::now(),
        latency: Buckets::read(&sources.metrics.render()),
        paused: sources.foreground.paused(),
    }
}

async fn store(sources: &Sources, before: &Before, now: &Before, days: u32) -> Result<(), DbError> {
    let seconds = (now.at - before.at).as_secs_f64();
    let latency = now.latency.since(&before.latency);
    let status = sources.trainer.status();
    let space = disk::space(&sources.data_dir).ok();
    let sample = Sample {
        at: Timestamp::now(),
        step: status.step,
        requests_per_second: latency.count() as f64 / seconds,
        p50_seconds: latency.quantile(0.5),
        p99_seconds: latency.quantile(0.99),
        waiting_images: sources.serving.waiting(),
        paused_share: ((now.paused - before.paused).as_secs_f64() / seconds).min(1.0),
        carried_share: status.carried_share,
        chain_age: status.chain_age,
        pairs: status.pairs,
        images: sources.db.count_images().await?,
        memory_bytes: resident_bytes(),
        disk_free_bytes: space.map(|(free, _)| free),
        disk_bytes: space.map(|(_, size)| size),
    };
    let text =
        serde_json::to_string(&sample).map_err(|error| DbError::Corrupt(error.to_string()))?;
    sources
        .db
        .insert_history(sample.at.as_second(), &text, days)
        .await
}

/// Resident memory of this process, where the system has Linux' `/proc`.
fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
