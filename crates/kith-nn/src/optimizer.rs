//! The optimiser: moments of an encoder's weights, steps, and its state in and out.

use std::sync::Arc;

use candle_core::Tensor;

use super::architecture::LayerSpec;
use super::arrays::{Import, slots};
use super::backend::Parameter;
use super::update::Rule;
use super::{Device, Encoder, Gradients, NamedArray, NnError, OptimizerConfig, OptimizerKind};

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
    /// An optimiser for `encoder` whose moments are zero. It never changes a [stem that whitens](Encoder::with_whitening_stem).
    ///
    /// # Errors
    /// `config` is not valid, or the device's memory is used up.
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

    /// Clips the gradients and updates the encoder's weights with them, both in place, with the learning rate `rate`. `norm` is that of
    /// [`Gradients::norm`].
    ///
    /// A [`super::Tape`] from before the step must not be used afterwards.
    ///
    /// # Errors
    /// The device failed. Then no weight or moment has changed, and the update does not count.
    pub fn step(
        &mut self,
        encoder: &mut Encoder,
        gradients: &mut Gradients,
        norm: f32,
        rate: f32,
    ) -> Result<(), NnError> {
        self.clip(encoder, gradients)?;
        self.update(encoder, gradients, norm, rate)
    }

    /// Clips the gradients filter by filter.
    pub(super) fn clip(&self, encoder: &Encoder, gradients: &Gradients) -> Result<(), NnError> {
        let share = self.config.adaptive_clip;
        if share == 0.0 {
            return Ok(());
        }
        let trained = encoder.layers.iter().filter(|layer| layer.is_trained);
        for (layer, gradient) in trained.zip(&gradients.layers) {
            let backend = &self.device.backend;
            backend.clip_filters(&gradient.weight, layer.weight()?, share)?;
        }
        Ok(())
    }

    /// [`Optimizer::step`] with gradients that are clipped filter by filter.
    pub(super) fn update(
        &mut self,
        encoder: &mut Encoder,
        gradients: &Gradients,
        norm: f32,
        rate: f32,
    ) -> Result<(), NnError> {
        let update = self.updates + 1;
        let rule = Rule::new(&self.config, update, norm, rate);
        let layers = encoder.layers_to_update().iter_mut();
        let layers = layers.zip(self.moments.chunks_exact_mut(2));
        let trained = layers.filter(|(layer, _)| layer.is_trained);
        let mut parameters = Vec::with_capacity(2 * gradients.layers.len());
        for ((layer, moments), gradient) in trained.zip(&gradients.layers) {
            let [weight, bias] = moments else { continue };
            let [layer_weight, layer_bias] = layer.parameters()?;
            parameters.push(Parameter {
                decay: self.config.weight_decay,
                state: [layer_weight, &mut weight.first, &mut weight.second],
                gradient: &gradient.weight,
            });
            parameters.push(Parameter {
                decay: 0.0,
                state: [layer_bias, &mut bias.first, &mut bias.second],
                gradient: &gradient.bias,
            });
        }
        self.device.backend.update(&rule, parameters)?;
        self.updates = update;
        Ok(())
    }

    /// Number of updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// A copy of the moments (named `{weight}.m` and `{weight}.v`, in the weight's layout) and of the update count (`updates`, shape `[2]`: the
    /// low 24 bits and the rest, both exact in `f32`). SGD has no `.v`.
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        let backend = &*self.device.backend;
        let mut arrays = Vec::with_capacity(2 * self.moments.len() + 1);
        for (slot, moments) in slots(&self.layers).zip(&self.moments) {
            arrays.push(slot.export(".m", &moments.first, backend)?);
            if self.config.kind != OptimizerKind::Sgd {
                arrays.push(slot.export(".v", &moments.second, backend)?);
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

    /// Restores the state of [`Optimizer::to_arrays`].
    ///
    /// # Errors
    /// An array is missing, left over or of another shape. Then nothing has changed.
    pub fn load_arrays(&mut self, arrays: &[NamedArray]) -> Result<(), NnError> {
        let backend = &*self.device.backend;
        let mut import = Import::new(arrays)?;
        let mut loaded = Vec::with_capacity(self.moments.len());
        for (slot, moments) in slots(&self.layers).zip(&self.moments) {
            let first = slot.import(".m", &mut import, backend)?;
            let second = match self.config.kind {
                OptimizerKind::Sgd => moments.second.clone(),
                OptimizerKind::Adam | OptimizerKind::Adamw => {
                    slot.import(".v", &mut import, backend)?
                }
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
