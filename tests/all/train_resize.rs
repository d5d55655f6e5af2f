//! Progressive resizing: random weights learn from small views first, whatever stops and starts lie between.

use kith::train::{TrainConfig, TrainingState};

use crate::{
    lab::{Lab, config, until},
    train::train_to_the_end,
};

fn resizing(max_steps: u64, resize_steps: u64) -> TrainConfig {
    config(&[
        "encoder.side=64",
        &format!("training.max_steps={max_steps}"),
        &format!("schedule.resize_steps={resize_steps}"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_among_small_views_changes_nothing_and_full_ones_follow() {
    let straight = Lab::new(0.0).await;
    straight.post(0..11).await;
    let expected = train_to_the_end(&straight, resizing(6, 4)).await;
    assert_eq!(expected.encoder.side, 64, "what serves is not resized");

    let halved = Lab::new(0.0).await;
    halved.post(0..11).await;
    for (steps, next_side) in [(3, 32), (6, 64)] {
        let trainer = halved.start(resizing(steps, 4)).await;
        let status = until(&trainer, |status| {
            status.step == steps && status.state == TrainingState::Waiting
        })
        .await;
        assert_eq!(status.view_side, next_side, "after {steps} steps");
        trainer.stop().await.unwrap();
    }
    let (_, resumed) = halved.checkpoints.newest().await.unwrap().unwrap();
    assert_eq!(resumed.model, expected.model);
    assert_eq!(resumed.chains, expected.chains);

    let full = Lab::new(0.0).await;
    full.post(0..11).await;
    let full = train_to_the_end(&full, resizing(6, 0)).await;
    assert_ne!(full.model, expected.model, "small views make other steps");
}
