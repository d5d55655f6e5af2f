//! What an update that fails leaves behind, which layers are updated, and how gradients are clipped.

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
        adaptive_clip: 0.0,
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
    let mut good = gradients(&encoder);
    optimizer.step(&mut encoder, &mut good, 1.0, 1e-3).unwrap();
    let before = (encoder.to_arrays().unwrap(), optimizer.to_arrays().unwrap());

    // The processor's backend takes f32 only: it refuses the last of all parameters.
    let mut bad = gradients(&encoder);
    let last = bad.layers.last_mut().unwrap();
    last.bias = last.bias.to_dtype(DType::F64).unwrap();
    assert!(optimizer.step(&mut encoder, &mut bad, 1.0, 1e-3).is_err());
    assert_eq!(optimizer.updates(), 1);
    assert!((encoder.to_arrays().unwrap(), optimizer.to_arrays().unwrap()) == before);
}

#[test]
fn a_stem_that_whitens_has_no_gradient_and_the_other_layers_keep_theirs() {
    let config = EncoderConfig { width: 16, ..TINY };
    let encoder = Encoder::fresh(&config, 1, &Device::cpu()).unwrap();
    let mut encoder = encoder.with_whitening_stem().unwrap();
    let mut fixed = gradients(&encoder);
    encoder.layers_to_update()[STEM].is_trained = true;
    let mut all = gradients(&encoder);

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
    let updated = |mut encoder: Encoder, gradients: &mut Gradients| {
        let mut optimizer = Optimizer::new(&adam(), &encoder).unwrap();
        optimizer.step(&mut encoder, gradients, 1.0, 1e-3).unwrap();
        encoder.to_arrays().unwrap()
    };
    let again = Encoder::from_arrays(&config, &before, &Device::cpu()).unwrap();
    let (fixed, all) = (updated(again, &mut fixed), updated(encoder, &mut all));
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
        let mut gradients = gradients(&encoder);
        optimizer
            .step(&mut encoder, &mut gradients, 1.0, 1e-3)
            .unwrap();
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

fn norm_of(values: &[f32]) -> f64 {
    let squares = values.iter().map(|&value| f64::from(value).powi(2));
    squares.sum::<f64>().sqrt()
}

#[test]
fn adaptive_clipping_scales_each_filter_by_its_own_weights_and_no_bias() {
    // Weights and gradients are of the same size, so that at this share some filters are clipped and others are not.
    let share = 0.5;
    let config = OptimizerConfig {
        kind: OptimizerKind::Sgd,
        momentum: 0.0,
        adaptive_clip: share,
        ..adam()
    };
    let mut encoder = Encoder::fresh(&TINY, 1, &Device::cpu()).unwrap();
    let mut gradients = gradients(&encoder);
    let weights = encoder.to_arrays().unwrap();
    let before = gradients.to_arrays().unwrap();
    let mut optimizer = Optimizer::new(&config, &encoder).unwrap();
    optimizer
        .step(&mut encoder, &mut gradients, 1.0, 1e-3)
        .unwrap();
    // Plain SGD keeps in its moments the gradient that it used.
    let used = optimizer.to_arrays().unwrap();
    let mut clipped = [0, 0];
    for ((weight, before), used) in weights.iter().zip(&before).zip(&used) {
        assert_eq!(used.name, format!("{}.m", weight.name));
        if weight.shape.len() == 1 {
            assert!(used.data == before.data, "{}", used.name);
            continue;
        }
        // torchvision's layout: a filter is a row.
        let filter = weight.data.len() / weight.shape[0];
        let filters = weight.data.chunks(filter).zip(before.data.chunks(filter));
        for ((weight, before), used) in filters.zip(used.data.chunks(filter)) {
            let limit = f64::from(share) * norm_of(weight).max(1e-3);
            let factor = (limit / norm_of(before)).min(1.0);
            clipped[usize::from(factor < 1.0)] += 1;
            for (&before, &used) in before.iter().zip(used) {
                let wanted = factor * f64::from(before);
                // Rounding of sums of squares over at most some thousand values.
                assert!((f64::from(used) - wanted).abs() <= 1e-5 * wanted.abs());
            }
        }
    }
    assert!(clipped.iter().all(|&count| count > 20), "{clipped:?}");
}

#[test]
fn adaptive_clipping_lets_weights_of_zero_learn_and_keeps_gradients_of_zero() {
    let config = OptimizerConfig {
        kind: OptimizerKind::Sgd,
        momentum: 0.0,
        adaptive_clip: 0.05,
        ..adam()
    };
    let mut encoder = Encoder::fresh(&TINY, 1, &Device::cpu()).unwrap();
    let mut optimizer = Optimizer::new(&config, &encoder).unwrap();
    let mut gradients = gradients(&encoder);
    // One output of the places, whose weights are zero, has no gradient either.
    let places = gradients
        .specs
        .iter()
        .position(|spec| spec.name == "places");
    let places = places.unwrap();
    let weight = &mut gradients.layers[places].weight;
    let outputs = weight.dims()[3];
    let mut values: Vec<f32> = weight.flatten_all().unwrap().to_vec1().unwrap();
    values.iter_mut().step_by(outputs).for_each(|v| *v = 0.0);
    *weight =
        candle_core::Tensor::from_vec(values, weight.shape(), &candle_core::Device::Cpu).unwrap();
    optimizer
        .step(&mut encoder, &mut gradients, 1.0, 1.0)
        .unwrap();
    let arrays = encoder.to_arrays().unwrap();
    let places = arrays.iter().find(|array| array.name == "places.weight");
    let places = places.unwrap();
    for (output, weights) in places.data.chunks(places.data.len() / outputs).enumerate() {
        let wanted = if output == 0 { 0.0 } else { 0.05 * 1e-3 };
        // As above; the gradient of each other output is larger than that.
        assert!(
            (norm_of(weights) - wanted).abs() <= 1e-5 * wanted,
            "{output}"
        );
    }
}
