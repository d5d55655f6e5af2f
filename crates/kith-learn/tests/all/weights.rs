//! Weights of pairs in the loss, and groups whose pairs are positives of each other.

use kith_learn::{FixedViews, GlobalLoss, ObjectiveKind};
use kith_mcmc::{GroupKey, PairEntry, PairKey, PairWeight};

use crate::{
    objectives::{Fixed, PAIRS, fixed_batch, of, plain, scores},
    tiny::{batch, learner},
};

#[test]
fn infonce_takes_the_pairs_of_one_group_as_positives_of_each_other() {
    let mut graph = plain();
    for pair in [3, 5] {
        let entry = graph.remove(PairKey(pair)).expect("it is there");
        let group = Some(GroupKey(1));
        graph.insert(PairKey(pair), PairEntry { group, ..entry });
    }
    let mut learner = learner(of(ObjectiveKind::InfoNce));
    let batch = batch(&graph, 0, &[3, 5, 6]);
    let scores = scores(&learner, &batch);
    let term = |i: usize| {
        let positives: Vec<usize> = (0..6).filter(|j| *j != i && (*j < 4) == (i < 4)).collect();
        let all: f64 = (0..6).filter(|j| *j != i).map(|j| scores[i][j].exp()).sum();
        let mean = positives.iter().map(|j| scores[i][*j]).sum::<f64>() / positives.len() as f64;
        all.ln() - mean
    };
    let expected = (0..6).map(term).sum::<f64>() / 6.0;
    let report = learner
        .step(&batch, &graph, &Fixed, 1e-2)
        .expect("the step is sound");
    // Scores up to 10 in f32.
    let error = f64::from(report.loss) - expected;
    assert!(error.abs() < 1e-4, "{} {expected}", report.loss);
}

#[test]
fn the_mean_over_draws_of_the_exact_objective_is_the_weighted_global_loss() {
    let mut graph = plain();
    for pair in 0..PAIRS {
        let entry = graph.remove(PairKey(pair)).expect("it is there");
        let weight = PairWeight::new(1.0 + f64::from(pair % 3)).expect("it is in range");
        graph.insert(PairKey(pair), PairEntry { weight, ..entry });
    }
    let whole = fixed_batch(0, 0..PAIRS);
    let views = FixedViews {
        pairs: &whole.pairs,
        pixels: &whole.pixels,
    };
    let learner = learner(of(ObjectiveKind::Exact));
    let exact = GlobalLoss::new(&graph, views, learner.config().beta, 5)
        .and_then(|loss| loss.value(&learner.towers))
        .expect("the views fit");
    let draws = graph.draws();
    let (mut mean, mut unweighted) = (0.0, 0.0);
    for pair in 0..PAIRS {
        let batch = fixed_batch(0, pair..pair + 1);
        let (report, _) = learner.peek(&batch, &graph, &Fixed).expect("it is sound");
        let weight = graph.get(PairKey(pair)).expect("it is there").weight;
        let loss = f64::from(report.loss);
        mean += draws.share.of(weight) * loss / draws.pairs_per_epoch;
        unweighted += loss / f64::from(draws.loss_factor(weight)) / f64::from(PAIRS);
    }
    // Scores up to 10 in f32.
    assert!((mean - exact).abs() < 1e-4, "{mean} {exact}");
    assert!(
        (unweighted - exact).abs() > 1e-3,
        "the weights must matter here"
    );
}
