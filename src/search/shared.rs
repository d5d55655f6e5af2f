//! The state behind the handle, and the life of a space: begun, read after a start, dropped.

use std::sync::{Arc, Mutex, atomic::AtomicUsize};

use rayon::ThreadPool;
use tokio::{sync::Notify, task::JoinHandle};

use super::{
    SearchConfig, SearchError, graphs::Graphs, instruments::Instruments, map_progress::Maps,
    space::Space, spaces::Spaces,
};
use crate::{
    checkpoint::Checkpoints, db::Db, foreground::Foreground, image_store::ImageStore,
    serve::Serving, telemetry::Metrics, types::CheckpointId,
};
use kith_mcmc::ImageKey;
use kith_search::Index;

/// Embeddings that are read from the database at once.
const PAGE: u32 = 4096;

/// What search reads from.
pub struct Stores {
    /// The database.
    pub db: Db,
    /// The stored images.
    pub images: ImageStore,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// What embeds images.
    pub serving: Serving,
    /// Where requests come before training.
    pub foreground: Foreground,
    /// The series of the server.
    pub metrics: Metrics,
}

pub(super) struct Shared {
    pub(super) config: SearchConfig,
    pub(super) stores: Stores,
    pub(super) spaces: Spaces,
    pub(super) graphs: Graphs,
    pub(super) maps: Maps,
    pub(super) instruments: Instruments,
    /// Threads that scan.
    pub(super) pool: Arc<ThreadPool>,
    /// Searches that are answered or wait.
    pub(super) queries: AtomicUsize,
    /// Held while vectors are stored and while those of an image are erased, so that none comes back after its erasure.
    pub(super) storing: tokio::sync::Mutex<()>,
    /// Wakes the upkeep.
    pub(super) changed: Notify,
    pub(super) upkeep: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    /// Begins a checkpoint's space.
    pub(super) async fn begin_space(
        &self,
        id: CheckpointId,
        was_live: bool,
    ) -> Result<Arc<Space>, SearchError> {
        let in_use = self.stores.checkpoints.begin_use(id);
        let manifest = self.stores.checkpoints.manifest(id).await?;
        let stored = self.stores.db.vector_space(id).await?;
        let index = Index::new(manifest.encoder.dim);
        let space = Space::new(stored, (index, manifest.encoder.towers), was_live, in_use);
        Ok(self.spaces.add(space))
    }

    /// Drops a space with its stored vectors.
    pub(super) async fn drop_space(&self, id: CheckpointId) -> Result<(), SearchError> {
        let db = &self.stores.db;
        let dropped = {
            let _alone = self.storing.lock().await;
            let Some(space) = self.spaces.get(id) else {
                return Ok(());
            };
            db.drop_vector_space(space.stored).await?;
            self.spaces.remove(id);
            space.stored
        };
        // It may have many rows: nobody waits for them to go.
        Ok(db.delete_vector_space(dropped).await?)
    }

    /// Reads the stored spaces. Those whose checkpoint is gone are dropped.
    pub(super) async fn load_spaces(&self) -> Result<(), SearchError> {
        let (db, checkpoints) = (&self.stores.db, &self.stores.checkpoints);
        let stored = db.count_images().await?;
        for space in db.vector_spaces(true).await? {
            db.delete_vector_space(space).await?;
        }
        for space in db.vector_spaces(false).await? {
            let in_use = checkpoints.begin_use(space.checkpoint);
            let Ok(manifest) = checkpoints.manifest(space.checkpoint).await else {
                db.delete_vector_space(space).await?;
                continue;
            };
            let mut index = Index::new(manifest.encoder.dim);
            let mut after = ImageKey(0);
            loop {
                let page = db.vectors_after(space, after, PAGE).await?;
                let Some((last, _)) = page.last() else { break };
                after = *last;
                for (key, vector) in &page {
                    // Another length is a fault of the disk: that image is embedded again.
                    if vector.len() == index.dim() {
                        index.insert(key.0, vector);
                    }
                }
            }
            let complete = index.len() as u64 >= stored;
            let space = self.spaces.add(Space::new(
                space,
                (index, manifest.encoder.towers),
                false,
                in_use,
            ));
            if complete {
                space.finish_round();
            }
        }
        Ok(())
    }
}
