//! ResNet-18 (He et al. 2016) without BatchNorm and its head, forward and backward.

use candle_core::{Result, Tensor, bail};

use super::architecture::{BLOCKS, Block, FC, PROJECTION, STEM};
use super::backend::{Backend, GradientTarget, LayerGradient};
use super::layer::Layer;

/// The results of a forward pass, with the activations that a backward pass needs.
#[derive(Clone)]
pub(super) struct ForwardTrace {
    /// `[batch, side, side, 3]`.
    pixels: Tensor,
    /// The stem's output and the argmax indices of its pool. `None` without a backward pass.
    stem: Option<(Tensor, Tensor)>,
    /// Each block's activations. Empty without a backward pass.
    blocks: Vec<BlockActivations>,
    /// Side of the last block's activations.
    last_side: usize,
    /// Mean of the last block's activations over pixels.
    mean: Tensor,
    /// `[batch, 1, 1, 8 · width]`, after fc + ReLU.
    pub(super) hidden: Tensor,
    /// `[batch, 1, 1, dim]`, each of unit length.
    pub(super) embedding: Tensor,
    /// Lengths of the embeddings before normalisation.
    lengths: Tensor,
}

/// The activations of a block that its backward pass needs.
#[derive(Clone)]
struct BlockActivations {
    /// After the first convolution and its ReLU.
    hidden: Tensor,
    output: Tensor,
}

/// The network on a device.
#[derive(Clone, Copy)]
pub(super) struct Network<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) layers: &'a [Layer],
}

impl Network<'_> {
    /// Runs the network on `pixels`, which are on the device. With `save` a backward pass may follow.
    pub(super) fn forward(self, pixels: Tensor, save: bool) -> Result<ForwardTrace> {
        let Self { backend, layers } = self;
        let (mut x, argmax) = backend.stem(&layers[STEM], &pixels, save)?;
        let stem = argmax.filter(|_| save).map(|argmax| (x.clone(), argmax));
        let mut blocks = Vec::new();
        for block in &BLOCKS {
            let activations = self.block(block, &x)?;
            let input = std::mem::replace(&mut x, activations.output.clone());
            if save {
                blocks.push(activations);
            } else {
                backend.recycle(activations.hidden)?;
                backend.recycle(input)?;
            }
        }
        let mean = backend.mean(&x)?;
        let hidden = backend.conv(&layers[FC], &mean, None, true)?;
        let (embedding, lengths) =
            backend.normalize(backend.conv(&layers[PROJECTION], &hidden, None, false)?)?;
        let last_side = x.dim(1)?;
        if !save {
            backend.recycle(x)?;
        }
        Ok(ForwardTrace {
            pixels,
            stem,
            blocks,
            last_side,
            mean,
            hidden,
            embedding,
            lengths,
        })
    }

    fn block(self, block: &Block, x: &Tensor) -> Result<BlockActivations> {
        let Self { backend, layers } = self;
        let hidden = backend.conv(&layers[block.first], x, None, true)?;
        let second = &layers[block.second];
        let Some(downsample) = block.downsample else {
            let output = backend.conv(second, &hidden, Some(x), true)?;
            return Ok(BlockActivations { hidden, output });
        };
        let shortcut = backend.conv(&layers[downsample], x, None, false)?;
        let output = backend.conv(second, &hidden, Some(&shortcut), true)?;
        backend.recycle(shortcut)?;
        Ok(BlockActivations { hidden, output })
    }

    /// The gradients of all layers' weights, in the order of the layers, from the loss's gradient with respect to the embedding.
    pub(super) fn backward(
        self,
        trace: ForwardTrace,
        embedding_gradient: Tensor,
    ) -> Result<Vec<LayerGradient>> {
        let backend = self.backend;
        let mut pass = BackwardPass {
            network: self,
            gradients: self.layers.iter().map(|_| None).collect(),
        };
        let ForwardTrace {
            pixels,
            stem,
            mut blocks,
            last_side,
            mean,
            hidden,
            embedding,
            lengths,
        } = trace;
        let g = backend.normalize_gradient(embedding_gradient, &embedding, &lengths)?;
        let g = pass.layer(PROJECTION, &hidden, &g, GradientTarget::New)?;
        let g = pass.layer(FC, &mean, &backend.mask(g, &hidden)?, GradientTarget::New)?;
        let mut g = backend.mean_gradient(&g, last_side)?;
        let Some((pooled, argmax)) = stem else {
            bail!("the forward pass saved no activations")
        };
        for block in BLOCKS.iter().rev() {
            let Some(activations) = blocks.pop() else {
                bail!("the forward pass saved no activations")
            };
            let input = blocks.last().map_or(&pooled, |before| &before.output);
            g = pass.block(block, input, activations, g)?;
        }
        let g = backend.mask(g, &pooled)?;
        let stem = backend.stem_gradient(&self.layers[STEM], &pixels, &argmax, &g)?;
        pass.gradients[STEM] = Some(stem);
        for tensor in [g, pooled, pixels] {
            backend.recycle(tensor)?;
        }
        let all: Option<Vec<_>> = pass.gradients.into_iter().collect();
        all.map_or_else(|| bail!("a layer has no gradient"), Ok)
    }
}

/// A backward pass with the gradients that it has computed so far.
struct BackwardPass<'a> {
    network: Network<'a>,
    gradients: Vec<Option<LayerGradient>>,
}

impl BackwardPass<'_> {
    /// Computes the gradients of a block's weights and returns that of its input `x`, from the gradient `g` of its output.
    fn block(
        &mut self,
        block: &Block,
        x: &Tensor,
        activations: BlockActivations,
        g: Tensor,
    ) -> Result<Tensor> {
        let backend = self.network.backend;
        let BlockActivations { hidden, output } = activations;
        let g = backend.mask(g, &output)?;
        backend.recycle(output)?;
        let inner = self.layer(block.second, &hidden, &g, GradientTarget::New)?;
        let inner = backend.mask(inner, &hidden)?;
        backend.recycle(hidden)?;
        let shortcut = match block.downsample {
            Some(layer) => {
                let shortcut = self.layer(layer, x, &g, GradientTarget::New)?;
                backend.recycle(g)?;
                shortcut
            }
            None => g,
        };
        let input = self.layer(block.first, x, &inner, GradientTarget::AddTo(shortcut))?;
        backend.recycle(inner)?;
        Ok(input)
    }

    /// Computes the gradients of layer number `layer` and returns that of its input `x`, from the gradient `g` of its output.
    fn layer(
        &mut self,
        layer: usize,
        x: &Tensor,
        g: &Tensor,
        target: GradientTarget,
    ) -> Result<Tensor> {
        let Network { backend, layers } = self.network;
        let (input, gradient) = backend.conv_gradient(&layers[layer], x, g, target)?;
        self.gradients[layer] = Some(gradient);
        Ok(input)
    }
}
