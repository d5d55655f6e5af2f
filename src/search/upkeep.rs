//! Embeds stored images that a space lacks, a few at a time and behind all requests, and drops spaces that nobody needs.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{SearchError, shared::Shared, space::Space};
use crate::{
    db::ImageRow,
    image_store::ImageError,
    serve::{ServeError, Which},
    telemetry::LogThrottle,
    types::CheckpointId,
};
use kith_mcmc::ImageKey;

/// Images that are looked at together; those without a vector are embedded.
const PAGE: u32 = 256;
/// Images that are embedded together.
const BATCH: usize = 16;
/// How often new images are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a full queue is left alone, and a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often images that could not be embedded are tried again.
const ROUND_AFTER: Duration = Duration::from_secs(300);

/// Keeps the spaces up to date, until the handle is dropped.
pub(super) async fn run(shared: Weak<Shared>) {
    let errors = LogThrottle::default();
    let mut round_began = Instant::now();
    while let Some(strong) = shared.upgrade() {
        let pause = match strong.work(&mut round_began).await {
            Ok(pause) => pause,
            Err(SearchError::Serve(ServeError::Overloaded)) => Some(RETRY_AFTER),
            Err(SearchError::Serve(ServeError::Stopping)) => return,
            Err(error) => {
                if let Some(left_out) = errors.ready() {
                    tracing::error!(%error, left_out, "stored images cannot be embedded for search");
                }
                Some(RETRY_AFTER)
            }
        };
        let Some(pause) = pause else {
            continue;
        };
        let changed = strong.changed.notified();
        let _ = tokio::time::timeout(pause, changed).await;
    }
}

impl Shared {
    /// Does the next piece of work; `Some`: there is none, for so long.
    async fn work(&self, round_began: &mut Instant) -> Result<Option<Duration>, SearchError> {
        let live = self.stores.serving.live().map(|live| live.id);
        let plan = self.spaces.plan(live, self.config.checkpoints);
        for id in plan.drop {
            self.drop_space(id).await?;
        }
        if let Some(id) = plan.begin {
            self.begin_space(id, true).await?;
            return Ok(None);
        }
        if round_began.elapsed() > ROUND_AFTER {
            *round_began = Instant::now();
            let spaces = self.spaces.all();
            let again = spaces.iter().filter(|space| space.left_some_out());
            again.for_each(|space| space.begin_round());
        }
        let mut failed = None;
        for id in plan.upkeep {
            match self.embed_some(id).await {
                Ok(true) => return Ok(None),
                Ok(false) => {}
                Err(error @ SearchError::Serve(ServeError::Overloaded | ServeError::Stopping)) => {
                    return Err(error);
                }
                // What keeps one space does not keep the others.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Some(LOOK_EVERY)), Err)
    }

    /// Embeds the next images that a space lacks; `false`: it lacks none.
    async fn embed_some(&self, id: CheckpointId) -> Result<bool, SearchError> {
        let Some(space) = self.spaces.get(id) else {
            return Ok(false);
        };
        if space.index().len() >= self.config.max_images {
            space.finish_round();
            return Ok(false);
        }
        let page = self.stores.db.images_after(space.cursor(), PAGE, None);
        let page = page.await?;
        let Some(last) = page.last().map(|row| row.key) else {
            let news = !space.is_complete();
            space.finish_round();
            self.graphs.build_if_large(&space, self.config.max_scanned);
            // The plan may change.
            return Ok(news);
        };
        let missing: Vec<ImageRow> = {
            let index = space.index();
            let missing = page.into_iter();
            missing
                .filter(|row| index.get(row.key.0).is_none())
                .collect()
        };
        let size = BATCH.min(self.stores.serving.queue_images());
        for batch in missing.chunks(size.max(1)) {
            let began = Instant::now();
            let skipped = self.embed_batch(&space, batch).await?;
            if let Some(row) = batch.last() {
                space.advance(row.key, skipped);
            }
            let share = self.config.background_share;
            let rest = began.elapsed().mul_f64(1.0 / share - 1.0);
            tokio::time::sleep(rest).await;
        }
        space.advance(last, 0);
        Ok(true)
    }

    /// Embeds images and stores their vectors; returns the number of those that cannot be embedded.
    async fn embed_batch(
        &self,
        space: &Arc<Space>,
        batch: &[ImageRow],
    ) -> Result<u64, SearchError> {
        let (mut keys, mut images) = (Vec::new(), Vec::new());
        for row in batch {
            match self.stores.images.read(row.sha256).await {
                Ok(Some(bytes)) => {
                    keys.push(row.key);
                    images.push(bytes);
                }
                // Erased meanwhile, or damaged: then it is listed and logged when it is found.
                Ok(None) | Err(ImageError::Damaged { .. }) => {}
                // Whatever keeps one file from being read does not keep the others.
                Err(error @ ImageError::Blobs(_)) => {
                    tracing::warn!(image = %row.sha256, %error, "a stored image cannot be read for search");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut skipped = (batch.len() - keys.len()) as u64;
        let which = Which::Pinned(space.checkpoint());
        let rows = self.stores.serving.embed_behind(which, images).await?;
        let mut vectors = Vec::with_capacity(keys.len());
        for (key, row) in keys.into_iter().zip(rows) {
            match row {
                Ok(row) => vectors.push((key, row.embedding)),
                Err(ServeError::Pixels { source, .. }) => {
                    tracing::debug!(image = key.0, %source, "a stored image cannot be searched");
                    skipped += 1;
                }
                Err(error @ ServeError::NotFinite { .. }) => {
                    tracing::warn!(image = key.0, %error, "a stored image cannot be searched");
                    skipped += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.instruments.embedded.increment(vectors.len() as u64);
        self.store(space, vectors).await?;
        Ok(skipped)
    }

    /// Stores vectors of images that are still there.
    async fn store(
        &self,
        space: &Arc<Space>,
        vectors: Vec<(ImageKey, Vec<f32>)>,
    ) -> Result<(), SearchError> {
        let _alone = self.storing.lock().await;
        if self.spaces.get(space.checkpoint()).is_none() {
            return Ok(());
        }
        let stored = self
            .stores
            .db
            .insert_vectors(space.stored, &vectors)
            .await?;
        let space = space.clone();
        let inserted = tokio::task::spawn_blocking(move || {
            let mut index = space.index_mut();
            for (key, vector) in vectors {
                if stored.contains(&key) {
                    index.insert(key.0, &vector);
                }
            }
        });
        inserted
            .await
            .map_err(|error| SearchError::Thread(error.to_string()))
    }
}
