//! Alarms about learning: raised when something is wrong, taken back when it is not any more, and silent otherwise.

use kith::{
    db::{CheckpointRow, PairRow, Verdict},
    train::{Alarm, AlarmKind, Trainer, TrainingStatus},
};

use crate::lab::{Lab, collapsing, config, png, until};
use crate::train_life::until_rows;

/// Each image looks the same at every step.
const SAME_VIEWS: [&str; 5] = [
    "augment.crop_min_area=1.0",
    "augment.flip=0.0",
    "augment.jitter=0.0",
    "augment.greyscale=0.0",
    "augment.blur=0.0",
];

fn raised(status: &TrainingStatus, kind: AlarmKind) -> Option<&Alarm> {
    status.alarms.iter().find(|alarm| alarm.alarm == kind)
}

/// The alarm of this kind, once it is raised.
async fn alarm(trainer: &Trainer, kind: AlarmKind) -> Alarm {
    let status = until(trainer, |status| raised(status, kind).is_some()).await;
    raised(&status, kind).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collapsed_checkpoint_raises_an_alarm_with_its_reason_and_remedy() {
    let lab = Lab::new(0.0).await;
    lab.post(0..8).await;
    let trainer = lab.start(collapsing(&["snapshots.every_steps=6"])).await;
    let found = alarm(&trainer, AlarmKind::Collapse).await;
    assert!(found.message.contains("spread"), "{}", found.message);
    assert!(found.remedy.contains("learning_rate"), "{}", found.remedy);
    assert!(found.since_step > 0);
    trainer.stop().await.unwrap();
}

/// The alarms of a trainer whose pairs are partly held out, once a candidate was judged.
async fn after_a_verdict(min_pairs: usize) -> Vec<AlarmKind> {
    let lab = Lab::new(0.4).await;
    lab.post(0..30).await;
    let least = format!("gate.min_pairs={min_pairs}");
    let sets = [
        "gate.collapse_spread=0.0",
        "snapshots.every_steps=4",
        "training.max_steps=4",
        // At least as many are asked as the gate needs.
        "snapshots.evaluation_pairs=1",
        &least,
    ];
    let trainer = lab.start(config(&sets)).await;
    let judged = async || {
        let rows = lab.db.checkpoints().await.unwrap();
        rows.iter().any(|row| row.verdict.is_some()).then_some(())
    };
    crate::lab::poll(judged).await.expect("nothing was judged");
    let status = trainer.status();
    trainer.stop().await.unwrap();
    status.alarms.iter().map(|alarm| alarm.alarm).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_held_out_pairs_to_judge_by_raise_an_alarm_and_enough_do_not() {
    assert_eq!(after_a_verdict(1000).await, [AlarmKind::FewHeldOut]);
    assert_eq!(after_a_verdict(8).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_out_pairs_of_one_group_are_one_and_compare_nothing() {
    let lab = Lab::new(1.0).await;
    lab.post_in(0..30, Some("all")).await;
    let trained = (30..42).map(|n| [png(n, 0), png(n, 60)]);
    lab.post_images(trained, 0.0).await;
    let sets = [
        "gate.collapse_spread=0.0",
        "training.max_steps=4",
        "snapshots.every_steps=4",
    ];
    let trainer = lab.start(config(&sets)).await;
    let found = alarm(&trainer, AlarmKind::FewHeldOut).await;
    let why = "30 held-out pairs are too few to compare by: those that share a group or an image count as one, which leaves 1,";
    assert!(found.message.contains(why), "{}", found.message);
    assert!(found.remedy.contains("more things"), "{}", found.remedy);
    let last = |rows: &[CheckpointRow]| rows[0].step == 4 && rows[0].verdict.is_some();
    let rows = until_rows(&lab, last).await;
    assert_eq!(rows[0].verdict, Some(Verdict::Untested));
    assert!(rows[0].reason.as_ref().unwrap().contains(why));
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_without_negatives_raise_an_alarm_until_a_stranger_comes() {
    let lab = Lab::new(0.0).await;
    lab.post_in(0..6, Some("all")).await;
    let trainer = lab.start(config(&[])).await;
    let found = alarm(&trainer, AlarmKind::NothingToLearn).await;
    assert!(found.message.contains("all 6 pairs share a group"));
    assert!(found.remedy.contains("group"));
    lab.post(6..9).await;
    let gone = |status: &TrainingStatus| status.step > 0 && status.alarms.is_empty();
    until(&trainer, gone).await;
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_that_stand_still_raise_an_alarm_and_moving_ones_do_not() {
    // At this β a chain stays on the image that is most like its anchor, whose views and whose encoder do not change.
    let still = [
        "learning.beta=100000",
        "learning.scores=refreshed",
        "schedule.learning_rate=1e-12",
        "schedule.final_rate=0",
    ];
    let still = [&still[..], &SAME_VIEWS].concat();
    for (sets, expected) in [(&still[..], true), (&[], false)] {
        let lab = Lab::new(0.0).await;
        lab.post(0..8).await;
        let trainer = lab.start(config(sets)).await;
        let settled = |status: &TrainingStatus| {
            status.step >= 400 || raised(status, AlarmKind::FrozenChains).is_some()
        };
        let status = until(&trainer, settled).await;
        let found = raised(&status, AlarmKind::FrozenChains);
        assert_eq!(found.is_some(), expected, "{:?}", status.acceptance_rate);
        trainer.stop().await.unwrap();
    }
}

/// A trainer whose held-out recall falls while its loss falls: two shades of a pattern belong together where they are held out. Training learns that a
/// pattern belongs to the next one's brighter shade, and that its own is a negative. Also the pairs that are held out.
async fn over_fitting(lab: &Lab, min_pairs: usize) -> (Trainer, Vec<PairRow>) {
    const PATTERNS: u32 = 24;
    let held_out = (0..PATTERNS).map(|n| [png(n, 0), png(n, 60)]);
    let held_out = lab.post_images(held_out, 1.0).await;
    let trained = (0..PATTERNS).map(|n| [png(n, 5), png((n + 1) % PATTERNS, 65)]);
    lab.post_images(trained, 0.0).await;
    let least = format!("gate.min_pairs={min_pairs}");
    let sets = [
        "training.batch=12",
        "schedule.learning_rate=0.002",
        "learning.average_steps=0",
        "snapshots.every_steps=10",
        "gate.collapse_spread=0.0",
        &least,
        // A roll-back would begin the series anew.
        "gate.max_refusals=0",
    ];
    let trainer = lab.start(config(&[&sets[..], &SAME_VIEWS].concat()));
    (trainer.await, held_out)
}

#[tokio::test(flavor = "multi_thread")]
async fn held_out_recall_that_falls_while_the_loss_falls_raises_an_alarm_if_pairs_suffice() {
    let lab = Lab::new(0.0).await;
    let (trainer, held_out) = over_fitting(&lab, 20).await;
    let found = alarm(&trainer, AlarmKind::OverFitting).await;
    let message = &found.message;
    assert!(
        message.starts_with("Held-out recall@1 has fallen"),
        "{message}"
    );
    assert!(found.remedy.contains("[augment]"), "{}", found.remedy);
    assert!(found.since_step > 10, "{found:?}");
    // Another evaluation without a step says nothing that is new.
    let judged = async || {
        trainer.set_learning_rate(Some(0.002)).await.unwrap();
        let id = lab.take(&trainer, None).await.id;
        let has_verdict = |row: &CheckpointRow| row.id == id && row.verdict.is_some();
        until_rows(&lab, |rows| rows.iter().any(has_verdict)).await;
        raised(&trainer.status(), AlarmKind::OverFitting).cloned()
    };
    let paused = loop {
        trainer.set_paused(true).await.unwrap();
        // The steps since the last evaluation may have been good ones.
        if let Some(found) = judged().await {
            break found;
        }
        trainer.set_paused(false).await.unwrap();
        alarm(&trainer, AlarmKind::OverFitting).await;
    };
    assert_eq!(judged().await, Some(paused));
    trainer.set_paused(false).await.unwrap();
    // Fewer held-out pairs than the gate asks for cannot tell any more.
    for pair in &held_out[..12] {
        lab.db.delete_pair(pair.id).await.unwrap();
    }
    let taken_back = |status: &TrainingStatus| {
        raised(status, AlarmKind::OverFitting).is_none()
            && raised(status, AlarmKind::FewHeldOut).is_some()
    };
    until(&trainer, taken_back).await;
    trainer.stop().await.unwrap();

    let lab = Lab::new(0.0).await;
    let (trainer, _) = over_fitting(&lab, 1000).await;
    let longer = |status: &TrainingStatus| status.step >= 3 * found.since_step;
    let status = until(&trainer, longer).await;
    assert!(raised(&status, AlarmKind::FewHeldOut).is_some());
    assert!(raised(&status, AlarmKind::OverFitting).is_none());
    trainer.stop().await.unwrap();
}
