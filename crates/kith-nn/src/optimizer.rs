//! The optimiser: moments of an encoder's weights, steps, state in and out.
//! Must never know: losses, schedules.

use std::sync::Arc;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::architecture::LayerSpec;
use super::arrays::{Import, slots};
use super::backend::Parameter;
use super::update::Rule;
use super::{Device, Encoder, Gradients, NnError};
use crate::NamedArray;

/// Which optimiser, with its constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// `adamw` (decoupled decay), `adam` (decay in the gradient) or `sgd`.
    pub kind: OptimizerKind,
    /// Decay per unit of learning rate; biases are not decayed.
    pub weight_decay: f32,
    /// SGD's momentum, or Adam's β₁.
    pub momentum: f32,
    /// Adam's β₂.
    pub beta2: f32,
    /// Adam's ε.
    pub epsilon: f32,
    /// Largest global gradient norm; larger ones are scaled down to it. 0: no clipping.
    pub clip_norm: f32,
}

/// The optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
    Adamw,
    /// Adam (Kingma & Ba 2015), weight decay added to the gradient.
    Adam,
    /// Stochastic gradient descent with momentum, as PyTorch defines it.
    Sgd,
}

impl OptimizerConfig {
    /// Says which constant cannot be used, and which values can.
    pub fn validate(&self) -> Result<(), NnError> {
        let share = |value: f32| (0.0..1.0).contains(&value);
        let checks = [
            (share(self.momentum), "momentum must be from 0 to below 1"),
            (share(self.beta2), "beta2 must be from 0 to below 1"),
            (
                self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
                "weight_decay must be 0 or more",
            ),
            (
                self.epsilon > 0.0 && self.epsilon.is_finite(),
                "epsilon must be above 0",
            ),
            (
                self.clip_norm >= 0.0 && self.clip_norm.is_finite(),
                "clip_norm must be 0 (no clipping) or more",
            ),
        ];
        match checks.iter().find(|(good, _)| !good) {
            Some((_, message)) => Err(NnError::Config((*message).to_owned())),
            None => Ok(()),
        }
    }
}

/// The optimiser's moments for one encoder.
pub struct Optimizer {
    config: OptimizerConfig,
    device: Device,
    layers: Arc<[LayerSpec]>,
    moments: Vec<Moments>,
    updates: u64,
}

struct Moments {
    first: Tensor,
    /// Empty for SGD.
    second: Tensor,
}

impl Optimizer {
    /// Zero moments for `encoder`.
    pub fn new(config: &OptimizerConfig, encoder: &Encoder) -> Result<Self, NnError> {
        config.validate()?;
        let layers = encoder.specs.clone();
        let device = encoder.device.clone();
        let zeros = |shape: Vec<usize>| {
            let values: Vec<f32> = vec![0.0; shape.iter().product()];
            device.backend.upload(values.into(), &shape)
        };
        let moments = slots(&layers)
            .map(|slot| {
                let second = if config.kind == OptimizerKind::Sgd {
                    vec![0]
                } else {
                    slot.inner_shape()
                };
                Ok(Moments {
                    first: zeros(slot.inner_shape())?,
                    second: zeros(second)?,
                })
            })
            .collect::<Result<_, NnError>>()?;
        Ok(Self {
            config: config.clone(),
            device,
            layers,
            moments,
            updates: 0,
        })
    }

    /// Clips by `norm` (of [`Gradients::norm`]) and updates the encoder's weights in place.
    /// A tape recorded before is stale afterwards. An update that failed does not count.
    pub fn step(
        &mut self,
        encoder: &mut Encoder,
        gradients: &Gradients,
        norm: f32,
        rate: f32,
    ) -> Result<(), NnError> {
        let update = self.updates + 1;
        let rule = Rule::new(&self.config, update, norm, rate);
        let pairs = encoder.change().iter_mut().zip(&gradients.layers);
        let mut parameters = Vec::with_capacity(self.moments.len());
        for ((layer, gradient), moments) in pairs.zip(self.moments.chunks_exact_mut(2)) {
            let [weight, bias] = moments else { continue };
            parameters.push(Parameter {
                decay: self.config.weight_decay,
                state: [&mut layer.weight, &mut weight.first, &mut weight.second],
                gradient: &gradient.weight,
            });
            parameters.push(Parameter {
                decay: 0.0,
                state: [&mut layer.bias, &mut bias.first, &mut bias.second],
                gradient: &gradient.bias,
            });
        }
        self.device.backend.update(&rule, parameters)?;
        self.updates = update;
        Ok(())
    }

    /// Updates made so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moments (named `{weight}.m` / `.v`, in the weight's layout) and the update count (`updates`, shape `[2]`: the
    /// low 24 bits and the rest, both exact in `f32`). SGD has no `.v`.
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        let on = &*self.device.backend;
        let mut arrays = Vec::with_capacity(2 * self.moments.len() + 1);
        for (slot, moments) in slots(&self.layers).zip(&self.moments) {
            arrays.push(slot.export(".m", &moments.first, on)?);
            if self.config.kind != OptimizerKind::Sgd {
                arrays.push(slot.export(".v", &moments.second, on)?);
            }
        }
        let data = vec![
            (self.updates % (1 << 24)) as f32,
            (self.updates >> 24) as f32,
        ];
        arrays.push(NamedArray {
            name: "updates".to_owned(),
            shape: vec![2],
            data,
        });
        Ok(arrays)
    }

    /// Restores what [`Optimizer::to_arrays`] gave. After an error nothing has changed.
    pub fn load_arrays(&mut self, arrays: &[NamedArray]) -> Result<(), NnError> {
        let on = &*self.device.backend;
        let mut import = Import::new(arrays)?;
        let mut loaded = Vec::with_capacity(self.moments.len());
        for (slot, moments) in slots(&self.layers).zip(&self.moments) {
            let first = slot.import(".m", &mut import, on)?;
            let second = match self.config.kind {
                OptimizerKind::Sgd => moments.second.clone(),
                OptimizerKind::Adam | OptimizerKind::Adamw => slot.import(".v", &mut import, on)?,
            };
            loaded.push(Moments { first, second });
        }
        let updates = import.take("updates", &[2])?;
        let updates = updates[0] as u64 + ((updates[1] as u64) << 24);
        import.finish()?;
        self.moments = loaded;
        self.updates = updates;
        Ok(())
    }
}
