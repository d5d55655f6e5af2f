//! The average of the weights in training, and what stays in it of those of the start.

use kith_learn::{AveragedWeights, LearnConfig};
use kith_nn::NamedArray;

use crate::{
    learn::{state, train},
    tiny::{Store, graph, infonce, learner},
};

#[test]
fn the_average_of_the_first_steps_is_their_mean_and_steps_do_not_read_it() {
    let (graph, store) = (graph(12), Store::default());
    let averaging = LearnConfig {
        average_steps: 3,
        ..infonce()
    };
    let [mut plain, mut averaged] = [infonce(), averaging].map(learner);
    averaged.averaged = Some(AveragedWeights {
        weights: learner(infonce()).towers,
        start: None,
    });
    let flat = |arrays: Vec<NamedArray>| -> Vec<f32> {
        arrays.into_iter().flat_map(|array| array.data).collect()
    };
    let mut weights = vec![flat(plain.towers.to_arrays().expect("weights"))];
    for _ in 0..4 {
        train(&mut plain, &graph, &store, 1);
        train(&mut averaged, &graph, &store, 1);
        weights.push(flat(plain.towers.to_arrays().expect("weights")));
    }
    assert!(state(&plain) == state(&averaged));
    // The mean of the start and two steps; then a third of each newer one.
    let mean = |place: usize| {
        let first: f32 = weights[..3].iter().map(|weights| weights[place]).sum();
        let third = |mean: f32, step: usize| mean + (weights[step][place] - mean) / 3.0;
        third(third(first / 3.0, 3), 4)
    };
    let found = averaged.averaged.expect("it is kept").weights.to_arrays();
    for (place, found) in flat(found.expect("weights")).into_iter().enumerate() {
        // Roundings of a few sums.
        assert!((found - mean(place)).abs() <= 1e-6 * (1.0 + found.abs()));
    }
}

#[test]
fn a_share_of_the_average_stays_with_the_weights_that_training_began_with() {
    let (graph, store) = (graph(12), Store::default());
    let start_share = 0.25;
    let after = |with_start: bool, steps: u64| {
        let config = LearnConfig {
            average_steps: 3,
            start_share,
            ..infonce()
        };
        let mut learner = learner(config);
        learner.averaged = Some(AveragedWeights {
            weights: self::learner(infonce()).towers,
            start: with_start.then(|| self::learner(infonce()).towers),
        });
        train(&mut learner, &graph, &store, steps);
        let averaged = learner.averaged.expect("it is kept").weights;
        averaged.to_arrays().expect("weights")
    };
    let start = learner(infonce()).towers.to_arrays().expect("weights");
    // While the average grows, where it has its length, and long after.
    for steps in [1, 2, 5, 20] {
        let [with, without] = [true, false].map(|with_start| after(with_start, steps));
        for ((with, without), start) in with.iter().zip(&without).zip(&start) {
            let values = with.data.iter().zip(&without.data).zip(&start.data);
            for ((with, without), start) in values {
                let wanted = start_share * start + (1.0 - start_share) * without;
                // Roundings of two sums a step.
                assert!((with - wanted).abs() <= 1e-6 * (1.0 + wanted.abs()));
            }
        }
        assert!(without != start);
    }
}
