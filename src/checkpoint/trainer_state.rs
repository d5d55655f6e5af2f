//! `trainer.json`: where training stands, besides the arrays.

use serde::{Deserialize, Serialize};

/// `trainer.json`: the trainer's position, everything besides the arrays that a bit-exact resume needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Steps done, skipped ones included: each consumes its batch and its randomness.
    pub step: u64,
    /// The run's seed.
    pub seed: u64,
    /// Epoch in progress, from 0.
    pub epoch: u64,
    /// Order key of the last pair that this epoch drew: `(hash, pair)`; `None` at its start.
    pub cursor: Option<(u64, u32)>,
    /// Factor on the learning rate, lowered by each recovery and raised again as steps go well.
    pub rate_scale: f32,
    /// Learning rate set by a caller, in place of the schedule's base rate.
    pub rate_override: Option<f32>,
    /// Steps skipped because a loss or gradient was not finite.
    pub skipped: u64,
    /// Where recovering from bad turns stands.
    #[serde(default)]
    pub recovery: Recovery,
    /// The averages by which a collapse is suspected.
    #[serde(default)]
    pub watch: CollapseWatch,
    /// Where the draws of recent pairs stand; `None`: the pairs that are there are none.
    #[serde(default)]
    pub recent: Option<RecentDraws>,
    /// Pairs that were trained on at the newest snapshot whose projection may have been fitted to them: neither a stop's nor one with training off.
    #[serde(default)]
    pub snapshot_pairs: u64,
}

/// Which pairs are recent, and which of them were drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecentDraws {
    /// Pairs with a larger key are recent.
    pub after: u32,
    /// What `after` will be next.
    pub next: u32,
    /// Step at which `after` was last moved.
    pub moved: u64,
    /// Epoch of the recent pairs in progress.
    pub epoch: u64,
    /// Order key of the last pair that it drew: `(hash, pair)`; `None` at its start.
    pub cursor: Option<(u64, u32)>,
}

/// Recoveries so far, and what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// Recoveries since a candidate was last found better, or a caller last set the rate.
    pub tries: u32,
    /// Step at which the rate's factor last changed.
    pub since: u64,
    /// Candidates in a row that were worse than the best checkpoint.
    pub refusals: u32,
}

/// Moving averages of what the batches' embeddings show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollapseWatch {
    /// Steps in the averages.
    pub steps: u64,
    /// Average spread. An `f32`, since JSON brings these back to the last bit.
    pub spread: f32,
    /// Average cosine of random pairs.
    pub mean_cosine: f32,
    /// Nothing is suspected before this step.
    pub quiet_until: u64,
}

impl TrainerState {
    /// The beginning of everything, at step `step`.
    pub fn new(step: u64, seed: u64) -> Self {
        Self {
            step,
            seed,
            epoch: 0,
            cursor: None,
            rate_scale: 1.0,
            rate_override: None,
            skipped: 0,
            recovery: Recovery::default(),
            watch: CollapseWatch::default(),
            recent: None,
            snapshot_pairs: 0,
        }
    }
}
