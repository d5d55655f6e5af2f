//! The encoders of the two sides of a pair: one for both sides, or one for each, with their gradients and their optimisers.

use std::borrow::Cow;

use kith_mcmc::Side;

use super::{
    Device, Encoder, EncoderConfig, Gradients, NamedArray, NnError, Optimizer, OptimizerConfig,
    Precision, StageNorms,
};

/// What the names of the positive side's arrays begin with. Those of the anchor's side have torchvision's names, whether there are two or one.
pub const POSITIVE_PREFIX: &str = "positive.";

/// The encoders of the two sides. [`EncoderConfig::towers`] says whether both sides have the same one.
pub struct Towers {
    /// One for both sides, or the anchor's and the positive's.
    encoders: Vec<Encoder>,
}

impl Towers {
    /// Encoders with initial weights drawn from `seed`. Two towers begin with the same weights, so that images which look alike are close from
    /// the start.
    ///
    /// # Errors
    /// `config` is not valid, or the device failed.
    pub fn fresh(config: &EncoderConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.validate()?;
        let one = |_| Encoder::fresh(config, seed, device);
        let encoders = (0..config.towers).map(one).collect::<Result<_, _>>()?;
        Ok(Self { encoders })
    }

    /// The same encoders, each with the stem of [`Encoder::with_whitening_stem`].
    ///
    /// # Errors
    /// As [`Encoder::with_whitening_stem`].
    pub fn with_whitening_stems(self) -> Result<Self, NnError> {
        let encoders = self.encoders.into_iter();
        let encoders = encoders.map(Encoder::with_whitening_stem);
        Ok(Self {
            encoders: encoders.collect::<Result<_, _>>()?,
        })
    }

    /// Encoders with weights from named arrays, as [`Towers::to_arrays`] gives them.
    ///
    /// # Errors
    /// As [`Encoder::from_arrays`].
    pub fn from_arrays(
        config: &EncoderConfig,
        arrays: &[NamedArray],
        device: &Device,
    ) -> Result<Self, NnError> {
        config.validate()?;
        let encoders = split(config.towers, arrays)
            .iter()
            .map(|arrays| Encoder::from_arrays(config, arrays, device))
            .collect::<Result<_, _>>()?;
        Ok(Self { encoders })
    }

    /// The same encoders for passes that only encode: see [`Encoder::only_encoding`].
    ///
    /// # Errors
    /// The device failed.
    pub fn only_encoding(self, precision: Precision) -> Result<Self, NnError> {
        let encoders = self.encoders.into_iter();
        let encoders = encoders.map(|encoder| encoder.only_encoding(precision));
        Ok(Self {
            encoders: encoders.collect::<Result<_, _>>()?,
        })
    }

    /// The encoder of `side`.
    pub fn get(&self, side: Side) -> &Encoder {
        &self.encoders[side.index().min(self.encoders.len() - 1)]
    }

    /// The side whose encoder sees the images of `side`: its own, or the anchor's for both.
    pub fn encoder_side(&self, side: Side) -> Side {
        if self.are_two() { side } else { Side::Anchor }
    }

    /// Whether each side has an encoder of its own.
    pub fn are_two(&self) -> bool {
        self.encoders.len() > 1
    }

    /// Each encoder once, with the side that it is named after.
    pub fn each(&self) -> impl Iterator<Item = (Side, &Encoder)> {
        Side::BOTH.into_iter().zip(&self.encoders)
    }

    /// Each encoder once, the anchor's first.
    pub fn into_each(self) -> impl Iterator<Item = Encoder> {
        self.encoders.into_iter()
    }

    /// The shape that both have.
    pub fn config(&self) -> &EncoderConfig {
        self.get(Side::Anchor).config()
    }

    /// Moves every weight towards that of `others`, as [`Encoder::blend`].
    ///
    /// # Errors
    /// The device failed. Some weights may then have moved.
    pub fn blend(&mut self, others: &Self, share: f32) -> Result<(), NnError> {
        let each = self.encoders.iter_mut().zip(&others.encoders);
        let mut blended = each.map(|(encoder, other)| encoder.blend(other, share));
        blended.try_for_each(|result| result)
    }

    /// A copy of all weights in a fixed order: those of [`Encoder::to_arrays`], and those of a positive side's own encoder with `positive.`
    /// before their names.
    ///
    /// # Errors
    /// The device failed.
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        joined(self.encoders.iter().map(Encoder::to_arrays))
    }
}

impl From<Encoder> for Towers {
    /// One encoder for both sides.
    fn from(encoder: Encoder) -> Self {
        Self {
            encoders: vec![encoder],
        }
    }
}

/// The arrays of encoders, the anchor's first, in the form of [`Towers::to_arrays`].
pub fn arrays_of_towers(towers: impl IntoIterator<Item = Vec<NamedArray>>) -> Vec<NamedArray> {
    towers.into_iter().enumerate().flat_map(named).collect()
}

/// The arrays of one side's encoder, under the names of [`Encoder::to_arrays`], from those of [`Towers::to_arrays`].
pub fn arrays_of_side(
    config: &EncoderConfig,
    arrays: &[NamedArray],
    side: Side,
) -> Vec<NamedArray> {
    let mut towers = split(config.towers, arrays);
    let place = side.index().min(towers.len() - 1);
    towers.swap_remove(place).into_owned()
}

/// Names the arrays of the encoder at `place`.
fn named((place, mut arrays): (usize, Vec<NamedArray>)) -> Vec<NamedArray> {
    if place == Side::Positive.index() {
        let each = arrays.iter_mut();
        each.for_each(|array| array.name.insert_str(0, POSITIVE_PREFIX));
    }
    arrays
}

fn joined(
    towers: impl Iterator<Item = Result<Vec<NamedArray>, NnError>>,
) -> Result<Vec<NamedArray>, NnError> {
    let towers = towers.collect::<Result<Vec<_>, _>>()?;
    Ok(arrays_of_towers(towers))
}

/// The arrays of each of the encoders. With one, none is the positive's, so that such an array is left over and named in an error.
fn split(towers: usize, arrays: &[NamedArray]) -> Vec<Cow<'_, [NamedArray]>> {
    if towers == 1 {
        return vec![Cow::Borrowed(arrays)];
    }
    let mut split = [Vec::new(), Vec::new()];
    for array in arrays {
        match array.name.strip_prefix(POSITIVE_PREFIX) {
            Some(name) => split[1].push(NamedArray {
                name: name.to_owned(),
                ..array.clone()
            }),
            None => split[0].push(array.clone()),
        }
    }
    split.map(Cow::Owned).into()
}

/// The gradients of each encoder of [`Towers`], in their order.
pub struct TowerGradients {
    towers: Vec<Gradients>,
}

impl TowerGradients {
    /// Gradients of each encoder, the anchor's first.
    pub fn new(towers: Vec<Gradients>) -> Self {
        Self { towers }
    }

    /// The L2 norm of all gradients together. It is not finite if any value is not.
    ///
    /// # Errors
    /// The device failed.
    pub fn norm(&self) -> Result<f32, NnError> {
        let norms = self.towers.iter().map(Gradients::norm);
        let norms = norms.collect::<Result<Vec<_>, _>>()?;
        Ok(norms.into_iter().reduce(f32::hypot).unwrap_or_default())
    }

    /// The L2 norms of each stage's gradients, over both encoders: see [`Gradients::stage_norms`].
    ///
    /// # Errors
    /// The device failed.
    pub fn stage_norms(&self) -> Result<StageNorms, NnError> {
        let mut all = StageNorms::default();
        for gradients in &self.towers {
            all = all.with(&gradients.stage_norms()?);
        }
        Ok(all)
    }

    /// A copy of all values as one vector, in the order of [`Gradients::to_flat`], the anchor's first.
    ///
    /// # Errors
    /// The device failed.
    pub fn to_flat(&self) -> Result<Vec<f32>, NnError> {
        let flat = self.towers.iter().map(Gradients::to_flat);
        Ok(flat.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// A copy with the names and layout of [`Towers::to_arrays`].
    ///
    /// # Errors
    /// The device failed.
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        joined(self.towers.iter().map(Gradients::to_arrays))
    }
}

/// An optimiser for each encoder of [`Towers`]. Both make the same number of updates.
pub struct TowerOptimizer {
    towers: Vec<Optimizer>,
}

impl TowerOptimizer {
    /// Optimisers whose moments are zero.
    ///
    /// # Errors
    /// As [`Optimizer::new`].
    pub fn new(config: &OptimizerConfig, towers: &Towers) -> Result<Self, NnError> {
        let towers = towers.encoders.iter();
        let towers = towers.map(|encoder| Optimizer::new(config, encoder));
        Ok(Self {
            towers: towers.collect::<Result<_, _>>()?,
        })
    }

    /// Clips the gradients and updates the weights with them, both in place, as [`Optimizer::step`] does.
    ///
    /// # Errors
    /// The device failed. The positive's encoder may then lack an update that the anchor's has had.
    pub fn step(
        &mut self,
        towers: &mut Towers,
        gradients: &mut TowerGradients,
        norm: f32,
        rate: f32,
    ) -> Result<(), NnError> {
        // What may need memory comes before any encoder has changed.
        let each = self.towers.iter().zip(&towers.encoders);
        for ((optimizer, encoder), gradients) in each.zip(&gradients.towers) {
            optimizer.clip(encoder, gradients)?;
        }
        let each = self.towers.iter_mut().zip(&mut towers.encoders);
        for ((optimizer, encoder), gradients) in each.zip(&gradients.towers) {
            optimizer.update(encoder, gradients, norm, rate)?;
        }
        Ok(())
    }

    /// Number of updates so far.
    pub fn updates(&self) -> u64 {
        self.towers.first().map_or(0, Optimizer::updates)
    }

    /// A copy of the state, as [`Optimizer::to_arrays`], with the names of [`Towers::to_arrays`].
    ///
    /// # Errors
    /// The device failed.
    pub fn to_arrays(&self) -> Result<Vec<NamedArray>, NnError> {
        joined(self.towers.iter().map(Optimizer::to_arrays))
    }

    /// Restores the state of [`TowerOptimizer::to_arrays`].
    ///
    /// # Errors
    /// As [`Optimizer::load_arrays`]. The anchor's state may then be restored and the positive's not.
    pub fn load_arrays(&mut self, arrays: &[NamedArray]) -> Result<(), NnError> {
        let arrays = split(self.towers.len(), arrays);
        for (optimizer, arrays) in self.towers.iter_mut().zip(arrays) {
            optimizer.load_arrays(&arrays)?;
        }
        Ok(())
    }
}
