//! The projection that is fitted to stored pairs when a snapshot is taken.

use bytes::Bytes;
use kith::{
    checkpoint::{Label, Snapshot},
    db::{CheckpointRole, CheckpointRow, CheckpointStatus},
    train::TrainConfig,
};
use kith_nn::NamedArray;

use crate::{
    lab::{Lab, collapsing, config, png, poll, until},
    train::train_to_the_end,
};

/// As many pairs are enough for eight values.
const SMALL: &str = "encoder.dim=8";
const PAIRS: u32 = 12;
const FITS: &str = "snapshots.head_pairs=100";
/// Random weights see hardly any difference between these images: by the gate's rule all of them would count as collapsed.
const NO_COLLAPSE: &str = "gate.collapse_spread=0";

/// The arrays that a fit replaces.
const HEAD: [&str; 6] = [
    "projection.weight",
    "projection.bias",
    "places.weight",
    "places.bias",
    "fine_places.weight",
    "fine_places.bias",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_serves_a_fitted_projection_and_training_goes_on_from_its_own() {
    let [fitted, bare, again] = [true, false, true].map(|fits| async move {
        let lab = Lab::new(0.0).await;
        lab.post(0..PAIRS).await;
        let pairs = if fits { FITS } else { "snapshots.head_pairs=0" };
        let snapshot = at_step_3(&lab, &[SMALL, NO_COLLAPSE, pairs]).await;
        let until = config(&[SMALL, NO_COLLAPSE, pairs, "training.max_steps=6"]);
        (snapshot, train_to_the_end(&lab, until).await)
    });
    let ((fitted, fitted_end), (bare, bare_end)) = (fitted.await, bare.await);
    for name in HEAD {
        let replaced = array(&fitted.optimizer, &format!("{name}.replaced"));
        assert_eq!(replaced, array(&bare.model, name), "{name}");
        assert!(array(&fitted.model, name) != replaced, "{name}");
    }
    let others = |snapshot: &Snapshot| -> Vec<NamedArray> {
        let arrays = snapshot.model.iter().cloned();
        arrays
            .filter(|array| !HEAD.contains(&array.name.as_str()))
            .collect()
    };
    assert!(others(&fitted) == others(&bare), "nothing else is fitted");
    // The last snapshot is taken when the steps are done, and again by the stop if none was: only the former is fitted.
    let (fitted_end, bare_end) = (unfitted(fitted_end), unfitted(bare_end));
    assert!(
        fitted_end.model == bare_end.model,
        "training goes on as if nothing had been"
    );
    assert!(fitted_end.optimizer == bare_end.optimizer);
    let (again, _) = again.await;
    assert!(
        again.model == fitted.model,
        "the same pairs give the same projection"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_pairs_and_training_that_is_off_leave_the_projection() {
    let lab = Lab::new(0.0).await;
    lab.post(0..7).await;
    let few = at_step_3(&lab, &[SMALL, FITS, NO_COLLAPSE]).await;
    assert!(!is_fitted(&few), "7 pairs for 8 values");
    let posted = lab.post(7..PAIRS).await;
    let trainer = lab
        .start(config(&[
            SMALL,
            FITS,
            NO_COLLAPSE,
            "training.enabled=false",
        ]))
        .await;
    // Without a change that the trainer has seen the snapshot would be the checkpoint that is there.
    let pairs = u64::from(PAIRS);
    until(&trainer, |status| status.pairs == pairs).await;
    lab.db.delete_pair(posted[0].id).await.unwrap();
    until(&trainer, |status| status.pairs == pairs - 1).await;
    let before = lab.db.checkpoints().await.unwrap().len();
    let row = lab.take(&trainer, None).await;
    assert_eq!(lab.db.checkpoints().await.unwrap().len(), before + 1);
    trainer.stop().await.unwrap();
    assert!(!is_fitted(&lab.checkpoints.load(row.id).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_count_in_a_fit_by_their_weight() {
    let fitted = |weights: [f64; 2]| async move {
        let lab = Lab::new(0.0).await;
        let pairs = (0..PAIRS).map(|n| {
            let weight = weights[usize::from(n >= 9)];
            ([png(n, 0), png(n, 60)], Some(weight))
        });
        lab.post_weighted(pairs, 0.0).await;
        // Training draws pairs by weight too. At this rate it changes nothing.
        let still = ["schedule.learning_rate=1e-30", "schedule.final_rate=0"];
        let snapshot = at_step_3(&lab, &[&[SMALL, FITS, NO_COLLAPSE], &still[..]].concat()).await;
        array(&snapshot.model, "projection.weight").to_vec()
    };
    let one = fitted([1.0, 1.0]).await;
    let largest = one
        .iter()
        .fold(0.0_f32, |most, value| most.max(value.abs()));
    let distance = |other: &[f32]| {
        let both = one.iter().zip(other);
        both.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
    };
    // Rounding in sums over a dozen pairs; three pairs of twelve left out are another matter.
    assert!(distance(&fitted([7.0, 7.0]).await) < 1e-3);
    assert!(distance(&fitted([1.0, 0.001]).await) > 0.05);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_two_towers_is_fitted_with_the_other_and_training_goes_on_from_its_own() {
    let both = |pairs| async move {
        let lab = Lab::new(0.0).await;
        lab.post(0..PAIRS).await;
        let sets = [SMALL, NO_COLLAPSE, "encoder.towers=2", pairs];
        let snapshot = at_step_3(&lab, &sets).await;
        let until = config(&[&sets[..], &["training.max_steps=5"]].concat());
        (snapshot, train_to_the_end(&lab, until).await)
    };
    let (fitted, fitted_end) = both(FITS).await;
    let (bare, bare_end) = both("snapshots.head_pairs=0").await;
    for name in HEAD {
        for name in [name.to_owned(), format!("positive.{name}")] {
            let replaced = array(&fitted.optimizer, &format!("{name}.replaced"));
            assert_eq!(replaced, array(&bare.model, &name), "{name}");
            // The two biases of places are zero with a fit and at the beginning.
            let is_zero = name.ends_with("places.bias");
            assert!(is_zero || array(&fitted.model, &name) != replaced, "{name}");
        }
    }
    let heads = ["projection.weight", "positive.projection.weight"];
    let [anchor, positive] = heads.map(|name| array(&fitted.model, name));
    assert!(anchor != positive, "each side has its own");
    assert!(unfitted(fitted_end).model == unfitted(bare_end).model);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_an_image_with_itself_are_fitted_by_their_views() {
    let lab = Lab::new(0.0).await;
    lab.post_images(alone(), 0.0).await;
    let snapshot = at_step_3(&lab, &[SMALL, FITS, NO_COLLAPSE]).await;
    assert!(is_fitted(&snapshot));
    // Without augmentation both views are the image, and nothing tells what differs within a pair.
    let lab = Lab::new(0.0).await;
    lab.post_images(alone(), 0.0).await;
    let still = at_step_3(
        &lab,
        &[
            SMALL,
            FITS,
            NO_COLLAPSE,
            "augment.crop_min_area=1",
            "augment.flip=0",
            "augment.jitter=0",
            "augment.greyscale=0",
            "augment.blur=0",
        ],
    )
    .await;
    assert!(!is_fitted(&still));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collapse_is_not_hidden_by_a_fit() {
    for (warmup, fitted) in [(2, false), (3, true)] {
        let lab = Lab::new(0.0).await;
        lab.post(0..PAIRS).await;
        let mut collapsed = collapsing(&[SMALL, FITS]);
        collapsed.schedule.warmup_steps = warmup;
        collapsed.run.max_steps = 3;
        let snapshot = at_the_end(&lab, collapsed).await;
        // Random weights begin close to a collapse.
        assert_eq!(is_fitted(&snapshot), fitted, "a warm-up of {warmup}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_of_a_stop_is_fitted_at_the_next_start_before_anything_is_judged() {
    let lab = Lab::new(0.0).await;
    let stopped = stop_unfitted(&lab).await;
    let done = config(&sets_until(&stopped));
    let trainer = lab.start(done.clone()).await;
    let serves = async || {
        let rows = lab.db.checkpoints().await.unwrap();
        let mut live = rows.iter().filter(|row| row.role == CheckpointRole::Live);
        live.find(|row| row.step == stopped.step).map(|row| row.id)
    };
    let live = poll(serves).await.expect("of the last step");
    trainer.stop().await.unwrap();
    assert!(is_fitted(&lab.checkpoints.load(live).await.unwrap()));
    let stopped = lab.db.checkpoint(stopped.id).await.unwrap().unwrap();
    assert_eq!(stopped.verdict, None, "nothing was shown by it");

    // Once is enough.
    let before = lab.db.checkpoints().await.unwrap().len();
    let trainer = lab.start(done).await;
    until(&trainer, |status| status.step == stopped.step).await;
    trainer.stop().await.unwrap();
    assert_eq!(lab.db.checkpoints().await.unwrap().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fit_that_a_stop_cuts_off_leaves_no_copy_and_the_next_start_makes_it() {
    let lab = Lab::new(0.0).await;
    let stopped = stop_unfitted(&lab).await;
    let done = config(&sets_until(&stopped));
    let copies = async || {
        let mut fitted = Vec::new();
        for row in lab.db.checkpoints().await.unwrap() {
            if row.step == stopped.step
                && row.id != stopped.id
                && row.status == CheckpointStatus::Complete
            {
                fitted.push(is_fitted(&lab.checkpoints.load(row.id).await.unwrap()));
            }
        }
        fitted
    };
    for _ in 0..3 {
        lab.start(done.clone()).await.stop().await.unwrap();
        assert!(copies().await.into_iter().all(|fitted| fitted));
    }
    let trainer = lab.start(done).await;
    poll(async || copies().await.pop()).await.expect("a fit");
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_training_off_what_a_stop_left_unfitted_waits_unjudged() {
    let lab = Lab::new(0.0).await;
    let stopped = stop_unfitted(&lab).await;
    let off = config(&[&sets_until(&stopped)[..], &["training.enabled=false"]].concat());
    let more = lab.post(PAIRS..PAIRS + 2).await;
    let trainer = lab.start(off).await;
    until(&trainer, |status| status.pairs == u64::from(PAIRS) + 2).await;
    // Without a pair the state is another, so that a snapshot is taken, by the thread that would have judged before.
    lab.db.delete_pair(more[0].id).await.unwrap();
    until(&trainer, |status| status.pairs == u64::from(PAIRS) + 1).await;
    let copy = lab.take(&trainer, None).await;
    assert_ne!(copy.id, stopped.id);
    // Another is written after this one is judged, if it is.
    lab.db.delete_pair(more[1].id).await.unwrap();
    until(&trainer, |status| status.pairs == u64::from(PAIRS)).await;
    lab.take(&trainer, None).await;
    trainer.stop().await.unwrap();
    for id in [stopped.id, copy.id] {
        let row = lab.db.checkpoint(id).await.unwrap().unwrap();
        assert_eq!(
            (row.verdict, row.role == CheckpointRole::Live),
            (None, false)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_judged_with_the_projection_that_it_came_with() {
    let lab = Lab::new(0.0).await;
    let stopped = stop_unfitted(&lab).await;
    // As an import does: weights without moments, as the newest checkpoint.
    let mut imported = lab.checkpoints.load(stopped.id).await.unwrap();
    imported.optimizer.clear();
    let label = Label::new(None);
    lab.checkpoints.begin(&label, stopped.step).await.unwrap();
    lab.checkpoints.write(&label, imported, None).await.unwrap();
    let trainer = lab.start(config(&sets_until(&stopped))).await;
    let judged = async || {
        let row = lab.db.checkpoint(label.id).await.unwrap().unwrap();
        row.verdict
    };
    poll(judged).await.expect("a verdict");
    trainer.stop().await.unwrap();
    assert!(!is_fitted(&lab.checkpoints.load(label.id).await.unwrap()));
}

const STOPPED: [&str; 4] = [SMALL, FITS, NO_COLLAPSE, "snapshots.first_steps=0"];

/// The checkpoint of a stop after some steps.
async fn stop_unfitted(lab: &Lab) -> CheckpointRow {
    lab.post(0..PAIRS).await;
    let trainer = lab.start(config(&STOPPED)).await;
    until(&trainer, |status| status.step >= 3).await;
    trainer.stop().await.unwrap();
    let stopped = lab.db.checkpoints().await.unwrap().remove(0);
    assert!(!is_fitted(&lab.checkpoints.load(stopped.id).await.unwrap()));
    assert_eq!(stopped.verdict, None);
    stopped
}

/// No step is made after that of `stopped`.
fn sets_until(stopped: &CheckpointRow) -> Vec<&'static str> {
    let end = format!("training.max_steps={}", stopped.step);
    [&STOPPED[..], &[end.leak()]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_snapshot_of_a_model_comes_early_and_once() {
    let lab = Lab::new(0.0).await;
    lab.post(0..PAIRS).await;
    let sets = [
        "snapshots.first_steps=2",
        "training.max_steps=9",
        "retention.keep_latest=50",
    ];
    train_to_the_end(&lab, config(&sets)).await;
    assert_eq!(steps(&lab).await, [0, 2, 9]);
}

/// Pairs of an image with itself.
fn alone() -> impl Iterator<Item = [Bytes; 2]> {
    (0..PAIRS).map(|pair| [png(pair, 0), png(pair, 0)])
}

/// The snapshot that a caller takes after three steps.
async fn at_step_3(lab: &Lab, sets: &[&str]) -> Snapshot {
    at_the_end(lab, config(&[sets, &["training.max_steps=3"]].concat())).await
}

/// The snapshot that a caller takes after the last step.
async fn at_the_end(lab: &Lab, config: TrainConfig) -> Snapshot {
    let end = config.run.max_steps;
    let trainer = lab.start(config).await;
    until(&trainer, |status| status.step == end).await;
    let row = lab.take(&trainer, None).await;
    trainer.stop().await.unwrap();
    lab.checkpoints.load(row.id).await.unwrap()
}

/// The snapshot with the projection that training goes on from.
fn unfitted(mut snapshot: Snapshot) -> Snapshot {
    let replaced = |array: &mut NamedArray| array.name.ends_with(".replaced");
    for kept in snapshot.optimizer.extract_if(.., replaced) {
        let name = kept.name.trim_end_matches(".replaced");
        let mut model = snapshot.model.iter_mut();
        model.find(|array| array.name == name).unwrap().data = kept.data;
    }
    snapshot
}

fn is_fitted(snapshot: &Snapshot) -> bool {
    snapshot
        .optimizer
        .iter()
        .any(|array| array.name.ends_with(".replaced"))
}

fn array<'a>(arrays: &'a [NamedArray], name: &str) -> &'a [f32] {
    &arrays.iter().find(|array| array.name == name).unwrap().data
}

#[tokio::test(flavor = "multi_thread")]
async fn many_new_pairs_bring_a_snapshot_before_its_time_whatever_is_restarted_meanwhile() {
    let lab = Lab::new(0.0).await;
    lab.post(0..PAIRS).await;
    let sets = |end: u64, after: u64| {
        config(&[
            &format!("snapshots.first_steps={after}"),
            "retention.keep_latest=50",
            &format!("training.max_steps={end}"),
        ])
    };
    // The first snapshot, and the one at the end of the steps.
    train_to_the_end(&lab, sets(8, 5)).await;
    assert_eq!(steps(&lab).await, [0, 5, 8]);
    lab.post(PAIRS..2 * PAIRS).await;
    // It learns of them, and is stopped before one is due for them.
    let trainer = lab.start(sets(1_000_000, 1_000_000)).await;
    until(&trainer, |status| status.pairs == 2 * u64::from(PAIRS)).await;
    trainer.stop().await.unwrap();
    let stopped_at = *steps(&lab).await.last().unwrap();
    let trainer = lab.start(sets(1_000_000, 5)).await;
    let found = poll(async || {
        let steps = steps(&lab).await;
        steps.into_iter().find(|step| *step > stopped_at)
    });
    // Nothing else brings one, and it may be put off while the stop's is judged.
    found.await.expect("one for the new pairs");
    trainer.stop().await.unwrap();
}

/// Of the checkpoints, ascending.
async fn steps(lab: &Lab) -> Vec<u64> {
    let rows = lab.db.checkpoints().await.unwrap();
    let mut steps: Vec<u64> = rows.iter().map(|row| row.step).collect();
    steps.sort_unstable();
    steps
}
