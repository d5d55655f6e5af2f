//! Builds graphs over large spaces, one at a time, on threads of low priority.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::space::Space;

/// Niceness of threads in the background.
const NICE: i32 = 10;

/// Whether a graph is being built; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Graphs {
    building: Arc<AtomicBool>,
}

impl Graphs {
    /// Begins to build a graph of `space` if it has more than `max_scanned` vectors outside of one, and no other is being built. Searches scan
    /// until it is ready.
    pub(super) fn build_if_large(&self, space: &Arc<Space>, max_scanned: usize) {
        if self.building.swap(true, SeqCst) {
            return;
        }
        let (space, done) = (space.clone(), Done(self.building.clone()));
        // No task of the runtime: stopping does not wait for it.
        let thread = thread::Builder::new().name("kith-graph".to_owned());
        let begun = thread.spawn(move || {
            let _done = done;
            let Some(input) = space.index().graph_input(max_scanned) else {
                return;
            };
            match background_pool("kith-graph") {
                Ok(pool) => {
                    let graph = pool.install(|| input.build());
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
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
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
