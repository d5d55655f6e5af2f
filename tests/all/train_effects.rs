//! How soon a posted pair has an effect, as the trainer counts it: which pairs, and which of them a checkpoint includes.

use jiff::Timestamp;
use kith::{
    foreground::Foreground,
    telemetry::Metrics,
    train::{TrainConfig, Trainer},
};
use kith_nn::Device;

use crate::lab::{Lab, collapsing, config, poll, until};

/// A trainer, and the figures that it counts in.
async fn start(lab: &Lab, config: TrainConfig) -> (Trainer, Metrics) {
    let stores = lab.stores(Foreground::new(1.0));
    let metrics = stores.metrics.clone();
    let trainer = Trainer::start(config, Device::cpu(), stores).await;
    (trainer.unwrap(), metrics)
}

/// Pairs that were counted so far in `kith_pair_{what}_seconds`.
fn counted(metrics: &Metrics, what: &str) -> usize {
    let text = metrics.render();
    let name = format!("kith_pair_{what}_seconds_count ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

async fn until_learned(metrics: &Metrics, pairs: usize) {
    let learned = async || (counted(metrics, "learned") >= pairs).then_some(());
    poll(learned).await.expect("pairs are not learned from");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_counts_the_pairs_that_were_learned_before_it_and_no_later_ones() {
    let lab = Lab::new(0.0).await;
    let (trainer, metrics) = start(&lab, config(&["gate.collapse_spread=0"])).await;
    lab.post(0..5).await;
    until_learned(&metrics, 5).await;
    let first = lab.take(&trainer, None).await;
    lab.post(5..8).await;
    until_learned(&metrics, 8).await;
    trainer.pair_effect().served(first.step, Timestamp::now());
    assert_eq!(counted(&metrics, "served"), 5);
    let second = lab.take(&trainer, None).await;
    trainer.pair_effect().served(second.step, Timestamp::now());
    assert_eq!(counted(&metrics, "served"), 8);
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_were_there_before_a_start_are_not_counted() {
    let lab = Lab::new(0.0).await;
    lab.post(0..5).await;
    let (trainer, metrics) = start(&lab, config(&[])).await;
    until(&trainer, |status| status.epoch >= 2).await;
    lab.post(5..8).await;
    until_learned(&metrics, 3).await;
    let epoch = trainer.status().epoch;
    until(&trainer, |status| status.epoch >= epoch + 2).await;
    assert_eq!(counted(&metrics, "learned"), 3);
    trainer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_roll_back_takes_back_does_not_count_as_served() {
    let lab = Lab::new(0.0).await;
    let (trainer, metrics) = start(&lab, collapsing(&[])).await;
    lab.post(0..8).await;
    until_learned(&metrics, 8).await;
    until(&trainer, |status| status.step > 4).await;
    lab.take(&trainer, None).await;
    // A run that began after the roll-back shows its rate.
    until(&trainer, |status| status.rate_scale < 1.0).await;
    trainer.pair_effect().served(u64::MAX, Timestamp::now());
    assert_eq!(counted(&metrics, "served"), 0);
    trainer.stop().await.unwrap();
}
