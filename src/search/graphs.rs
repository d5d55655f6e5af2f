//! Builds graphs over large spaces, one at a time, on threads of low priority.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::space::Space;
use crate::types::CheckpointId;
use kith_search::Progress;

/// Niceness of threads in the background.
const NICE: i32 = 10;

/// Which graph is being built, and how far it is; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Graphs {
    building: Arc<AtomicBool>,
    built: Arc<Mutex<Option<(CheckpointId, Progress)>>>,
}

impl Graphs {
    /// How far the graph over a checkpoint's vectors is built, 0 to 1; `None`: none is being built.
    pub(super) fn progress(&self, checkpoint: CheckpointId) -> Option<f64> {
        let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, progress) = built.as_ref().filter(|(id, _)| *id == checkpoint)?;
        Some(progress.share())
    }

    /// Says that the graph over a checkpoint's vectors is being built, until [`Done`].
    fn begin(&self, checkpoint: CheckpointId) -> Progress {
        let progress = Progress::default();
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        *built = Some((checkpoint, progress.clone()));
        progress
    }

    /// Begins to build a graph of `space` if it has more than `max_scanned` vectors outside of one, and no other is being built. Searches scan
    /// until it is ready.
    pub(super) fn build_if_large(&self, space: &Arc<Space>, max_scanned: usize) {
        if self.building.swap(true, SeqCst) {
            return;
        }
        let (space, done) = (space.clone(), Done(self.clone()));
        // No task of the runtime: stopping does not wait for it.
        let thread = thread::Builder::new().name("kith-graph".to_owned());
        let begun = thread.spawn(move || {
            let done = done;
            let Some(input) = space.index().graph_input(max_scanned) else {
                return;
            };
            match background_pool("kith-graph") {
                Ok(pool) => {
                    let progress = done.0.begin(space.checkpoint());
                    tracing::info!(checkpoint = %space.checkpoint(), "a graph is being built: searches scan until then");
                    let graph = pool.install(|| input.build(&progress));
                    space.index_mut().set_graph(graph);
                    tracing::info!(checkpoint = %space.checkpoint(), "a graph was built: searches no longer scan");
                }
                Err(error) => tracing::warn!(%error, "no graph is built: searches scan"),
            }
        });
        if let Err(error) = begun {
            tracing::warn!(%error, "no graph is built: searches scan");
        }
    }
}

/// Says that nothing is built any more, after a panic too.
struct Done(Graphs);

impl Drop for Done {
    fn drop(&mut self) {
        let Graphs { building, built } = &self.0;
        *built.lock().unwrap_or_else(PoisonError::into_inner) = None;
        building.store(false, SeqCst);
    }
}

/// Threads of low priority, one for each core, for work that nobody waits for.
pub(super) fn background_pool(name: &'static str) -> Result<ThreadPool, ThreadPoolBuildError> {
    ThreadPoolBuilder::new()
        .thread_name(move |number| format!("{name}-{number}"))
        .start_handler(|_| lower_priority())
        .build()
}

/// On Linux `setpriority` accepts a thread's id.
fn lower_priority() {
    let this = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(this), NICE) {
        tracing::warn!(%error, "a thread of search in the background keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_that_is_built_has_a_progress_until_it_is_done() {
        let [one, other] = [1, 2].map(|id| CheckpointId(uuid::Uuid::from_u128(id)));
        let graphs = Graphs::default();
        assert_eq!(graphs.progress(one), None);
        let done = Done(graphs.clone());
        let _told = graphs.begin(one);
        assert_eq!(graphs.progress(one), Some(0.0));
        assert_eq!(graphs.progress(other), None);
        drop(done);
        assert_eq!(graphs.progress(one), None);
    }
}
