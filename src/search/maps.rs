//! Maps of the spaces: their images in two dimensions, made in the background one at a time and kept in the database.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
};

use tokio::runtime::Handle;

use super::{
    SearchError, graphs::background_pool, map_progress::Done, shared::Shared, space::Space,
};
use crate::{
    db::PlacedImage,
    types::{CheckpointId, Sha256},
};
use kith_mcmc::ImageKey;
use kith_search::ProjectionInput;

/// Most images on a map.
pub(super) const MAX_PLACED: usize = 100_000;
/// A map is made anew when it lacks one image in so many.
const LACKING: usize = 10;
/// Images whose neighbours are compared between two spaces.
const MAX_COMPARED: usize = 500;
/// Neighbours of each that are compared.
const NEIGHBOURS: usize = 10;
/// Images that are named as changed.
const MAX_CHANGED: usize = 50;

/// The map of a checkpoint.
#[derive(Clone, Debug)]
pub struct ImageMap {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The images with their places; none while the first map is made.
    pub images: Vec<PlacedImage>,
    /// How far a new map is made, 0 to 1; `None`: none is.
    pub progress: Option<f64>,
}

/// An image and how far its neighbours are the same under two checkpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The image.
    pub id: Sha256,
    /// Share of its ten nearest that are the same, 0 to 1.
    pub shared: f64,
}

impl Shared {
    /// The map of a checkpoint, or of the one that answers; one that is missing or old is begun.
    pub(super) async fn map(
        self: &Arc<Self>,
        checkpoint: Option<CheckpointId>,
    ) -> Result<ImageMap, SearchError> {
        let space = self.named_or_answering(checkpoint).await?;
        let images = self.stores.db.placed_images(space.stored).await?;
        let indexed = space.index().len();
        if is_old(indexed, images.len()) && space.is_complete() {
            self.begin_map(&space).await?;
        }
        let checkpoint = space.checkpoint();
        let mut progress = self
            .maps
            .progress(checkpoint)
            .map(|share| 0.5 + share / 2.0);
        if (progress.is_none() && images.is_empty() && indexed > 0) || !space.is_complete() {
            // Its images are embedded first, or another map is being made.
            let stored = self.stores.db.count_images().await?;
            progress = progress.or(Some(space.coverage(stored).share / 2.0));
        }
        Ok(ImageMap {
            checkpoint,
            images,
            progress,
        })
    }

    /// Begins a map of `space`, from that of the space which has the newest one.
    async fn begin_map(self: &Arc<Self>, space: &Arc<Space>) -> Result<(), SearchError> {
        let Some(progress) = self.maps.begin(space.checkpoint()) else {
            return Ok(());
        };
        let done = Done(self.maps.clone());
        let mut earlier: HashMap<u32, [f32; 2]> = HashMap::new();
        let mut spaces = self.spaces.all();
        // Its own map counts most.
        spaces.sort_by_key(|one| (one.checkpoint() == space.checkpoint(), one.stored.number));
        for one in spaces.iter().rev() {
            let placed = self.stores.db.placed_images(one.stored).await?;
            if !placed.is_empty() {
                earlier.extend(placed.iter().map(|image| (image.key.0, image.place)));
                break;
            }
        }
        let (db, space, runtime) = (self.stores.db.clone(), space.clone(), Handle::current());
        let make = move || {
            let _done = done;
            let pool = match background_pool("kith-map") {
                Ok(pool) => pool,
                Err(error) => {
                    tracing::warn!(%error, "no map is made");
                    return;
                }
            };
            let input = space.index().projection_input(MAX_PLACED);
            let tell = |share: f32| progress.store(share.to_bits(), SeqCst);
            let at = |key: u32| earlier.get(&key).copied();
            let places = pool.install(|| input.project(&at, &tell));
            let places: Vec<(ImageKey, [f32; 2])> = places
                .into_iter()
                .map(|(key, place)| (ImageKey(key), place))
                .collect();
            match runtime.block_on(db.set_places(space.stored, &places)) {
                Ok(()) => {
                    tracing::info!(checkpoint = %space.checkpoint(), images = places.len(), "a map was made");
                }
                Err(error) => tracing::warn!(%error, "a map cannot be stored"),
            }
        };
        // No task of the runtime: stopping does not wait for it.
        let thread = thread::Builder::new().name("kith-map".to_owned());
        if let Err(error) = thread.spawn(make) {
            tracing::warn!(%error, "no map is made");
        }
        Ok(())
    }

    /// The images whose neighbours changed most from one checkpoint to another, of a sample of those that both know.
    pub(super) async fn changes(
        &self,
        from: CheckpointId,
        to: CheckpointId,
    ) -> Result<Vec<Change>, SearchError> {
        let _place = self.admit()?;
        let from = self.named_or_answering(Some(from)).await?;
        let to = self.named_or_answering(Some(to)).await?;
        let pool = self.pool.clone();
        let compared = tokio::task::spawn_blocking(move || compare(&pool, &from, &to));
        let mut compared = compared
            .await
            .map_err(|error| SearchError::Thread(error.to_string()))?;
        compared.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        compared.truncate(MAX_CHANGED);
        let keys: Vec<ImageKey> = compared.iter().map(|(key, _)| ImageKey(*key)).collect();
        let ids = self.stores.db.image_ids(&keys).await?;
        let changes = ids.into_iter().zip(compared);
        Ok(changes
            .filter_map(|(id, (_, shared))| Some(Change { id: id?, shared }))
            .collect())
    }
}

/// Whether too many are missing on a map of `placed` images to what one of `indexed` images would have now.
fn is_old(indexed: usize, placed: usize) -> bool {
    let wanted = ProjectionInput::size(indexed, MAX_PLACED);
    wanted.saturating_sub(placed) * LACKING > wanted
}

/// The share of equal neighbours of each of a sample of images.
fn compare(pool: &rayon::ThreadPool, from: &Space, to: &Space) -> Vec<(u32, f64)> {
    let mut keys: Vec<u32> = {
        let known = to.index();
        from.index()
            .keys()
            .filter(|key| known.get(*key).is_some())
            .collect()
    };
    keys.sort_unstable();
    let step = keys.len().div_ceil(MAX_COMPARED).max(1);
    let sample = keys.into_iter().step_by(step);
    // The locks are let go between two images, so that vectors can be stored meanwhile.
    let nearest = |space: &Space, key: u32| -> Vec<u32> {
        let index = space.index();
        let Some(vector) = index.get(key) else {
            return Vec::new();
        };
        let hits = pool.install(|| index.nearest(vector, NEIGHBOURS + 1));
        let others = hits.into_iter().map(|hit| hit.key);
        others
            .filter(|other| *other != key)
            .take(NEIGHBOURS)
            .collect()
    };
    let shared = |key| {
        let (before, after) = (nearest(from, key), nearest(to, key));
        let same = before.iter().filter(|one| after.contains(one)).count();
        (key, same as f64 / before.len().max(1) as f64)
    };
    sample.map(shared).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_old_where_a_tenth_is_missing_of_what_it_would_have_now() {
        for (indexed, placed) in [
            (0, 0),
            (100, 90),
            (100_000, 100_000),
            (100_001, 50_001),
            (150_000, 75_000),
        ] {
            assert!(!is_old(indexed, placed), "{indexed} {placed}");
        }
        for (indexed, placed) in [(1, 0), (100, 89), (150_000, 60_000), (200_000, 50_001)] {
            assert!(is_old(indexed, placed), "{indexed} {placed}");
        }
    }
}
