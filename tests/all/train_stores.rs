//! Stores that fail for a while: training and judging go on once they work again.

use kith::train::TrainingState;

use crate::{
    lab::{Lab, config, until},
    train_life::until_rows,
};

/// Renames a table behind the server's back.
async fn rename(lab: &Lab, from: &str, to: &str) {
    let mut database = lab.sqlite().await;
    let statement = format!("ALTER TABLE {from} RENAME TO {to}");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&mut database)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_cannot_be_read_for_a_while_change_nothing_of_what_is_learned() {
    let mut learned = Vec::new();
    for fails in [false, true] {
        let lab = Lab::new(0.0).await;
        lab.post(0..8).await;
        // Every batch asks the database where its images are.
        let sets = ["training.cache_mb=0", "training.max_steps=24"];
        let trainer = lab.start(config(&sets)).await;
        if fails {
            until(&trainer, |status| status.step > 2).await;
            rename(&lab, "images", "images_away").await;
            let failed = until(&trainer, |status| status.state == TrainingState::Failed).await;
            assert!(failed.last_error.unwrap().contains("images"));
            rename(&lab, "images_away", "images").await;
            trainer.set_paused(false).await.unwrap();
        }
        until(&trainer, |status| status.step == 24).await;
        trainer.stop().await.unwrap();
        let (_, newest) = lab.checkpoints.newest().await.unwrap().unwrap();
        learned.push((newest.model, newest.trainer));
    }
    assert_eq!(learned[0], learned[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_for_a_while_costs_no_step() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let trainer = lab.start(config(&[])).await;
    until(&trainer, |status| status.step > 5).await;
    rename(&lab, "erasures", "erasures_away").await;
    let failed = until(&trainer, |status| status.state == TrainingState::Failed).await;
    assert!(failed.step > 5);
    assert!(failed.last_error.unwrap().contains("erasures"));
    rename(&lab, "erasures_away", "erasures").await;
    trainer.set_paused(false).await.unwrap();
    let status = until(&trainer, |status| status.state == TrainingState::Running).await;
    assert!(
        status.step >= failed.step,
        "{} < {}",
        status.step,
        failed.step
    );
    until(&trainer, |status| status.step > failed.step + 3).await;
    assert_eq!(trainer.status().recoveries, 0);
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_a_failing_store_kept_from_its_verdict_gets_it_later() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let trainer = lab.start(config(&["gate.collapse_spread=0.0"])).await;
    until(&trainer, |status| status.step > 2).await;
    trainer.set_paused(true).await.unwrap();
    // Only judging asks where images are now.
    rename(&lab, "images", "images_away").await;
    let id = lab.take(&trainer, None).await.id;
    let failed = until(&trainer, |status| status.last_error.is_some()).await;
    let why = failed.last_error.unwrap();
    assert!(
        why.contains(&id.to_string()) && why.contains("images"),
        "{why}"
    );
    rename(&lab, "images_away", "images").await;
    let has_verdict = |row: &kith::db::CheckpointRow| row.id == id && row.verdict.is_some();
    until_rows(&lab, |rows| rows.iter().any(has_verdict)).await;
    until(&trainer, |status| status.last_error.is_none()).await;
    trainer.stop().await.unwrap();
}
