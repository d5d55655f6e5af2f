//! What checkpoints leave behind: those that are kept no longer go, what was erased is in none, and a rate that a caller has set outlives a kill.

use kith::{
    checkpoint::Label,
    db::{CheckpointRow, CheckpointStatus},
    train::TrainingStatus,
};
use kith_mcmc::SlotKey;
use kith_nn::NamedArray;

use crate::{
    lab::{Lab, config, until},
    train::train_to_the_end,
    train_life::until_rows,
};

/// So few are kept that more would be seen.
const FEW: &str = "retention.keep_latest=1";

fn count(rows: &[CheckpointRow], status: CheckpointStatus) -> usize {
    rows.iter().filter(|row| row.status == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_snapshot_that_fails_is_tried_again_and_leaves_few_rows() {
    let lab = Lab::new(0.0).await;
    let sets = ["training.max_steps=3", "gate.collapse_spread=0.0", FEW];
    let trainer = lab.start(config(&sets)).await;
    lab.block_checkpoints();
    lab.post(0..8).await;
    let failed = |rows: &[CheckpointRow]| count(rows, CheckpointStatus::Failed);
    until_rows(&lab, |rows| failed(rows) == 2).await;
    // Nothing could be removed meanwhile either.
    lab.unblock_checkpoints();
    let ends = |rows: &[CheckpointRow]| {
        let newest = &rows[0];
        newest.status == CheckpointStatus::Complete && newest.step == 3 && failed(rows) == 1
    };
    until_rows(&lab, ends).await;
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_training_off_copies_that_wait_for_a_fit_replace_each_other() {
    let lab = Lab::new(0.0).await;
    let pairs = lab.post(0..20).await;
    let fits = ["encoder.dim=8", "snapshots.head_pairs=100", FEW];
    let sets = [&fits[..], &["gate.collapse_spread=0.0"]].concat();
    let trainer = lab.start(config(&sets)).await;
    until(&trainer, |status| status.step > 2).await;
    trainer.stop().await.unwrap();
    // A stop leaves a checkpoint without a fit; each erasure makes another one due by time.
    let off = ["training.enabled=false", "snapshots.every_minutes=0.0001"];
    let trainer = lab.start(config(&[&sets[..], &off].concat())).await;
    let newest = async || lab.db.checkpoints().await.unwrap()[0].id;
    for pair in &pairs[..4] {
        let before = newest().await;
        lab.db.delete_pair(pair.id).await.unwrap();
        // What serves, the newest, and the one that the learner is read from.
        let replaced = |rows: &[CheckpointRow]| {
            rows[0].id != before && rows[0].status == CheckpointStatus::Complete && rows.len() <= 3
        };
        until_rows(&lab, replaced).await;
    }
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_holds_prototypes_of_what_was_erased_whether_training_is_on_or_off() {
    for enabled in [true, false] {
        let lab = Lab::new(0.0).await;
        let rows = lab.post(0..12).await;
        let sets = ["learning.objective=neuclip", "training.max_steps=6"];
        let before = train_to_the_end(&lab, config(&sets)).await;
        let known = sources(&before.optimizer);
        let both = rows.iter().filter(|row| known.contains(&row.key.0));
        let [early, late] = both.take(2).collect::<Vec<_>>()[..] else {
            panic!("{known:?}")
        };
        // One is erased while nothing runs, one meanwhile.
        lab.db.delete_pair(early.id).await.unwrap();
        let enabled = format!("training.enabled={enabled}");
        let trainer = lab.start(config(&[&sets[..], &[&enabled]].concat())).await;
        until(&trainer, |status| status.pairs == 11).await;
        lab.db.delete_pair(late.id).await.unwrap();
        let id = lab.take(&trainer, None).await.id;
        trainer.stop().await.unwrap();
        let left = sources(&lab.checkpoints.load(id).await.unwrap().optimizer);
        assert!(!left.is_empty(), "others stay");
        for erased in [early, late] {
            assert!(!left.contains(&erased.key.0), "{enabled}");
        }
    }
}

/// The pairs of which prototypes are kept.
fn sources(arrays: &[NamedArray]) -> Vec<u32> {
    let found = arrays.iter().find(|a| a.name == "prototypes.sources");
    let halves = found.map_or(&[][..], |array| &array.data);
    let slots = halves.chunks_exact(2);
    let packed = slots.map(|half| (half[1] as u32) << 16 | half[0] as u32);
    packed
        .map(|packed| SlotKey::from_packed(packed).pair().0)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_was_set_after_the_newest_checkpoint_is_not_lowered_by_its_roll_backs() {
    for (set, expected) in [(Some(0.003), 1.0), (None, 0.25)] {
        let lab = Lab::new(0.0).await;
        lab.post(0..8).await;
        let sets = ["training.max_steps=3", "gate.collapse_spread=0.0"];
        let mut after_two = train_to_the_end(&lab, config(&sets)).await;
        after_two.trainer.rate_scale = 0.25;
        after_two.trainer.recovery.tries = 2;
        let label = Label::new(None);
        lab.checkpoints.begin(&label, 3).await.unwrap();
        let written = lab.checkpoints.write(&label, after_two, None).await;
        assert_eq!(written.unwrap().status, CheckpointStatus::Complete);
        // Kept at once, while a kill came before the next snapshot.
        lab.db.set_learning_rate(set).await.unwrap();
        let trainer = lab.start(config(&sets)).await;
        // Only the loop says so, once it has taken note of the choices.
        let is_looped = |status: &TrainingStatus| {
            let what = status.waiting_for.as_ref();
            what.is_some_and(|what| what.contains("max_steps"))
        };
        let status = until(&trainer, is_looped).await;
        assert_eq!(status.resumed_from, Some(label.id));
        assert_eq!(status.rate_scale, expected);
        trainer.stop().await.unwrap();
    }
}
