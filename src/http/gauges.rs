//! The gauges of what exists as state elsewhere: training, checkpoints, what is stored, the disk. They are read when somebody asks for them,
//! at most once a second, and less often where reading takes long.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kith_eval::{Evaluation, Geometry};
use kith_nn::StageNorms;
use tokio::sync::Mutex;

use crate::{
    app::App,
    db::{CheckpointRow, CheckpointStatus, DbError, StoredCounts},
    disk,
    search::{Coverage, Role},
    telemetry::{Metrics, Series, series},
    train::{AlarmKind, TrainingState, TrainingStatus},
};

/// Shortest time between two reads.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reading takes at most one part in so many of the time.
const IDLE_SHARE: u32 = 20;

/// The gauges of one server.
pub(super) struct StateGauges {
    /// When they are to be read again. Held while they are read, so that callers share one read.
    due: Mutex<Instant>,
}

impl StateGauges {
    /// With the values that never change.
    pub(super) fn new(app: &App) -> Self {
        let (metrics, settings) = (&app.metrics, &app.settings);
        let labels = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("device", settings.encoder.device.clone()),
        ];
        metrics.gauge(&series::BUILD_INFO, labels).set(1.0);
        metrics.set(&series::STARTED, seconds(Timestamp::now()));
        let body_limit = settings.server.max_buffered_bytes as f64;
        metrics.set(&series::HTTP_BODY_LIMIT, body_limit);
        let waiting_limit = settings.serving.queue_images as f64;
        metrics.set(&series::SERVING_WAITING_LIMIT, waiting_limit);
        metrics.set(&series::HTTP_CONNECTIONS, 0.0);
        metrics
            .counter(&series::READ_ERRORS, Vec::new())
            .increment(0);
        Self {
            due: Mutex::new(Instant::now()),
        }
    }

    /// Reads the state if that is due. A part that cannot be read keeps its last values and is counted.
    pub(super) async fn refresh(&self, app: &App, body_bytes: usize) {
        let metrics = &app.metrics;
        metrics.set(&series::HTTP_BODY_BYTES, body_bytes as f64);
        set_serving(app);
        let mut due = self.due.lock().await;
        let started = Instant::now();
        if started < *due {
            return;
        }
        set_training(metrics, &app.trainer.status(), app.foreground.paused());
        let failed = [
            set_checkpoints(app).await.err(),
            set_stored(app).await.err(),
            set_disk(app).err(),
        ];
        let failed = failed.into_iter().flatten().inspect(|error| {
            tracing::debug!(%error, "a part of the metrics cannot be read");
        });
        let errors = metrics.counter(&series::READ_ERRORS, Vec::new());
        errors.increment(failed.count() as u64);
        *due = Instant::now() + INTERVAL.max(started.elapsed() * IDLE_SHARE);
    }
}

fn set_serving(app: &App) {
    let (metrics, serving) = (&app.metrics, &app.serving);
    let ready = serving.live().is_some();
    metrics.set(&series::SERVING_READY, f64::from(u8::from(ready)));
    metrics.set(&series::SERVING_WAITING, serving.waiting() as f64);
    metrics.set(&series::CACHE_BYTES, serving.cache_bytes() as f64);
}

fn set_training(metrics: &Metrics, status: &TrainingStatus, paused_for_requests: Duration) {
    for (state, name) in [
        (TrainingState::Running, "running"),
        (TrainingState::Paused, "paused"),
        (TrainingState::Waiting, "waiting"),
        (TrainingState::Failed, "failed"),
    ] {
        let gauge = metrics.gauge(&series::TRAINING_STATE, vec![("state", name.to_owned())]);
        gauge.set(f64::from(u8::from(state == status.state)));
    }
    let average = |value: Option<f32>| value.map_or(f64::NAN, f64::from);
    let values: [(&Series, f64); 19] = [
        (&series::TRAINING_STEP, status.step as f64),
        (&series::TRAINING_EPOCH, status.epoch as f64),
        (&series::TRAINING_LOSS, average(status.loss)),
        (
            &series::TRAINING_GLOBAL_LOSS,
            average(status.global_loss_estimate),
        ),
        (
            &series::TRAINING_ACCEPTANCE,
            average(status.acceptance_rate),
        ),
        (&series::TRAINING_CHAINS, status.chains as f64),
        (&series::TRAINING_CHAIN_AGE, average(status.chain_age)),
        (&series::TRAINING_CHAIN_AGE_MAX, status.max_chain_age.into()),
        (
            &series::TRAINING_SCORE_GAP,
            average(status.stored_minus_fresh),
        ),
        (&series::TRAINING_CARRIED, average(status.carried_share)),
        (&series::TRAINING_PAIRS, status.pairs as f64),
        (&series::TRAINING_RECENT, status.recent_pairs as f64),
        (&series::TRAINING_IMAGES, status.images as f64),
        (&series::TRAINING_STEP_RATE, status.steps_per_second.into()),
        (
            &series::TRAINING_IMAGE_RATE,
            status.images_per_second.into(),
        ),
        (&series::TRAINING_LEARNING_RATE, status.learning_rate.into()),
        (&series::TRAINING_SKIPPED, status.skipped as f64),
        (&series::TRAINING_RATE_SCALE, status.rate_scale.into()),
        (
            &series::TRAINING_ERROR,
            f64::from(u8::from(status.last_error.is_some())),
        ),
    ];
    for (series, value) in values {
        metrics.set(series, value);
    }
    set_gradient_norms(metrics, status.gradient_norms);
    for kind in AlarmKind::ALL {
        let raised = status.alarms.iter().any(|alarm| alarm.alarm == kind);
        let labels = vec![("alarm", kind.name().to_owned())];
        let gauge = metrics.gauge(&series::TRAINING_ALARM, labels);
        gauge.set(f64::from(u8::from(raised)));
    }
    let paused = metrics.counter(&series::TRAINING_PAUSED, Vec::new());
    paused.absolute(paused_for_requests.as_secs());
    let recoveries = metrics.counter(&series::TRAINING_RECOVERIES, Vec::new());
    recoveries.absolute(status.recoveries);
}

fn set_gradient_norms(metrics: &Metrics, norms: Option<StageNorms>) {
    for (stage, norm) in norms.unwrap_or_default().each() {
        let labels = vec![("stage", stage.to_owned())];
        let norm = norms.map_or(f64::NAN, |_| norm.into());
        metrics
            .gauge(&series::TRAINING_GRADIENT_NORM, labels)
            .set(norm);
    }
}

async fn set_checkpoints(app: &App) -> Result<(), DbError> {
    let (metrics, rows) = (&app.metrics, app.db.checkpoints().await?);
    for (status, name) in [
        (CheckpointStatus::Writing, "writing"),
        (CheckpointStatus::Complete, "complete"),
        (CheckpointStatus::Failed, "failed"),
    ] {
        let count = rows.iter().filter(|row| row.status == status).count();
        let gauge = metrics.gauge(&series::CHECKPOINTS, vec![("status", name.to_owned())]);
        gauge.set(count as f64);
    }
    let complete = |row: &&CheckpointRow| row.status == CheckpointStatus::Complete;
    // The newest comes first.
    if let Some(row) = rows.iter().find(complete) {
        metrics.set(&series::CHECKPOINT_LATEST_STEP, row.step as f64);
        let created = seconds(row.created_at);
        metrics.set(&series::CHECKPOINT_LATEST_CREATED, created);
    }
    let live = app.serving.live().map(|live| live.id);
    let live = rows.iter().find(|row| Some(row.id) == live);
    if let Some(row) = live {
        metrics.set(&series::CHECKPOINT_LIVE_STEP, row.step as f64);
        let created = seconds(row.created_at);
        metrics.set(&series::CHECKPOINT_LIVE_CREATED, created);
    }
    let live = live.and_then(evaluation);
    metrics.set(&series::CHECKPOINT_LIVE_RECALL, recall(live));
    let newest = rows.iter().find_map(evaluation);
    metrics.set(&series::CHECKPOINT_EVALUATED_RECALL, recall(newest));
    set_geometry(metrics, "live", live);
    set_geometry(metrics, "evaluated", newest);
    Ok(())
}

/// recall@1; NaN where nothing was asked.
fn recall(evaluation: Option<Evaluation>) -> f64 {
    let asked = evaluation.filter(|evaluation| evaluation.pairs > 0);
    asked.map_or(f64::NAN, |evaluation| evaluation.recall_at_1())
}

fn evaluation(row: &CheckpointRow) -> Option<Evaluation> {
    serde_json::from_value(row.evaluation.clone()?).ok()
}

/// The shape of the embeddings of the checkpoint that is called `checkpoint`.
fn set_geometry(metrics: &Metrics, checkpoint: &str, evaluation: Option<Evaluation>) {
    let unknown = Geometry {
        alignment: f64::NAN,
        uniformity: f64::NAN,
        effective_rank: f64::NAN,
        spread: f64::NAN,
        mean_cosine: f64::NAN,
    };
    let found = evaluation.map_or(unknown, |evaluation| evaluation.geometry);
    for (series, value) in [
        (&series::CHECKPOINT_ALIGNMENT, found.alignment),
        (&series::CHECKPOINT_UNIFORMITY, found.uniformity),
        (&series::CHECKPOINT_RANK, found.effective_rank),
        (&series::CHECKPOINT_SPREAD, found.spread),
    ] {
        let labels = vec![("checkpoint", checkpoint.to_owned())];
        metrics.gauge(series, labels).set(value);
    }
}

async fn set_stored(app: &App) -> Result<(), DbError> {
    let (metrics, stored) = (&app.metrics, app.db.stored_counts().await?);
    let StoredCounts {
        images,
        damaged,
        pairs,
    } = stored;
    metrics.set(&series::STORED_IMAGES, images as f64);
    set_search(app, images);
    metrics.set(&series::DAMAGED_IMAGES, damaged as f64);
    for (split, count) in pairs {
        let gauge = metrics.gauge(&series::STORED_PAIRS, vec![("split", split.to_owned())]);
        gauge.set(count as f64);
    }
    Ok(())
}

/// `stored`: images.
fn set_search(app: &App, stored: u64) {
    let states = app.search.states(stored);
    let coverage = |role| {
        let state = states.iter().find(|state| state.role == role);
        state.map(|state| &state.coverage)
    };
    let answering = coverage(Role::Answering);
    // Where the live checkpoint answers, all is done; where it is neither, none of it is embedded yet.
    let live = app.serving.live().map(|live| live.id);
    let is_live = |known: &&Coverage| live.is_none_or(|live| live == known.checkpoint);
    let next = coverage(Role::Next).or(answering.filter(is_live));
    for (known, name) in [(answering, "answering"), (next, "next")] {
        let share = known.map_or(0.0, |known| known.share);
        let labels = vec![("role", name.to_owned())];
        app.metrics
            .gauge(&series::SEARCH_INDEXED, labels)
            .set(share);
    }
    // One is built at a time.
    let graph = states.iter().find_map(|state| state.graph_progress);
    app.metrics.set(&series::SEARCH_GRAPH, graph.unwrap_or(1.0));
    let bytes: usize = states.iter().map(|state| state.bytes).sum();
    app.metrics.set(&series::SEARCH_BYTES, bytes as f64);
}

fn set_disk(app: &App) -> Result<(), DbError> {
    let space = disk::space(&app.settings.storage.data_dir);
    let (free, size) = space.map_err(|error| DbError::Corrupt(error.to_string()))?;
    app.metrics.set(&series::DISK_FREE, free as f64);
    app.metrics.set(&series::DISK_SIZE, size as f64);
    Ok(())
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
