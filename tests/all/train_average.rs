//! The average of the weights that serves, with what stays of those that training began with, from start to start.

use kith::checkpoint::Snapshot;
use kith_nn::NamedArray;

use crate::{
    first_weights::{from_file, torchvision_file},
    lab::{Lab, config},
    train::train_to_the_end,
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
    let until = |steps: &str, share: &str, first: &str| {
        let [steps, share] = [
            format!("training.max_steps={steps}"),
            format!("learning.start_share={share}"),
        ];
        // Steps that are larger than rounding.
        let sets = ["learning.average_steps=3", "schedule.learning_rate=1e-2"];
        config(&[&[&steps[..], &share, first], &sets[..]].concat())
    };
    let trained = async |shares: &[(&str, &str)], first: &str| {
        let lab = Lab::new(0.0).await;
        lab.post(0..11).await;
        let mut snapshots = Vec::new();
        for (steps, share) in shares {
            snapshots.push(train_to_the_end(&lab, until(steps, share, first)).await);
        }
        snapshots.pop().unwrap()
    };
    let kept = |snapshot: &Snapshot, suffix: &str| {
        flat(&snapshot.optimizer, |name| name.ends_with(suffix))
    };
    let served = |snapshot: &Snapshot| flat(&snapshot.model, |_| true);
    let straight = trained(&[("8", "0.25")], &file).await;
    let halved = trained(&[("4", "0.25"), ("8", "0.25")], &file).await;
    assert!(halved.model == straight.model && halved.optimizer == straight.optimizer);

    // What serves lies between what would serve without it and the start, which are far apart.
    let without = trained(&[("8", "0")], &file).await;
    let start = kept(&straight, ".start");
    assert!(distance(&start, &served(&without)) > 1e-3);
    let between = start.iter().zip(served(&without));
    let between: Vec<f32> = between.map(|(s, w)| 0.25 * s + 0.75 * w).collect();
    // Roundings of a few sums of values below 1.
    assert!(distance(&served(&straight), &between) < 1e-6);

    // Training goes on alike without it, and it cannot be had back: nothing says any more what the start was.
    for ended in [
        trained(&[("4", "0.25"), ("8", "0")], &file).await,
        trained(&[("2", "0.25"), ("4", "0"), ("8", "0.25")], &file).await,
    ] {
        assert_eq!(kept(&ended, ".start").len(), 0);
        assert!(kept(&ended, ".trained") == kept(&straight, ".trained"));
        assert!(kept(&ended, ".v") == kept(&straight, ".v"));
    }
    let random = trained(&[("8", "0.25")], "encoder.start=fresh").await;
    assert_eq!(kept(&random, ".start").len(), 0);
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
