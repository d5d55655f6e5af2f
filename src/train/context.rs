//! What all threads of the trainer share: settings, stores and the status. It also makes the trainer's pools and threads.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::runtime::Handle;

use super::{
    config::TrainConfig, error::TrainFailure, first_weights::FirstWeights, pair_effect::PairEffect,
    status::SharedStatus,
};
use crate::{
    blobs::Blobs,
    checkpoint::{Checkpoints, GateConfig},
    db::Db,
    foreground::Foreground,
};
use kith_nn::Device;

/// Shared by all threads of the trainer.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: TrainConfig,
    pub(super) device: Device,
    pub(super) blobs: Blobs,
    pub(super) db: Db,
    pub(super) checkpoints: Checkpoints,
    pub(super) status: Arc<SharedStatus>,
    pub(super) pair_effect: PairEffect,
    /// What training gives way to.
    pub(super) foreground: Foreground,
    /// The async runtime that stores are reached through; computing never happens on it.
    pub(super) runtime: Handle,
}

impl Context {
    /// Blocks on a store's future. Only for the trainer's own threads.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// What first weights are made from, and where.
    pub(super) fn first_weights<'a>(&'a self, pool: Option<&'a ThreadPool>) -> FirstWeights<'a> {
        FirstWeights {
            config: &self.config,
            device: &self.device,
            blobs: &self.blobs,
            db: &self.db,
            pool,
        }
    }

    /// The settings of the gate.
    pub(super) fn gate(&self) -> &GateConfig {
        &self.checkpoints.policy().gate
    }

    /// A pool whose threads compute at lower priority than serving; 0 threads: one for each core.
    pub(super) fn pool(
        &self,
        name: &'static str,
        threads: usize,
    ) -> Result<ThreadPool, TrainFailure> {
        let run = &self.config.run;
        let foreground = self.foreground.clone();
        Ok(computing_pool(
            name,
            threads,
            (run.nice, run.idle_class),
            foreground,
        )?)
    }

    /// A thread that runs at lower priority than serving.
    pub(super) fn thread(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, std::io::Error> {
        let (nice, foreground) = (self.config.run.nice, self.foreground.clone());
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            lower_priority(nice, foreground);
            body();
        })
    }
}

/// A pool whose threads compute at lower priority than serving.
fn computing_pool(
    name: &'static str,
    threads: usize,
    (nice, idle_class): (i32, bool),
    foreground: Foreground,
) -> Result<ThreadPool, rayon::ThreadPoolBuildError> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |number| format!("{name}-{number}"))
        .start_handler(move |_| {
            if idle_class {
                enter_idle_class();
            }
            lower_priority(nice, foreground.clone());
        })
        .build()
}

/// Lowers the priority of this thread, which from now on computes in the background. On Linux `setpriority` accepts a thread's id.
fn lower_priority(nice: i32, foreground: Foreground) {
    kith_nn::compute_in_background(move || foreground.yield_to_requests());
    let this = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(this), nice) {
        tracing::warn!(nice, %error, "a training thread keeps its priority");
    }
}

/// Puts this thread into the scheduler's idle class. Niceness alone is not enough: a nice thread that computes is not interrupted at once
/// when a request wakes another, and takes a share of its own from a busy core.
#[cfg(target_os = "linux")]
fn enter_idle_class() {
    use thread_priority::{
        NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
    };
    let idle = ThreadSchedulePolicy::Normal(Idle);
    // Having set the class, it sets the niceness to 0, which only privileged users may do to a thread that has inherited a higher one.
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
    if !thread_schedule_policy().is_ok_and(|policy| policy == idle) {
        tracing::warn!(
            ?set,
            "a training thread stays out of the scheduler's idle class"
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn enter_idle_class() {}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use super::*;

    /// The scheduling policy of the calling thread, as sched(7) numbers them: the 41st field, of which two come before the bracket.
    #[cfg(target_os = "linux")]
    fn policy() -> u32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_that_compute_are_in_the_idle_class_unless_told_otherwise() {
        for (idle_class, expected) in [(true, 5), (false, 0)] {
            let pool = computing_pool("test", 2, (10, idle_class), Foreground::new(1.0));
            let pool = pool.unwrap();
            assert_eq!(pool.broadcast(|_| policy()), [expected; 2]);
        }
    }
}
