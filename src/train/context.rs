//! What all of the trainer's threads share: settings, stores, the board, the pool; and how a thread of theirs is made.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::runtime::Handle;

use super::{TrainConfig, status::Board};
use crate::{
    blobs::{BlobError, Blobs},
    checkpoint::{CheckpointError, Checkpoints, GateConfig},
    db::{Db, DbError},
    image_store::ImageError,
};
use kith_learn::LearnError;
use kith_nn::{Device, NnError};

/// Why training broke off: one sentence, for the log and the status.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// A store failed. What training holds in memory is whole, and goes on when the store does.
    #[error("{0}")]
    Store(String),
    /// What training holds in memory cannot be trusted any more, or was never there.
    #[error("{0}")]
    Broken(String),
}

impl Fault {
    pub(super) fn broken(what: impl ToString) -> Self {
        Self::Broken(what.to_string())
    }
}

impl From<CheckpointError> for Fault {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Blobs(_) | CheckpointError::Db(_) => Self::Store(error.to_string()),
            error => Self::Broken(error.to_string()),
        }
    }
}

macro_rules! fault_from {
    ($variant:ident: $($error:ty),+) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::$variant(error.to_string())
            }
        })+
    };
}
fault_from!(Store: BlobError, DbError, ImageError);
fault_from!(Broken: LearnError, NnError, std::io::Error, rayon::ThreadPoolBuildError);

/// Shared by all threads of the trainer.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: TrainConfig,
    pub(super) device: Device,
    pub(super) blobs: Blobs,
    pub(super) db: Db,
    pub(super) checkpoints: Checkpoints,
    pub(super) board: Arc<Board>,
    /// The async runtime that stores are reached through; computing never happens on it.
    pub(super) runtime: Handle,
}

impl Context {
    /// Waits for a store, on a thread of the trainer's own.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// What decisions about checkpoints follow.
    pub(super) fn gate(&self) -> &GateConfig {
        &self.checkpoints.policy().gate
    }

    /// A pool whose threads give way to serving; 0 threads: one for each core.
    pub(super) fn pool(&self, name: &'static str, threads: usize) -> Result<ThreadPool, Fault> {
        let nice = self.config.run.nice;
        Ok(ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(move |number| format!("{name}-{number}"))
            .start_handler(move |_| give_way(nice))
            .build()?)
    }

    /// A thread that gives way to serving.
    pub(super) fn thread(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, std::io::Error> {
        let nice = self.config.run.nice;
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            give_way(nice);
            body();
        })
    }
}

/// Lowers the priority of this thread, which then shares no buffers with threads that serve. On Linux the call takes a thread's id as
/// well as a process's.
fn give_way(nice: i32) {
    kith_nn::compute_in_background();
    let this = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(this), nice) {
        tracing::warn!(nice, %error, "a training thread keeps its priority");
    }
}
