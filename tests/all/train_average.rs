//! The average of the weights that serves, from start to start.

use kith::checkpoint::Snapshot;
use kith_nn::NamedArray;

use crate::{
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
