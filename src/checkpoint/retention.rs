//! Which checkpoints are kept: a decision from rows alone. Must never know: how one is removed.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Evaluation;
use crate::{
    db::{CheckpointRole, CheckpointRow, CheckpointStatus},
    types::CheckpointId,
};

/// Which checkpoints are kept: always the live one and the newest complete one, besides these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The newest complete ones that are kept.
    pub keep_latest: usize,
    /// The best ones by held-out recall@1 that are kept.
    pub keep_best: usize,
}

impl Retention {
    /// The checkpoints of `rows` (in any order) that are kept no longer, oldest first. Never one that is being written; of the failed
    /// ones, which are rows without parts, as many of the newest stay as of the complete ones.
    pub fn expired(&self, rows: &[CheckpointRow]) -> Vec<CheckpointId> {
        let mut newest_first: Vec<&CheckpointRow> = rows.iter().collect();
        newest_first.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
        let of = |status| {
            newest_first
                .iter()
                .copied()
                .filter(move |row| row.status == status)
        };
        let latest = self.keep_latest.max(1);
        let mut kept: HashSet<CheckpointId> = of(CheckpointStatus::Complete)
            .take(latest)
            .chain(of(CheckpointStatus::Failed).take(latest))
            .chain(of(CheckpointStatus::Writing))
            .chain(rows.iter().filter(|row| row.role == CheckpointRole::Live))
            .map(|row| row.id)
            .collect();
        kept.extend(best(of(CheckpointStatus::Complete)).take(self.keep_best));
        let mut expired: Vec<CheckpointId> = rows
            .iter()
            .map(|row| row.id)
            .filter(|id| !kept.contains(id))
            .collect();
        expired.sort_unstable();
        expired
    }
}

/// Best recall first; of equals the newer one.
fn best<'a>(rows: impl Iterator<Item = &'a CheckpointRow>) -> impl Iterator<Item = CheckpointId> {
    let mut judged: Vec<(f64, CheckpointId)> = rows
        .filter_map(|row| Some((Evaluation::of_row(row)?.recall_at_1(), row.id)))
        .collect();
    judged.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    judged.into_iter().map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Retrieval;

    /// A row for each (status, role, recall), oldest first.
    fn rows(
        described: &[(CheckpointStatus, CheckpointRole, Option<f64>)],
    ) -> (Vec<CheckpointRow>, Vec<CheckpointId>) {
        let row = |(step, (status, role, recall)): (usize, &(_, _, Option<f64>))| CheckpointRow {
            id: CheckpointId(uuid::Uuid::from_u128(step as u128 + 1)),
            status: *status,
            role: *role,
            step: step as u64,
            bytes: 1,
            note: None,
            parent: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            evaluation: recall.map(|recall_at_1| {
                let retrieval = Retrieval {
                    recall_at_1,
                    ..Retrieval::default()
                };
                let evaluation = Evaluation {
                    pairs: 50,
                    anchor_to_positive: retrieval,
                    positive_to_anchor: retrieval,
                    ..Evaluation::default()
                };
                serde_json::to_value(evaluation).unwrap()
            }),
            reason: None,
        };
        let rows: Vec<_> = described.iter().enumerate().map(row).collect();
        let ids = rows.iter().map(|row| row.id).collect();
        (rows, ids)
    }

    use CheckpointRole::{Candidate, Live, Retired};
    use CheckpointStatus::{Complete, Failed, Writing};

    #[test]
    fn the_live_the_newest_and_the_best_stay() {
        let (rows, ids) = rows(&[
            (Complete, Retired, Some(0.1)),
            (Complete, Live, Some(0.2)),
            (Complete, Retired, Some(0.9)),
            (Complete, Candidate, None),
            (Complete, Candidate, Some(0.3)),
        ]);
        let retention = Retention {
            keep_latest: 1,
            keep_best: 1,
        };
        assert_eq!(retention.expired(&rows), [ids[0], ids[3]]);
    }

    #[test]
    fn zero_keeps_the_live_and_the_newest_complete_one_all_the_same() {
        let (rows, ids) = rows(&[
            (Complete, Live, None),
            (Complete, Candidate, Some(0.5)),
            (Complete, Candidate, None),
            (Writing, Candidate, None),
        ]);
        let retention = Retention {
            keep_latest: 0,
            keep_best: 0,
        };
        assert_eq!(retention.expired(&rows), [ids[1]]);
    }

    #[test]
    fn failed_rows_do_not_pile_up_nor_count_as_complete() {
        let (rows, ids) = rows(&[
            (Failed, Candidate, None),
            (Complete, Live, None),
            (Failed, Candidate, None),
            (Failed, Candidate, None),
        ]);
        let retention = Retention {
            keep_latest: 2,
            keep_best: 0,
        };
        assert_eq!(retention.expired(&rows), [ids[0]]);
    }
}
