//! Encoders whose weights follow a formula, and one way to train them.

use kith_nn::{Device, Encoder, EncoderConfig, Optimizer, OptimizerConfig, OptimizerKind};

use crate::formula::values;

pub(super) const TINY: EncoderConfig = EncoderConfig {
    width: 8,
    side: 32,
    dim: 16,
    towers: 1,
};

pub(super) fn cpu() -> Device {
    Device::cpu()
}

/// The encoder whose weights follow the script's formula.
pub(super) fn formula_encoder(config: &EncoderConfig) -> Encoder {
    let mut arrays = Encoder::fresh(config, 0, &cpu())
        .unwrap()
        .to_arrays()
        .unwrap();
    for (stream, array) in arrays.iter_mut().enumerate() {
        let fan_in = array.data.len() / array.shape[0];
        let bound = match array.name.as_str() {
            name if name.ends_with("bias") => 0.1,
            name if name.ends_with("conv2.weight") => (6.0 / fan_in as f64).sqrt() * 0.3,
            _ => (6.0 / fan_in as f64).sqrt(),
        };
        let data = values(stream as u32, array.data.len());
        array.data = data.iter().map(|value| value * bound as f32).collect();
    }
    Encoder::from_arrays(config, &arrays, &cpu()).unwrap()
}

pub(super) fn pixels(config: &EncoderConfig, batch: usize) -> Vec<f32> {
    values(1000, batch * config.side * config.side * 3)
}

/// ‖a − b‖ / ‖b‖.
pub(super) fn relative_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let squares =
        |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
    let apart = squares(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (apart / squares(&mut b.iter().copied()).max(f32::MIN_POSITIVE)).sqrt()
}

pub(super) fn optimizer_config(kind: OptimizerKind) -> OptimizerConfig {
    let beta2 = 0.98;
    OptimizerConfig {
        kind,
        weight_decay: 0.05,
        momentum: 0.9,
        beta2,
        epsilon: 1e-6,
        clip_norm: 1.0,
        adaptive_clip: 0.0,
    }
}

pub(super) fn train(encoder: &mut Encoder, optimizer: &mut Optimizer, rate: f32, steps: usize) {
    let pixels = pixels(encoder.config(), 3);
    let gradient = values(1001, 3 * encoder.config().dim);
    for _ in 0..steps {
        let mut gradients = encoder
            .forward_train(&pixels)
            .unwrap()
            .backward(&gradient)
            .unwrap();
        let norm = gradients.norm().unwrap();
        optimizer.step(encoder, &mut gradients, norm, rate).unwrap();
    }
}
