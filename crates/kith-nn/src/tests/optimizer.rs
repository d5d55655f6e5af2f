//! What an update that fails leaves behind.

use candle_core::DType;

use super::super::architecture::STEM;
use super::super::{Device, Encoder, EncoderConfig, Gradients, Optimizer};
use super::{OptimizerConfig, OptimizerKind, values};

const TINY: EncoderConfig = EncoderConfig {
    width: 8,
    side: 32,
    dim: 16,
    towers: 1,
};

fn adam() -> OptimizerConfig {
    OptimizerConfig {
        kind: OptimizerKind::Adam,
        weight_decay: 0.0,
        momentum: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        clip_norm: 0.0,
    }
}

fn gradients(encoder: &Encoder) -> Gradients {
    let tape = encoder.forward_train(&values(1, 2 * 32 * 32 * 3)).unwrap();
    tape.backward(&values(2, 2 * 16)).unwrap()
}

#[test]
fn an_update_that_fails_changes_neither_weights_nor_moments_nor_their_count() {
    let mut encoder = Encoder::fresh(&TINY, 1, &Device::cpu()).unwrap();
    let mut optimizer = Optimizer::new(&adam(), &encoder).unwrap();
    let good = gradients(&encoder);
    optimizer.step(&mut encoder, &good, 1.0, 1e-3).unwrap();
    let before = (encoder.to_arrays().unwrap(), optimizer.to_arrays().unwrap());

    // The processor's backend takes f32 only: it refuses the last of all parameters.
    let mut bad = gradients(&encoder);
    let last = bad.layers.last_mut().unwrap();
    last.bias = last.bias.to_dtype(DType::F64).unwrap();
    assert!(optimizer.step(&mut encoder, &bad, 1.0, 1e-3).is_err());
    assert_eq!(optimizer.updates(), 1);
    assert!((encoder.to_arrays().unwrap(), optimizer.to_arrays().unwrap()) == before);
}

#[test]
fn a_stem_that_whitens_has_no_gradient_and_the_other_layers_keep_theirs() {
    let config = EncoderConfig { width: 16, ..TINY };
    let encoder = Encoder::fresh(&config, 1, &Device::cpu()).unwrap();
    let mut encoder = encoder.with_whitening_stem().unwrap();
    let fixed = gradients(&encoder);
    encoder.layers_to_update()[STEM].is_trained = true;
    let all = gradients(&encoder);

    let mut others = all.to_arrays().unwrap();
    let with_stem = others.len();
    others.retain(|array| !array.name.starts_with("conv1."));
    assert_eq!(others.len(), with_stem - 2);
    assert!(fixed.to_arrays().unwrap() == others);
    // What is not applied does not count when gradients are clipped.
    assert!(fixed.norm().unwrap() < all.norm().unwrap());
    assert_eq!(fixed.stage_norms().unwrap().stem, 0.0);

    // Every other layer is updated by its own gradient.
    let before = encoder.to_arrays().unwrap();
    let updated = |mut encoder: Encoder, gradients: &Gradients| {
        let mut optimizer = Optimizer::new(&adam(), &encoder).unwrap();
        optimizer.step(&mut encoder, gradients, 1.0, 1e-3).unwrap();
        encoder.to_arrays().unwrap()
    };
    let again = Encoder::from_arrays(&config, &before, &Device::cpu()).unwrap();
    let (fixed, all) = (updated(again, &fixed), updated(encoder, &all));
    for ((fixed, all), before) in fixed.iter().zip(&all).zip(&before) {
        let is_stem = fixed.name.starts_with("conv1.");
        assert!(
            fixed == if is_stem { before } else { all },
            "{}",
            fixed.name
        );
    }
}

#[test]
fn a_stem_that_whitens_is_never_changed_and_any_other_is() {
    let config = EncoderConfig { width: 16, ..TINY };
    for whitens in [true, false] {
        let mut encoder = Encoder::fresh(&config, 1, &Device::cpu()).unwrap();
        if whitens {
            encoder = encoder.with_whitening_stem().unwrap();
        }
        assert_eq!(encoder.has_whitening_stem(), whitens);
        let before = encoder.to_arrays().unwrap();
        let averaged = Encoder::from_arrays(&config, &before, &Device::cpu());
        let mut averaged = averaged.unwrap();
        let mut optimizer = Optimizer::new(&adam(), &encoder).unwrap();
        let gradients = gradients(&encoder);
        optimizer.step(&mut encoder, &gradients, 1.0, 1e-3).unwrap();
        averaged.blend(&encoder, 0.3).unwrap();
        for after in [encoder.to_arrays().unwrap(), averaged.to_arrays().unwrap()] {
            for (after, before) in after.iter().zip(&before) {
                let is_stem = after.name.starts_with("conv1.");
                let changed = after.data != before.data;
                assert!(!(changed && is_stem && whitens), "{}", after.name);
                assert!(changed || whitens || !is_stem, "{}", after.name);
            }
            assert!(
                after
                    .iter()
                    .zip(&before)
                    .any(|(after, before)| after != before)
            );
        }
        // Another optimiser, as after a restart, knows it again.
        let again = Encoder::from_arrays(&config, &averaged.to_arrays().unwrap(), &Device::cpu());
        assert_eq!(again.unwrap().has_whitening_stem(), whitens);
    }
}
