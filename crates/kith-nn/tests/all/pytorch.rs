//! The encoder against PyTorch's numbers (`tests/golden/make_resnet.py`): vectors, gradients, and steps of each optimizer.

use std::collections::HashMap;

use kith_nn::{EncoderConfig, Optimizer, OptimizerKind, PLACES};
use safetensors::SafeTensors;

use crate::formula::values;
use crate::support::{TINY, formula_encoder, optimizer_config, pixels, relative_difference, train};

fn golden(file: &[u8]) -> HashMap<String, Vec<f32>> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let floats = |bytes: &[u8]| {
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    };
    tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), floats(view.data())))
        .collect()
}

fn stored() -> HashMap<String, Vec<f32>> {
    golden(include_bytes!("../golden/resnet.safetensors"))
}

/// The values that the script keeps of an array.
fn thin(data: &[f32], keep: usize) -> Vec<f32> {
    data.iter()
        .step_by(data.len().div_ceil(keep))
        .copied()
        .collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// Differences to PyTorch's numbers.
#[derive(Debug)]
struct Differences {
    /// The largest absolute one.
    embedding: f32,
    /// Relative.
    hidden: f32,
    /// Relative; the larger one of both kinds.
    places: f32,
    /// The largest relative one of an array.
    gradients: f32,
}

impl Differences {
    /// The bounds allow for sums of thousands of products in another order.
    fn assert_small(&self) {
        let vectors = [self.embedding, self.hidden, self.places];
        let small = vectors.iter().all(|apart| *apart < 1e-4) && self.gradients < 1e-3;
        assert!(small, "{self:?}");
    }
}

/// Differences to the numbers under `prefix`.
fn compare(
    config: &EncoderConfig,
    batch: usize,
    keep: usize,
    wanted: &HashMap<String, Vec<f32>>,
    prefix: &str,
) -> Differences {
    let encoder = formula_encoder(config);
    let pixels = pixels(config, batch);
    let features = encoder.forward(&pixels).unwrap();
    let embedding = largest_difference(
        &features.embedding.data,
        &wanted[&format!("{prefix}embedding")],
    );
    let apart =
        |name: &str, found: &[f32]| relative_difference(found, &wanted[&format!("{prefix}{name}")]);
    let hidden = apart("hidden", &features.hidden.data);
    let places = PLACES.iter().zip(&features.places);
    let places = places.map(|(part, found)| apart(part.name, &found.data));
    let tape = encoder.forward_train(&pixels).unwrap();
    assert_eq!(tape.embedding(), &features.embedding);
    let gradients = tape
        .backward(&values(1001, batch * config.dim))
        .unwrap()
        .to_arrays()
        .unwrap();
    let apart = gradients.iter().map(|array| {
        let difference = relative_difference(
            &thin(&array.data, keep),
            &wanted[&format!("{prefix}gradient.{}", array.name)],
        );
        if difference > 1e-3 {
            eprintln!("{} is {difference} away", array.name);
        }
        difference
    });
    Differences {
        embedding,
        hidden,
        places: places.fold(0.0, f32::max),
        gradients: apart.fold(0.0, f32::max),
    }
}

#[test]
fn vectors_and_gradients_agree_with_pytorch() {
    compare(&TINY, 3, 96, &stored(), "").assert_small();
}

#[test]
fn sides_with_odd_activations_agree_with_pytorch() {
    let config = EncoderConfig { side: 96, ..TINY };
    compare(&config, 2, 24, &stored(), "side96.").assert_small();
}

/// Not run by default: needs numbers made with `--full 64 64 4` and `--full 64 96 4`, in the folder `KITH_GOLDEN`.
#[test]
#[ignore = "needs large golden numbers"]
fn the_full_width_agrees_with_pytorch() {
    let folder = std::env::var("KITH_GOLDEN").expect("KITH_GOLDEN names the folder");
    for side in [64, 96] {
        let file = std::fs::read(format!("{folder}/resnet-64-{side}.safetensors")).unwrap();
        let config = EncoderConfig {
            width: 64,
            side,
            dim: 128,
            towers: 1,
        };
        let differences = compare(&config, 4, 1 << 14, &golden(&file), "");
        eprintln!("side {side}: {differences:?}");
        differences.assert_small();
    }
}

#[test]
fn five_steps_of_each_optimizer_agree_with_pytorch() {
    let wanted = stored();
    let kinds = [
        ("adamw", OptimizerKind::Adamw),
        ("adam", OptimizerKind::Adam),
        ("sgd", OptimizerKind::Sgd),
    ];
    for (name, kind) in kinds {
        let mut encoder = formula_encoder(&TINY);
        let mut optimizer = Optimizer::new(&optimizer_config(kind), &encoder).unwrap();
        let rate = if kind == OptimizerKind::Sgd {
            0.01
        } else {
            0.001
        };
        train(&mut encoder, &mut optimizer, rate, 5);
        for array in encoder.to_arrays().unwrap() {
            let apart = largest_difference(
                &thin(&array.data, 24),
                &wanted[&format!("{name}.{}", array.name)],
            );
            // 1 % of one Adam step.
            assert!(apart < 1e-5, "{name} {} {apart}", array.name);
        }
    }
}
