//! The handle to search: starts and stops its parts, and says how far the spaces are.

use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize};

use rayon::ThreadPoolBuilder;
use tokio::sync::Notify;

use super::{
    SearchConfig, SearchError,
    graphs::Graphs,
    instruments::Instruments,
    map_progress::Maps,
    maps::{Change, ImageMap},
    query::{Answer, Query},
    shared::{Shared, Stores},
    spaces::{Role, SpaceState, Spaces},
    upkeep,
};
use crate::types::CheckpointId;
use kith_mcmc::ImageKey;

/// Handle to search; cheap to clone.
#[derive(Clone)]
pub struct Search {
    shared: Arc<Shared>,
}

impl Search {
    /// Reads the stored vectors, and starts their upkeep.
    ///
    /// # Errors
    /// [`SearchError::Db`] if they cannot be read, [`SearchError::Thread`] if a thread cannot be started.
    pub async fn start(config: SearchConfig, stores: Stores) -> Result<Self, SearchError> {
        let pool = ThreadPoolBuilder::new().thread_name(|number| format!("kith-search-{number}"));
        let pool = pool
            .build()
            .map_err(|error| SearchError::Thread(error.to_string()))?;
        let instruments = Instruments::new(&stores.metrics);
        let shared = Arc::new(Shared {
            config,
            stores,
            spaces: Spaces::default(),
            graphs: Graphs::default(),
            maps: Maps::default(),
            instruments,
            pool: Arc::new(pool),
            queries: AtomicUsize::new(0),
            storing: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
            upkeep: Mutex::new(None),
        });
        if shared.config.enabled {
            shared.load_spaces().await?;
            let task = tokio::spawn(upkeep::run(Arc::downgrade(&shared)));
            *shared.upkeep.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        }
        Ok(Self { shared })
    }

    /// Ends the upkeep; what it was embedding is made again after the next start.
    pub fn stop(&self) {
        let mut upkeep = (self.shared.upkeep.lock()).unwrap_or_else(PoisonError::into_inner);
        if let Some(upkeep) = upkeep.take() {
            upkeep.abort();
        }
    }

    /// The stored images that are nearest.
    ///
    /// # Errors
    /// See [`SearchError`]; a checkpoint that does not load is a [`SearchError::Serve`].
    pub async fn find(&self, query: Query) -> Result<Answer, SearchError> {
        self.shared.find(query).await
    }

    /// The map of a checkpoint, or of the one that answers. One that is missing or old is made in the background.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn map(&self, checkpoint: Option<CheckpointId>) -> Result<ImageMap, SearchError> {
        self.shared.map(checkpoint).await
    }

    /// The images whose neighbours changed most from one checkpoint to another, of a sample of at most 500.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn changes(
        &self,
        from: CheckpointId,
        to: CheckpointId,
    ) -> Result<Vec<Change>, SearchError> {
        self.shared.changes(from, to).await
    }

    /// Forgets a deleted image: no answer names it from now on.
    /// The rows of its vectors went with its own.
    pub async fn forget_image(&self, key: ImageKey) {
        let _alone = self.shared.storing.lock().await;
        let spaces = self.shared.spaces.all();
        let removed = tokio::task::spawn_blocking(move || {
            for space in spaces {
                space.index_mut().remove(key.0);
            }
        });
        if removed.await.is_err() {
            tracing::error!(
                image = key.0,
                "the vectors of a deleted image stay in memory"
            );
        }
    }

    /// Forgets a deleted checkpoint with all its vectors.
    ///
    /// # Errors
    /// [`SearchError::Db`] if their rows cannot be deleted.
    pub async fn forget_checkpoint(&self, id: CheckpointId) -> Result<(), SearchError> {
        self.shared.drop_space(id).await
    }

    /// The state of all spaces, where `stored` images are stored: the one that answers first.
    pub fn states(&self, stored: u64) -> Vec<SpaceState> {
        let shared = &self.shared;
        let answering = shared.spaces.answering().map(|space| space.checkpoint());
        let next = shared.spaces.next().map(|space| space.checkpoint());
        let mut states: Vec<SpaceState> = shared
            .spaces
            .all()
            .iter()
            .map(|space| {
                let id = Some(space.checkpoint());
                let role = if id == answering {
                    Role::Answering
                } else if id == next {
                    Role::Next
                } else {
                    Role::Kept
                };
                let coverage = space.coverage(stored);
                let index = space.index();
                SpaceState {
                    coverage,
                    role,
                    images: index.len(),
                    in_graph: index.in_graph(),
                    graph_progress: shared.graphs.progress(space.checkpoint()),
                    bytes: index.bytes(),
                }
            })
            .collect();
        states.sort_by_key(|state| {
            (
                state.role as u8,
                std::cmp::Reverse(state.coverage.checkpoint),
            )
        });
        states
    }
}
