//! `kith audit sampler` on chains whose states are drawn in the test: by the softmax, uniformly, or left where an older encoder put them.

use std::collections::HashMap;

use kith::{
    checkpoint::{Label, Snapshot},
    db::PairRow,
    types::{CheckpointId, Sha256},
};
use kith_mcmc::{ChainState, ChainTable, SlotKey, StateKind};
use kith_nn::{Device, Towers};
use kith_pixels::Limits;
use kith_seed::mix;
use serde_json::Value;

use crate::{
    lab::{Lab, config},
    program::{kith, text},
};

/// At which the softmaxes of the untrained encoder are spread over few images.
const BETA: f32 = 400.0;
const PAIRS: u32 = 120;

/// A data folder with pairs, and the embeddings of their images under its first checkpoint.
struct Folder {
    lab: Lab,
    pairs: Vec<PairRow>,
    first: Snapshot,
    vectors: HashMap<Sha256, Vec<f32>>,
}

impl Folder {
    async fn new() -> Self {
        let lab = Lab::new(0.0).await;
        let pairs = lab.post(0..PAIRS).await;
        let trainer = lab.start(config(&["training.enabled=false"])).await;
        trainer.stop().await.unwrap();
        let first = lab.checkpoints.newest().await.unwrap().unwrap().1;
        let mut folder = Self {
            lab,
            pairs,
            first,
            vectors: HashMap::new(),
        };
        folder.vectors = folder.embed(&folder.first).await;
        folder
    }

    async fn embed(&self, snapshot: &Snapshot) -> HashMap<Sha256, Vec<f32>> {
        let towers =
            Towers::from_arrays(&snapshot.encoder, &snapshot.model, &Device::cpu()).unwrap();
        let (limits, side) = (limits(), snapshot.encoder.side);
        let mut vectors = HashMap::new();
        for pair in &self.pairs {
            for (id, side_of) in [pair.anchor, pair.positive]
                .into_iter()
                .zip(kith_mcmc::Side::BOTH)
            {
                let bytes = self.lab.blobs.image(id).await.unwrap();
                let fit = |image: kith_pixels::DecodedImage| kith_pixels::fit(&image, side);
                let pixels = kith_pixels::decode_with(&bytes, &limits, fit).unwrap();
                let embedded = towers.get(side_of).forward(&pixels).unwrap();
                vectors.insert(id, embedded.embedding.data);
            }
        }
        vectors
    }

    /// Scores of a slot's image against both images of every other pair, by the definition.
    fn scores(&self, slot: SlotKey, vectors: &HashMap<Sha256, Vec<f32>>) -> Vec<(SlotKey, f32)> {
        let image = |slot: SlotKey| {
            let pair = self.pairs.iter().find(|pair| pair.key == slot.pair());
            let pair = pair.unwrap();
            [pair.anchor, pair.positive][slot.side().index()]
        };
        let own = &vectors[&image(slot)];
        let others = self.pairs.iter().filter(|pair| pair.key != slot.pair());
        let others = others.flat_map(|pair| pair.key.slots());
        let score = |other: SlotKey| {
            let products = own.iter().zip(&vectors[&image(other)]).map(|(a, b)| a * b);
            (other, BETA * products.sum::<f32>())
        };
        others.map(score).collect()
    }

    /// A checkpoint of the first one's weights whose chains hold what `choose` picks from an anchor's scores.
    async fn write(
        &self,
        choose: impl Fn(&[(SlotKey, f32)], SlotKey) -> (SlotKey, f32),
        still: u32,
    ) -> CheckpointId {
        self.write_changed(choose, still, |_| ()).await
    }

    /// The same, with a checkpoint that is changed in the end.
    async fn write_changed(
        &self,
        choose: impl Fn(&[(SlotKey, f32)], SlotKey) -> (SlotKey, f32),
        still: u32,
        change: impl FnOnce(&mut Snapshot),
    ) -> CheckpointId {
        let table = ChainTable::new(StateKind::Chains);
        for slot in self.pairs.iter().flat_map(|pair| pair.key.slots()) {
            let (negative, log_score) = choose(&self.scores(slot, &self.vectors), slot);
            let state = ChainState {
                negative,
                log_score,
                step: 0,
                visits: still + 1,
                visits_since_move: still,
            };
            table.put(slot, state);
        }
        let mut snapshot = self.first.clone();
        snapshot.chains = table.to_columns();
        change(&mut snapshot);
        let label = Label::new(None);
        let checkpoints = &self.lab.checkpoints;
        checkpoints
            .begin(&label, snapshot.trainer.step)
            .await
            .unwrap();
        checkpoints.write(&label, snapshot, None).await.unwrap();
        label.id
    }

    /// Runs the command; its exit code, its document and its complaint.
    fn audit(&self, id: CheckpointId, more: &[&str]) -> (Option<i32>, Value, String) {
        let (id, beta) = (id.to_string(), format!("learning.beta={BETA}"));
        let data = text(self.lab.folder.path());
        let plain = [
            "audit",
            "sampler",
            "--data-dir",
            data,
            "--set",
            &beta,
            "--checkpoint",
            &id,
            "--json",
        ];
        let output = kith(&[&plain, more].concat());
        let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let complaint = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), document, complaint)
    }
}

fn limits() -> Limits {
    config(&[]).limits
}

/// A number in [0, 1) for a slot.
fn uniform(slot: SlotKey, what: u64) -> f64 {
    (mix(&[what, slot.packed().into()]) >> 11) as f64 / (1_u64 << 53) as f64
}

fn by_softmax(scores: &[(SlotKey, f32)], slot: SlotKey) -> (SlotKey, f32) {
    let largest = scores
        .iter()
        .map(|(_, score)| *score)
        .fold(f32::MIN, f32::max);
    let weight = |score: f32| f64::from(score - largest).exp();
    let total: f64 = scores.iter().map(|(_, score)| weight(*score)).sum();
    let mut left = uniform(slot, 77) * total;
    let found = scores.iter().find(|(_, score)| {
        left -= weight(*score);
        left < 0.0
    });
    *found.or(scores.last()).unwrap()
}

fn uniformly(scores: &[(SlotKey, f32)], slot: SlotKey) -> (SlotKey, f32) {
    scores[(uniform(slot, 78) * scores.len() as f64) as usize]
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_chains_pass_and_uniform_and_frozen_ones_do_not() {
    let folder = Folder::new().await;
    let honest = folder.write(by_softmax, 0).await;
    let (code, report, complaint) = folder.audit(honest, &[]);
    assert_eq!(code, Some(0), "{complaint}{report}");
    assert_eq!(report["verdict"], "agrees", "{report}");
    assert_eq!(
        (&report["anchors"], &report["images"]),
        (&(2 * PAIRS).into(), &(2 * PAIRS).into())
    );
    let effective = report["effective_images"].as_f64().unwrap();
    // Otherwise uniform states would be honest, too.
    assert!((2.0..100.0).contains(&effective), "{report}");
    // The stored scores are those of the same plain views.
    assert!(
        report["stored_minus_fresh"]["mean_absolute"]
            .as_f64()
            .unwrap()
            < 0.01,
        "{report}"
    );
    let sample = ["--images", "120", "--anchors", "100"];
    let (code, part, complaint) = folder.audit(honest, &sample);
    assert_eq!(
        (code, &part["verdict"]),
        (Some(0), &"agrees".into()),
        "{complaint}{part}"
    );
    assert_eq!(
        (&part["images"], &part["all_images"]),
        (&120.into(), &240.into())
    );

    let (code, report, complaint) = folder.audit(folder.write(uniformly, 0).await, &[]);
    assert_eq!(
        (code, &report["verdict"]),
        (Some(1), &"differs".into()),
        "{report}"
    );
    assert!(report["score"]["z"].as_f64().unwrap() < -5.0, "{report}");
    assert!(complaint.contains("do not hold draws"), "{complaint}");

    // Where an untrained encoder put them, with scores that are hardly ever exceeded.
    let frozen = |scores: &[(SlotKey, f32)], slot| (uniformly(scores, slot).0, BETA);
    let (code, report, _) = folder.audit(folder.write(frozen, 50).await, &[]);
    assert_eq!(
        (code, &report["verdict"]),
        (Some(1), &"differs".into()),
        "{report}"
    );
    assert_eq!(report["frozen_share"], 1.0);
    assert!(
        report["stored_minus_fresh"]["mean"].as_f64().unwrap() > 1.0,
        "{report}"
    );
    let likeliest =
        |scores: &[(SlotKey, f32)], _| *scores.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let (code, report, _) = folder.audit(folder.write(likeliest, 50).await, &[]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report["score"]["z"].as_f64().unwrap() > 5.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_are_compared_under_the_weights_that_move_them_and_not_those_that_serve() {
    let folder = Folder::new().await;
    // What serves has a fitted projection, or is an average: the weights in training are kept beside the moments.
    for kept in [".replaced", ".trained"] {
        let change = |snapshot: &mut Snapshot| {
            for array in &mut snapshot.model {
                let is_head = array.name == "projection.weight";
                if !is_head && kept == ".replaced" {
                    continue;
                }
                let mut before = array.clone();
                before.name.push_str(kept);
                snapshot.optimizer.push(before);
                if is_head {
                    array.data.reverse();
                }
            }
        };
        let honest = folder.write_changed(by_softmax, 0, change).await;
        let (code, report, complaint) = folder.audit(honest, &[]);
        assert_eq!(code, Some(0), "{kept}: {complaint}{report}");
        assert_eq!(report["verdict"], "agrees", "{kept}: {report}");
    }
    let change = |snapshot: &mut Snapshot| {
        let mut arrays = snapshot.model.iter_mut();
        let head = arrays.find(|array| array.name == "projection.weight");
        head.unwrap().data.reverse();
    };
    let other = folder.write_changed(by_softmax, 0, change).await;
    let (_, report, _) = folder.audit(other, &[]);
    assert_ne!(report["verdict"], "agrees", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_decides_which_images_are_compared() {
    let folder = Folder::new().await;
    let uniform = folder.write(uniformly, 0).await;
    let seeded = |seed: &str| {
        let some = ["--images", "120", "--anchors", "40"];
        let (_, report, complaint) =
            folder.audit(uniform, &[&some[..], &["--seed", seed]].concat());
        assert_eq!(report["anchors"], 40, "{complaint}");
        report["score"].clone()
    };
    assert_eq!(seeded("1"), seeded("1"));
    assert_ne!(seeded("1"), seeded("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tolerance_decides_whether_a_difference_is_small() {
    let folder = Folder::new().await;
    // One chain in 25 holds any image.
    let mixed = |scores: &[(SlotKey, f32)], slot| match uniform(slot, 79) > 0.04 {
        true => by_softmax(scores, slot),
        false => uniformly(scores, slot),
    };
    let mixed = folder.write(mixed, 0).await;
    let verdict = |tolerance| {
        let (code, report, _) = folder.audit(mixed, &["--tolerance", tolerance]);
        (code, report["verdict"].as_str().map(str::to_owned))
    };
    assert_eq!(verdict("0.9"), (Some(0), Some("close".to_owned())));
    let (code, strict) = verdict("0.01");
    assert!(code.is_some() && strict.is_some(), "{code:?} {strict:?}");
    assert!(strict != Some("close".to_owned()) && strict != Some("agrees".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_said_with_a_remedy() {
    let folder = Folder::new().await;
    let checkpoints = folder.lab.checkpoints.newest().await.unwrap().unwrap();
    let (code, _, complaint) = folder.audit(checkpoints.0, &[]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("has no chains"), "{complaint}");
    let honest = folder.write(by_softmax, 0).await;
    let (code, _, complaint) = folder.audit(honest, &["--min-visits", "9"]);
    assert_eq!(code, Some(1));
    assert!(
        complaint.contains("only 0 chains") && complaint.contains("--min-visits"),
        "{complaint}"
    );
    for wrong in [
        ["--images", "1"],
        ["--anchors", "19"],
        ["--tolerance", "1.5"],
    ] {
        assert_eq!(folder.audit(honest, &wrong).0, Some(2), "{wrong:?}");
    }
    let beta = format!("learning.beta={BETA}");
    let data = text(folder.lab.folder.path());
    let table = kith(&["audit", "sampler", "--data-dir", data, "--set", &beta]);
    let table = String::from_utf8(table.stdout).unwrap();
    for part in [
        "rank distance",
        "mean score",
        "frozen",
        "steps since scored",
        "the chains hold draws",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
}
