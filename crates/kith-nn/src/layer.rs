//! A layer's weights, with the packed copies that the kernels read.

use std::sync::{Arc, OnceLock};

use candle_core::{Result, Tensor, bail};

use super::architecture::LayerSpec;
use super::config::Precision;
use super::kernels::{Packed, Panels};
use super::slices::View;

/// A convolution's or fully connected layer's weights on the device.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) spec: LayerSpec,
    /// `[kernel, kernel, inputs, outputs]`. `None`: only the packed copy is left.
    weight: Option<Tensor>,
    /// `[outputs]`.
    pub(super) bias: Tensor,
    /// Whether training changes the weights, so that their gradient is needed.
    pub(super) is_trained: bool,
    /// The weights that the forward kernel reads for activations of the spec's side, packed when first needed. `None`: packed for each use.
    packed: Option<Arc<OnceLock<Packed>>>,
    precision: Precision,
    /// Weights and bias as a GPU reads them, made when first needed.
    #[cfg(feature = "cuda")]
    cast: Arc<OnceLock<[Tensor; 2]>>,
}

/// Why weights are not there.
const ONLY_PACKED: &str = "this encoder only encodes: its weights are packed";

/// Packed weights, cached by the layer or made for one use.
pub(super) enum PackedRef<'a> {
    Cached(&'a Packed),
    Owned(Packed),
}

impl PackedRef<'_> {
    pub(super) fn panels(&self) -> Panels<'_> {
        match self {
            Self::Cached(packed) => packed.panels(),
            Self::Owned(packed) => packed.panels(),
        }
    }
}

impl Layer {
    /// A layer from its weights.
    pub(super) fn new(spec: LayerSpec, weight: Tensor, bias: Tensor) -> Self {
        Self {
            spec,
            weight: Some(weight),
            bias,
            is_trained: true,
            packed: Some(Arc::default()),
            precision: Precision::F32,
            #[cfg(feature = "cuda")]
            cast: Arc::default(),
        }
    }

    /// The weights, `[kernel, kernel, inputs, outputs]`. An error if only the packed copy is left.
    pub(super) fn weight(&self) -> Result<&Tensor> {
        match &self.weight {
            Some(weight) => Ok(weight),
            None => bail!("{ONLY_PACKED}"),
        }
    }

    /// Weights and bias, for an update in place. Copies of the old ones are dropped.
    pub(super) fn parameters(&mut self) -> Result<[&mut Tensor; 2]> {
        self.packed = Some(Arc::default());
        #[cfg(feature = "cuda")]
        {
            self.cast = Arc::default();
        }
        match &mut self.weight {
            Some(weight) => Ok([weight, &mut self.bias]),
            None => bail!("{ONLY_PACKED}"),
        }
    }

    /// The same layer with only the weights that the forward kernel of the CPU reads, in `precision`.
    pub(super) fn only_packed(mut self, precision: Precision) -> Result<Self> {
        (self.packed, self.precision) = (Some(Arc::default()), precision);
        self.packed_forward(self.spec.side)?;
        self.weight = None;
        Ok(self)
    }

    /// The same layer with weights of 32 bits, packed for each use. Training uses packed weights once, and all packed copies together would take
    /// several times the memory of the weights.
    pub(super) fn without_cache(&self) -> Self {
        Self {
            packed: None,
            precision: Precision::F32,
            #[cfg(feature = "cuda")]
            cast: Arc::default(),
            ..self.clone()
        }
    }

    /// The weights packed for the forward kernel on activations of `side`.
    pub(super) fn packed_forward(&self, side: usize) -> Result<PackedRef<'_>> {
        let (conv, usual) = (self.spec.conv, self.spec.side);
        let cache = self.packed.as_ref();
        let cache = cache.filter(|_| conv.packs_alike(side, usual));
        if let Some(packed) = cache.and_then(|packed| packed.get()) {
            return Ok(PackedRef::Cached(packed));
        }
        let weight = View::new(self.weight()?)?;
        let pack = || conv.pack(&weight, side);
        Ok(match cache {
            Some(packed) => PackedRef::Cached(
                packed.get_or_init(|| Packed::with_precision(&pack(), self.precision)),
            ),
            None => PackedRef::Owned(Packed::Temporary(pack())),
        })
    }

    /// A function that packs the weights for the kernel of the gradient of an input of `side`.
    pub(super) fn pack_backward(&self, side: usize) -> Result<impl Fn() -> Packed> {
        let weight = View::new(self.weight()?)?;
        Ok(move || {
            let values = self.spec.conv.pack_transposed(&weight, side);
            Packed::Temporary(values)
        })
    }

    /// The result of the first call of `make` for these weights.
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
