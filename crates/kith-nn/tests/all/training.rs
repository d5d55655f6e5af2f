//! Gradients and optimizer steps against themselves: on other threads, in parts, and resumed.

use kith_nn::{Encoder, EncoderConfig, NamedArray, Optimizer, OptimizerKind};

use crate::formula::values;
use crate::support::{
    TINY, cpu, formula_encoder, optimizer_config, pixels, relative_difference, train,
};

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
        .install(work)
}

fn one_training_run(config: &EncoderConfig) -> (Vec<NamedArray>, Vec<NamedArray>) {
    let mut encoder = Encoder::fresh(config, 7, &cpu()).unwrap();
    let mut optimizer = Optimizer::new(&optimizer_config(OptimizerKind::Adamw), &encoder).unwrap();
    train(&mut encoder, &mut optimizer, 0.001, 3);
    (encoder.to_arrays().unwrap(), optimizer.to_arrays().unwrap())
}

#[test]
fn training_is_bit_identical_from_run_to_run_and_on_any_number_of_threads() {
    let config = EncoderConfig { side: 64, ..TINY };
    let first = in_pool(1, || one_training_run(&config));
    for threads in [1, 2, 3] {
        assert!(
            in_pool(threads, || one_training_run(&config)) == first,
            "{threads} threads"
        );
    }
}

#[test]
fn gradients_of_two_passes_add_up_to_that_of_the_batch() {
    let encoder = formula_encoder(&TINY);
    let (pixels, gradient) = (pixels(&TINY, 5), values(1001, 5 * 16));
    let backward = |images: std::ops::Range<usize>| {
        let tape = encoder
            .forward_train(&pixels[images.start * 3072..images.end * 3072])
            .unwrap();
        tape.backward(&gradient[images.start * 16..images.end * 16])
            .unwrap()
    };
    let mut sum = backward(0..2);
    sum.add(&backward(2..5)).unwrap();
    for (sum, whole) in sum
        .to_arrays()
        .unwrap()
        .iter()
        .zip(backward(0..5).to_arrays().unwrap())
    {
        // Only the order of the sums differs.
        assert!(
            relative_difference(&sum.data, &whole.data) < 1e-5,
            "{}",
            whole.name
        );
    }
}

#[test]
fn the_norm_is_that_of_all_gradients_and_shows_what_is_not_finite() {
    let encoder = formula_encoder(&TINY);
    let (pixels, mut gradient) = (pixels(&TINY, 2), values(1001, 2 * 16));
    let gradients = encoder
        .forward_train(&pixels)
        .unwrap()
        .backward(&gradient)
        .unwrap();
    let squares = |array: &NamedArray| {
        array
            .data
            .iter()
            .map(|&v| f64::from(v).powi(2))
            .sum::<f64>()
    };
    let wanted = gradients
        .to_arrays()
        .unwrap()
        .iter()
        .map(squares)
        .sum::<f64>()
        .sqrt();
    assert!((f64::from(gradients.norm().unwrap()) / wanted - 1.0).abs() < 1e-6);
    let arrays = gradients.to_arrays().unwrap();
    for (stage, norm) in gradients.stage_norms().unwrap().each() {
        let own = |name: &str| match stage {
            "stem" => name.starts_with("conv1."),
            "head" => ["fc.", "projection.", "places.", "fine_places."]
                .iter()
                .any(|layer| name.starts_with(layer)),
            layer => name.starts_with(&format!("{layer}.")),
        };
        let arrays = arrays.iter().filter(|array| own(&array.name));
        let wanted = arrays.map(squares).sum::<f64>().sqrt();
        assert!((f64::from(norm) / wanted - 1.0).abs() < 1e-6, "{stage}");
    }
    gradient[3] = f32::NAN;
    let gradients = encoder
        .forward_train(&pixels)
        .unwrap()
        .backward(&gradient)
        .unwrap();
    assert!(!gradients.norm().unwrap().is_finite());
}

#[test]
fn training_does_not_reach_an_encoder_made_from_the_same_arrays() {
    let mut training = formula_encoder(&TINY);
    let arrays = training.to_arrays().unwrap();
    let serving = Encoder::from_arrays(&TINY, &arrays, &cpu()).unwrap();
    let before = serving.forward(&pixels(&TINY, 1)).unwrap();
    let mut optimizer = Optimizer::new(&optimizer_config(OptimizerKind::Sgd), &training).unwrap();
    train(&mut training, &mut optimizer, 0.1, 1);
    assert_ne!(training.to_arrays().unwrap(), arrays);
    assert_eq!(serving.to_arrays().unwrap(), arrays);
    assert_eq!(serving.forward(&pixels(&TINY, 1)).unwrap(), before);
}

#[test]
fn a_step_is_seen_by_the_next_forward_pass() {
    let mut encoder = formula_encoder(&TINY);
    encoder.forward(&pixels(&TINY, 1)).unwrap();
    let mut optimizer = Optimizer::new(&optimizer_config(OptimizerKind::Adamw), &encoder).unwrap();
    train(&mut encoder, &mut optimizer, 0.01, 2);
    let fresh = Encoder::from_arrays(&TINY, &encoder.to_arrays().unwrap(), &cpu()).unwrap();
    let pixels = pixels(&TINY, 1);
    assert_eq!(
        encoder.forward(&pixels).unwrap(),
        fresh.forward(&pixels).unwrap()
    );
}

#[test]
fn a_resumed_optimizer_goes_on_as_if_nothing_had_happened() {
    for kind in [
        OptimizerKind::Adamw,
        OptimizerKind::Adam,
        OptimizerKind::Sgd,
    ] {
        let config = optimizer_config(kind);
        let mut encoder = formula_encoder(&TINY);
        let mut optimizer = Optimizer::new(&config, &encoder).unwrap();
        train(&mut encoder, &mut optimizer, 0.01, 2);
        let mut again = Encoder::from_arrays(&TINY, &encoder.to_arrays().unwrap(), &cpu()).unwrap();
        let mut resumed = Optimizer::new(&config, &again).unwrap();
        resumed
            .load_arrays(&optimizer.to_arrays().unwrap())
            .unwrap();
        train(&mut encoder, &mut optimizer, 0.01, 2);
        train(&mut again, &mut resumed, 0.01, 2);
        assert!(
            encoder.to_arrays().unwrap() == again.to_arrays().unwrap(),
            "{kind:?}"
        );
        assert!(
            optimizer.to_arrays().unwrap() == resumed.to_arrays().unwrap(),
            "{kind:?}"
        );
    }
}

#[test]
fn blending_moves_every_weight_by_its_share_of_the_way() {
    let [mut near, far] = [1, 2].map(|seed| Encoder::fresh(&TINY, seed, &cpu()).unwrap());
    let (before, target) = (near.to_arrays().unwrap(), far.to_arrays().unwrap());
    // The vectors that were packed before must not be read after.
    let picture = pixels(&TINY, 1);
    let old = near.forward(&picture).unwrap();
    near.blend(&far, 0.25).unwrap();
    let after = near.to_arrays().unwrap();
    for ((before, target), after) in before.iter().zip(&target).zip(&after) {
        assert_eq!(before.name, after.name);
        for ((before, target), after) in before.data.iter().zip(&target.data).zip(&after.data) {
            assert_eq!(*after, before + 0.25 * (target - before));
        }
    }
    assert_ne!(near.forward(&picture).unwrap(), old);
    assert_eq!(far.to_arrays().unwrap(), target);
}
