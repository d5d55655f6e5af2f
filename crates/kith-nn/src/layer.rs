//! A layer's weights, with the packed copies that the kernels read.
//! Must never know: the order of layers.

use std::sync::{Arc, OnceLock};

use candle_core::{Result, Tensor};

use super::architecture::LayerSpec;
use super::config::Precision;
use super::kernels::{Packed, Panels};
use super::slices::View;

/// A convolution's or fully connected layer's weights on the device.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) spec: LayerSpec,
    /// `[kernel, kernel, inputs, outputs]`.
    pub(super) weight: Tensor,
    /// `[outputs]`.
    pub(super) bias: Tensor,
    /// What the forward kernel reads, made when first needed; none if it is to be made for each use.
    packed: Option<Arc<OnceLock<Packed>>>,
    precision: Precision,
    /// Weights and bias as a device's products read them, if it is not the CPU: made when first needed.
    #[cfg(feature = "cuda")]
    cast: Arc<OnceLock<[Tensor; 2]>>,
}

/// Packed weights for one use.
pub(super) enum Lent<'a> {
    Kept(&'a Packed),
    Made(Packed),
}

impl Lent<'_> {
    pub(super) fn panels(&self) -> Panels<'_> {
        match self {
            Self::Kept(packed) => packed.panels(),
            Self::Made(packed) => packed.panels(),
        }
    }
}

impl Layer {
    /// A layer from its weights.
    pub(super) fn new(spec: LayerSpec, weight: Tensor, bias: Tensor) -> Self {
        Self {
            spec,
            weight,
            bias,
            packed: Some(Arc::default()),
            precision: Precision::F32,
            #[cfg(feature = "cuda")]
            cast: Arc::default(),
        }
    }

    /// Its kernels read weights of `precision`.
    pub(super) fn with_precision(self, precision: Precision) -> Self {
        let packed = Some(Arc::default());
        Self {
            packed,
            precision,
            ..self
        }
    }

    /// The same weights, packed for each use and exact: in training they are used once, and all copies together would take
    /// several times their memory.
    pub(super) fn fleeting(&self) -> Self {
        Self {
            packed: None,
            precision: Precision::F32,
            #[cfg(feature = "cuda")]
            cast: Arc::default(),
            ..self.clone()
        }
    }

    /// What the forward kernel reads.
    pub(super) fn packed_forward(&self) -> Result<Lent<'_>> {
        let weight = View::of(&self.weight)?;
        let pack = || self.spec.conv.pack(&weight, self.spec.side);
        Ok(match &self.packed {
            Some(packed) => {
                Lent::Kept(packed.get_or_init(|| Packed::lasting(pack(), self.precision)))
            }
            None => Lent::Made(Packed::Once(pack())),
        })
    }

    /// Makes what the kernel of the input's gradient reads.
    pub(super) fn pack_backward(&self) -> Result<impl Fn() -> Packed> {
        let weight = View::of(&self.weight)?;
        Ok(move || {
            let values = self.spec.conv.pack_transposed(&weight, self.spec.side);
            Packed::Once(values)
        })
    }

    /// Forgets what was made from weights that have changed.
    pub(super) fn changed(&mut self) {
        self.packed = Some(Arc::default());
        #[cfg(feature = "cuda")]
        {
            self.cast = Arc::default();
        }
    }

    /// What `make` gave when it was first called for these weights.
    #[cfg(feature = "cuda")]
    pub(super) fn cast(&self, make: impl FnOnce() -> Result<[Tensor; 2]>) -> Result<[Tensor; 2]> {
        match self.cast.get() {
            Some(cast) => Ok(cast.clone()),
            None => {
                let made = make()?;
                Ok(self.cast.get_or_init(|| made).clone())
            }
        }
    }
}
