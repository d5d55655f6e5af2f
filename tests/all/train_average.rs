//! The average of the weights that serves, with what stays of those that training began with, from start to start.

use kith::{blobs::BlobKey, checkpoint::Snapshot};
use kith_nn::NamedArray;

use crate::{
    first_weights::{from_file, torchvision_file},
    lab::{Lab, config, until},
    train::{newest, train_to_the_end},
};

#[tokio::test(flavor = "multi_thread")]
async fn averaging_begins_and_ends_between_starts_from_the_weights_that_serve() {
    let lab = Lab::new(0.0).await;
    lab.post(0..11).await;
    let until = |steps: &str, average: &str| {
        let steps = format!("training.max_steps={steps}");
        let average = format!("learning.average_steps={average}");
        let still = ["schedule.learning_rate=1e-30", "schedule.final_rate=0"];
        config(&[&[&steps[..], &average[..]], &still[..]].concat())
    };
    let served = |snapshot: &Snapshot| flat(&snapshot.model, |_| true);
    let in_training =
        |snapshot: &Snapshot| flat(&snapshot.optimizer, |name| name.ends_with(".trained"));
    let moving = config(&["training.max_steps=4", "learning.average_steps=3"]);
    let averaged = train_to_the_end(&lab, moving).await;
    // The first steps of the warm-up move a weight by some 10⁻⁶ each.
    assert!(distance(&served(&averaged), &in_training(&averaged)) > 1e-7);
    // From here on the rate is too small to change a weight by more than 10⁻²⁰: they stay where a start put them.
    let without = train_to_the_end(&lab, until("5", "0")).await;
    assert!(distance(&served(&without), &served(&averaged)) < 1e-20);
    assert_eq!(in_training(&without).len(), 0);
    let again = train_to_the_end(&lab, until("6", "3")).await;
    assert!(distance(&served(&again), &served(&averaged)) < 1e-20);
    assert!(distance(&in_training(&again), &served(&averaged)) < 1e-20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_what_serves_stays_with_the_weights_of_a_file_from_start_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = from_file(&torchvision_file(&folder));
    let until = |steps: u64, share: f32, average: u64, first: &str| {
        let sets = [
            format!("training.max_steps={steps}"),
            format!("learning.start_share={share}"),
            format!("learning.average_steps={average}"),
            // Steps that are larger than rounding.
            "schedule.learning_rate=1e-2".to_owned(),
            first.to_owned(),
        ];
        config(&sets.each_ref().map(String::as_str))
    };
    // Each part: until which step, the share that stays, and the length of the average.
    let trained = async |parts: &[(u64, f32, u64)], first: &str| {
        let lab = Lab::new(0.0).await;
        lab.post(0..11).await;
        for &(steps, share, average) in parts {
            train_to_the_end(&lab, until(steps, share, average, first)).await;
        }
        newest(&lab).await
    };
    let kept = |snapshot: &Snapshot, suffix: &str| {
        flat(&snapshot.optimizer, |name| name.ends_with(suffix))
    };
    let served = |snapshot: &Snapshot| flat(&snapshot.model, |_| true);
    let straight = trained(&[(8, 0.25, 3)], &file).await;
    let halved = trained(&[(4, 0.25, 3), (8, 0.25, 3)], &file).await;
    assert!(halved.model == straight.model && halved.optimizer == straight.optimizer);

    // What serves lies between what would serve without it and the start, which are far apart.
    let without = trained(&[(8, 0.0, 3)], &file).await;
    let start = kept(&straight, ".start");
    assert!(distance(&start, &served(&without)) > 1e-3);
    let between = start.iter().zip(served(&without));
    let between: Vec<f32> = between.map(|(s, w)| 0.25 * s + 0.75 * w).collect();
    // Roundings of a few sums of values below 1.
    assert!(distance(&served(&straight), &between) < 1e-6);

    // Training goes on alike without it, and it cannot be had back: nothing says any more what the start was.
    for ended in [
        trained(&[(4, 0.25, 3), (8, 0.0, 3)], &file).await,
        trained(&[(2, 0.25, 3), (4, 0.0, 3), (8, 0.25, 3)], &file).await,
    ] {
        assert_eq!(kept(&ended, ".start").len(), 0);
        assert!(kept(&ended, ".trained") == kept(&straight, ".trained"));
        assert!(kept(&ended, ".v") == kept(&straight, ".v"));
    }
    // Nor does training go on from weights that are the start's in part.
    let newest_weights = trained(&[(4, 0.25, 3), (8, 0.25, 0)], &file).await;
    assert!(served(&newest_weights) == kept(&straight, ".trained"));
    let random = trained(&[(8, 0.25, 3)], "encoder.start=fresh").await;
    assert_eq!(kept(&random, ".start").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_whose_moments_are_lost_are_not_taken_for_those_that_training_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let file = from_file(&torchvision_file(&folder));
    let lab = Lab::new(0.0).await;
    lab.post(0..11).await;
    let until = |steps: u64| config(&[&file, &format!("training.max_steps={steps}")]);
    let kept = |snapshot: &Snapshot| flat(&snapshot.optimizer, |name| name.ends_with(".start"));
    let first = train_to_the_end(&lab, until(4)).await;
    assert!(!kept(&first).is_empty());
    let rows = lab.db.checkpoints().await.unwrap();
    let last = rows.iter().max_by_key(|row| row.step).unwrap();
    let moments = BlobKey::CheckpointPart(last.id, "optimizer.safetensors".to_owned());
    lab.blobs.delete(&moments).await.unwrap();
    let second = train_to_the_end(&lab, until(8)).await;
    assert_eq!(second.trainer.step, 8);
    assert_eq!(kept(&second).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collapse_in_training_is_recovered_from_although_what_serves_does_not_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = from_file(&torchvision_file(&folder));
    let lab = Lab::new(0.0).await;
    lab.post(0..11).await;
    let sets = [
        file.as_str(),
        // A rate that ruins the weights, with gradients that are not clipped as a whole, and nearly all of the start in what serves.
        "optimizer.clip_norm=0",
        "optimizer.adaptive_clip=0.05",
        "schedule.learning_rate=0.1",
        "schedule.pretrained_factor=1",
        "learning.average_steps=1",
        "learning.start_share=0.999",
    ];
    let trainer = lab.start(config(&sets)).await;
    let status = until(&trainer, |status| status.recoveries >= 1).await;
    let why = status.last_error.unwrap();
    assert!(
        why.contains("in training the embeddings collapsed"),
        "{why}"
    );
    trainer.stop().await.unwrap();
}

/// The values of the arrays with such names.
fn flat(arrays: &[NamedArray], is_wanted: impl Fn(&str) -> bool) -> Vec<f32> {
    let wanted = arrays.iter().filter(|array| is_wanted(&array.name));
    wanted
        .flat_map(|array| array.data.iter().copied())
        .collect()
}

/// The largest difference.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}
