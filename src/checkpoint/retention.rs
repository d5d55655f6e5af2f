//! Decides which checkpoints are kept.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::life::{Entry, Life};
use crate::{
    db::{CheckpointRole, CheckpointStatus},
    types::CheckpointId,
};
use kith_eval::Score;

/// Which checkpoints are kept besides those that are needed: the live one, those kept by a caller, those that a name points to, and those in
/// use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The newest complete ones that are kept.
    pub keep_latest: usize,
    /// The best ones by held-out recall@1 that are kept.
    pub keep_best: usize,
    /// Most checkpoints that callers may keep: beyond it a snapshot is refused.
    pub max_kept: usize,
}

impl Retention {
    /// The checkpoints that are kept no longer, oldest first. Never one that is being written; of the failed ones, which are
    /// rows without parts, as many of the newest stay as of the complete ones.
    pub fn expired(&self, life: &Life) -> Vec<CheckpointId> {
        let newest_first = |status| {
            let entries = life.entries.iter().rev();
            entries.filter(move |entry| entry.status == status)
        };
        let latest = self.keep_latest.max(1);
        let mut stay: HashSet<CheckpointId> = newest_first(CheckpointStatus::Complete)
            .take(latest)
            .chain(newest_first(CheckpointStatus::Failed).take(latest))
            .chain(life.entries.iter().filter(|entry| is_needed(entry)))
            .map(|entry| entry.id)
            .collect();
        stay.extend(best(life).into_iter().take(self.keep_best));
        let ids = life.entries.iter().map(|entry| entry.id);
        ids.filter(|id| !stay.contains(id)).collect()
    }
}

fn is_needed(entry: &Entry) -> bool {
    entry.role == CheckpointRole::Live
        || entry.status == CheckpointStatus::Writing
        || entry.kept
        || entry.aliased
        || entry.in_use
}

/// Those with answers to the newest questions before the others, then by the share found; of equals the newer one.
fn best(life: &Life) -> Vec<CheckpointId> {
    let sound = life.entries.iter().rev().filter(|entry| entry.may_serve());
    let scored: Vec<(&Score, CheckpointId)> = sound
        .filter_map(|entry| Some((entry.score.as_ref()?, entry.id)))
        .collect();
    let Some((newest, _)) = scored.first().copied() else {
        return Vec::new();
    };
    let mut order: Vec<(bool, f64, CheckpointId)> = scored
        .into_iter()
        .map(|(score, id)| (score.is_comparable(newest), score.share(), id))
        .collect();
    // Stable: of equals the newer one stays first.
    order.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
    order.into_iter().map(|(.., id)| id).collect()
}
