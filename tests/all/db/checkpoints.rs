//! The database's rows on checkpoints and the training series: one live checkpoint, a series that thins evenly.

use jiff::Timestamp;
use kith::{
    db::{
        CheckpointRole, CheckpointRow, CheckpointStatus, Db, DbError, DecidedBy, Decision,
        StepMetrics, Verdict,
    },
    types::CheckpointId,
};
use tempfile::TempDir;

async fn open() -> (Db, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
    (db, folder)
}

fn checkpoint(status: CheckpointStatus) -> CheckpointRow {
    CheckpointRow {
        status,
        note: Some("before the move".into()),
        parent: Some(CheckpointId::now()),
        ..CheckpointRow::new(CheckpointId::now(), 7, Timestamp::now())
    }
}

fn decision() -> Decision {
    Decision {
        by: DecidedBy::Gate,
        why: "it is better".to_owned(),
        hold: false,
    }
}

#[tokio::test]
async fn a_checkpoints_row_follows_its_life() {
    let (db, _folder) = open().await;
    let written = checkpoint(CheckpointStatus::Writing);
    db.insert_checkpoint(&written).await.unwrap();
    let stored = db.checkpoint(written.id).await.unwrap().unwrap();
    let sequence = stored.sequence;
    assert!(sequence > 0, "the database gives it");
    let expected = CheckpointRow {
        sequence,
        ..written.clone()
    };
    assert_eq!(stored, expected);
    assert!(
        !db.promote_checkpoint(written.id, &decision())
            .await
            .unwrap(),
        "it is not complete"
    );

    db.complete_checkpoint(written.id, 1 << 33).await.unwrap();
    let evaluation = serde_json::json!({"recall": 0.5});
    let score = serde_json::json!({"found": [1]});
    db.set_evaluation(written.id, &evaluation, &score)
        .await
        .unwrap();
    db.set_verdict(written.id, Verdict::Worse, Some("worse"))
        .await
        .unwrap();
    let row = db.checkpoint(written.id).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.bytes),
        (CheckpointStatus::Complete, 1 << 33)
    );
    assert_eq!(
        (row.evaluation, row.reason.as_deref()),
        (Some(evaluation), Some("worse"))
    );
    assert_eq!(
        (row.score, row.verdict),
        (Some(score), Some(Verdict::Worse))
    );

    let newer = checkpoint(CheckpointStatus::Writing);
    db.insert_checkpoint(&newer).await.unwrap();
    db.fail_checkpoint(newer.id, "disk full").await.unwrap();
    let all = db.checkpoints().await.unwrap();
    assert_eq!(
        all.iter().map(|row| row.id).collect::<Vec<_>>(),
        [newer.id, written.id]
    );
    assert_eq!(
        (all[0].status, all[0].reason.as_deref()),
        (CheckpointStatus::Failed, Some("disk full"))
    );
    assert!(!db.promote_checkpoint(newer.id, &decision()).await.unwrap());

    assert!(db.delete_checkpoint(newer.id).await.unwrap());
    assert!(!db.delete_checkpoint(newer.id).await.unwrap());
    let gone = db.complete_checkpoint(newer.id, 1).await;
    assert!(
        matches!(gone, Err(DbError::MissingCheckpoint(id)) if id == newer.id),
        "{gone:?}"
    );
}

#[tokio::test]
async fn promotion_leaves_exactly_one_live() {
    let (db, _folder) = open().await;
    let rows = [(); 3].map(|()| checkpoint(CheckpointStatus::Complete));
    for row in &rows {
        db.insert_checkpoint(row).await.unwrap();
    }
    assert_eq!(db.live_checkpoint().await.unwrap(), None);
    for promoted in [0, 1, 0, 2, 2] {
        assert!(
            db.promote_checkpoint(rows[promoted].id, &decision())
                .await
                .unwrap()
        );
        let all = db.checkpoints().await.unwrap();
        let live: Vec<_> = all
            .iter()
            .filter(|row| row.role == CheckpointRole::Live)
            .collect();
        assert_eq!(
            live.iter().map(|row| row.id).collect::<Vec<_>>(),
            [rows[promoted].id]
        );
    }
    assert!(
        !db.promote_checkpoint(CheckpointId::now(), &decision())
            .await
            .unwrap()
    );
    let live = db.live_checkpoint().await.unwrap().unwrap();
    assert_eq!(
        live.id, rows[2].id,
        "a promotion that fails changes nothing"
    );
    assert_eq!(
        db.checkpoint(rows[1].id).await.unwrap().unwrap().role,
        CheckpointRole::Retired
    );
    assert!(
        !db.delete_checkpoint(live.id).await.unwrap(),
        "the live row stays"
    );

    let second = CheckpointRow {
        role: CheckpointRole::Live,
        ..checkpoint(CheckpointStatus::Complete)
    };
    assert!(
        db.insert_checkpoint(&second).await.is_err(),
        "the database itself refuses a second live row"
    );
    db.fail_checkpoint(live.id, "damaged").await.unwrap();
    assert_eq!(db.live_checkpoint().await.unwrap(), None);
}

fn metrics(step: u64, loss: f32) -> StepMetrics {
    StepMetrics {
        step,
        loss,
        global_loss_estimate: 0.1,
        acceptance_rate: 0.2,
        gradient_norm: 0.3,
        spread: 0.4,
        learning_rate: 2e-4,
        images_per_second: 100.0,
        at: Timestamp::now(),
    }
}

#[tokio::test]
async fn the_series_is_thinned_evenly_and_keeps_its_last_row() {
    let (db, _folder) = open().await;
    let rows: Vec<_> = (1..=100)
        .map(|step| metrics(10 * step, step as f32))
        .collect();
    db.insert_metrics(&rows, 50_000).await.unwrap();
    assert_eq!(db.metrics_since(0, 100).await.unwrap(), rows);
    assert_eq!(db.metrics_since(991, 10).await.unwrap(), rows[99..]);
    assert_eq!(db.metrics_since(500, 1000).await.unwrap(), rows[49..]);
    let steps = |rows: Vec<StepMetrics>| rows.iter().map(|row| row.step).collect::<Vec<_>>();
    assert_eq!(
        steps(db.metrics_since(0, 4).await.unwrap()),
        [250, 500, 750, 1000]
    );
    assert_eq!(
        steps(db.metrics_since(0, 3).await.unwrap()),
        [320, 660, 1000]
    );
    assert_eq!(steps(db.metrics_since(0, 1).await.unwrap()), [1000]);
    assert!(db.metrics_since(2000, 5).await.unwrap().is_empty());
    // A roll-back to step 500.
    db.drop_metrics_after(500).await.unwrap();
    assert_eq!(db.metrics_since(0, 1000).await.unwrap(), rows[..50]);
}

#[tokio::test]
async fn a_step_that_is_run_again_replaces_its_row_and_a_nan_stays_one() {
    let (db, _folder) = open().await;
    db.insert_metrics(&[metrics(10, 1.0), metrics(20, f32::NAN)], 50_000)
        .await
        .unwrap();
    db.insert_metrics(&[metrics(10, f32::INFINITY)], 50_000)
        .await
        .unwrap();
    let rows = db.metrics_since(0, 10).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].loss, f32::INFINITY);
    assert!(rows[1].loss.is_nan());
}

#[tokio::test]
async fn a_long_series_keeps_its_newest_half_and_is_even_before_that() {
    let (db, _folder) = open().await;
    let max = 1000;
    for first in (1..=6000).step_by(100) {
        let rows: Vec<_> = (first..first + 100)
            .map(|step| metrics(step, 1.0))
            .collect();
        db.insert_metrics(&rows, max).await.unwrap();
    }
    let series = db.metrics_since(0, 100_000).await.unwrap();
    // It is looked at every 512 rows.
    assert!(series.len() <= 1000 + 512, "{}", series.len());
    let steps: Vec<u64> = series.iter().map(|row| row.step).collect();
    assert_eq!(steps[0], 1, "the first row stays");
    assert_eq!(
        steps[steps.len() - 500..],
        (5501..=6000).collect::<Vec<_>>()
    );
    let gaps = steps.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max() <= Some(64), "no hole in the series");
    // A resumed run writes its rows again: nothing is there twice, nothing older is lost.
    let again: Vec<_> = (5901..=6000).map(|step| metrics(step, 2.0)).collect();
    db.insert_metrics(&again, max).await.unwrap();
    assert!(db.metrics_since(0, 100_000).await.unwrap().len() <= series.len());
}

/// A database as it was before the migration of that number.
pub(super) async fn open_before(version: i64, file: &std::path::Path) -> sqlx::SqlitePool {
    let url = format!("sqlite://{}?mode=rwc", file.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let mut old = sqlx::migrate!("./migrations");
    old.migrations = old
        .migrations
        .iter()
        .filter(|m| m.version < version)
        .cloned()
        .collect();
    old.run(&pool).await.unwrap();
    pool
}

#[tokio::test]
async fn checkpoints_of_an_older_database_keep_their_order_what_serves_and_the_callers_notes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kith.db");
    let old = open_before(4, &file).await;
    for (id, role, note, step) in [
        (2u8, "live", None, 9),
        (1, "retired", Some("mine"), 5),
        (3, "candidate", None, 12),
    ] {
        sqlx::query("INSERT INTO checkpoints VALUES (?, 'complete', ?, ?, 1, ?, NULL, '2026-01-02T03:04:05Z', NULL, NULL)")
            .bind(&[id; 16][..])
            .bind(role)
            .bind(step)
            .bind(note)
            .execute(&old)
            .await
            .unwrap();
    }
    old.close().await;
    let db = Db::open(&file).await.unwrap();
    let rows = db.checkpoints().await.unwrap();
    let described: Vec<_> = rows
        .iter()
        .map(|row| (row.step, row.kept, row.role))
        .collect();
    assert_eq!(
        described,
        [
            (12, false, CheckpointRole::Candidate),
            (9, false, CheckpointRole::Live),
            (5, true, CheckpointRole::Retired)
        ]
    );
    let newer = checkpoint(CheckpointStatus::Writing);
    db.insert_checkpoint(&newer).await.unwrap();
    assert_eq!(db.checkpoints().await.unwrap()[0].id, newer.id);
    assert_eq!(db.live_checkpoint().await.unwrap().unwrap().step, 9);
}
