//! The optimisers' arithmetic: one pass over weights and moments.

use rayon::prelude::*;

use super::kernels::yield_point;
use super::optimizer_config::{OptimizerConfig, OptimizerKind};

/// Values in a task.
const TASK: usize = 1 << 14;

/// The constants of one step, as PyTorch derives them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Whether steps are divided by the root of the second moment (Adam).
    pub(super) adaptive: bool,
    /// Whether decay acts on the weight and not through the gradient.
    pub(super) decoupled: bool,
    /// Multiplies the gradient: clipping.
    pub(super) scale: f32,
    pub(super) rate: f32,
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    pub(super) epsilon: f32,
    /// `rate / (1 − β₁ᵗ)`.
    pub(super) first_step: f32,
    /// `√(1 − β₂ᵗ)`.
    pub(super) second_root: f32,
}

impl Rule {
    /// The rule of update number `update` (from 1) for gradients of global norm `norm`.
    pub(super) fn new(config: &OptimizerConfig, update: u64, norm: f32, rate: f32) -> Self {
        // The setting `momentum` is Adam's β₁ too.
        let beta1 = config.momentum;
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(update as f64);
        // PyTorch's clip_grad_norm_ adds the same constant.
        let scale = if config.clip_norm > 0.0 {
            (config.clip_norm / (norm + 1e-6)).min(1.0)
        } else {
            1.0
        };
        Self {
            adaptive: config.kind != OptimizerKind::Sgd,
            decoupled: config.kind == OptimizerKind::Adamw,
            scale,
            rate,
            beta1,
            beta2: config.beta2,
            epsilon: config.epsilon,
            first_step: (f64::from(rate) / correction(beta1)) as f32,
            second_root: correction(config.beta2).sqrt() as f32,
        }
    }

    /// Updates `[weight, first moment, second moment]` (the last is left alone unless adaptive) with `gradient`.
    pub(super) fn apply(&self, decay: f32, state: [&mut [f32]; 3], gradient: &[f32]) {
        let [weight, first, second] = state;
        if !self.adaptive {
            let parts = weight
                .par_chunks_mut(TASK)
                .zip(first.par_chunks_mut(TASK))
                .zip(gradient.par_chunks(TASK));
            parts.for_each(|((weight, first), gradient)| {
                yield_point();
                pulp::Arch::new().dispatch(|| self.sgd(decay, weight, first, gradient));
            });
            return;
        }
        weight
            .par_chunks_mut(TASK)
            .zip(first.par_chunks_mut(TASK).zip(second.par_chunks_mut(TASK)))
            .zip(gradient.par_chunks(TASK))
            .for_each(|((weight, (first, second)), gradient)| {
                yield_point();
                pulp::Arch::new().dispatch(|| self.adam(decay, [weight, first, second], gradient));
            });
    }

    /// SGD with momentum, as PyTorch defines it.
    #[inline(always)]
    fn sgd(&self, decay: f32, weight: &mut [f32], first: &mut [f32], gradient: &[f32]) {
        for ((weight, first), &gradient) in weight.iter_mut().zip(first).zip(gradient) {
            *first = self.beta1 * *first + (gradient * self.scale + decay * *weight);
            *weight -= self.rate * *first;
        }
    }

    /// Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019, algorithm 2).
    #[inline(always)]
    fn adam(&self, decay: f32, state: [&mut [f32]; 3], gradient: &[f32]) {
        let [weight, first, second] = state;
        let (kept, coupled) = if self.decoupled {
            (1.0 - self.rate * decay, 0.0)
        } else {
            (1.0, decay)
        };
        for (((weight, first), second), &gradient) in
            weight.iter_mut().zip(first).zip(second).zip(gradient)
        {
            let gradient = gradient * self.scale + coupled * *weight;
            *first = self.beta1 * *first + (1.0 - self.beta1) * gradient;
            *second = self.beta2 * *second + (1.0 - self.beta2) * gradient * gradient;
            let denom = second.sqrt() / self.second_root + self.epsilon;
            *weight = kept * *weight - self.first_step * *first / denom;
        }
    }
}
