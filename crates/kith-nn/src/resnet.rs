//! ResNet-18 (He et al. 2016) without BatchNorm and its head, forward and backward.
//!
//! The head adds two projections and scales the sum to unit length: one of the hidden features, which know no places, and one of the means of the third
//! stage's activations over each quarter of the image.

use candle_core::{Result, Tensor, bail};

use super::architecture::{BLOCKS, Block, FC, GRID, PLACES, PLACES_BLOCK, PROJECTION, STEM};
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
    /// `[batch, 1, 1, GRID² · 4 · width]`: the mean of the third stage's activations over each place, row by row.
    pub(super) places: Tensor,
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
        let mut places = None;
        for (number, block) in BLOCKS.iter().enumerate() {
            let activations = self.block(block, &x)?;
            if number == PLACES_BLOCK {
                places = Some(self.places(&activations.output)?);
            }
            let input = std::mem::replace(&mut x, activations.output.clone());
            if save {
                blocks.push(activations);
            } else {
                backend.recycle(activations.hidden)?;
                backend.recycle(input)?;
            }
        }
        let Some(places) = places else {
            bail!("no block's places were read")
        };
        let mean = backend.mean(&x)?;
        let hidden = backend.conv(&layers[FC], &mean, None, true)?;
        let by_places = backend.conv(&layers[PLACES], &places, None, false)?;
        let sum = backend.conv(&layers[PROJECTION], &hidden, Some(&by_places), false)?;
        backend.recycle(by_places)?;
        let (embedding, lengths) = backend.normalize(sum)?;
        let last_side = x.dim(1)?;
        if !save {
            backend.recycle(x)?;
        }
        Ok(ForwardTrace {
            pixels,
            stem,
            blocks,
            last_side,
            places,
            mean,
            hidden,
            embedding,
            lengths,
        })
    }

    /// The mean of `images` over each of GRID × GRID places: first over the pixels of a row, then over rows.
    fn places(self, images: &Tensor) -> Result<Tensor> {
        let (batch, side, _, channels) = images.dims4()?;
        let pixels = side / GRID;
        let rows = images.reshape((batch * side * GRID, pixels, 1, channels))?;
        let rows = self.backend.mean(&rows)?;
        let groups = rows.reshape((batch * GRID, pixels, 1, GRID * channels))?;
        let places = self.backend.mean(&groups)?;
        self.backend.recycle(rows)?;
        places.reshape((batch, 1, 1, GRID * GRID * channels))
    }

    /// The gradient of [`Network::places`] with respect to images of `side`.
    fn places_gradient(self, gradient: &Tensor, side: usize) -> Result<Tensor> {
        let (batch, _, _, values) = gradient.dims4()?;
        let (pixels, channels) = (side / GRID, values / (GRID * GRID));
        let groups = gradient.reshape((batch * GRID, 1, 1, GRID * channels))?;
        let groups = self.backend.mean_gradient(&groups, [pixels, 1])?;
        let rows = groups.reshape((batch * side * GRID, 1, 1, channels))?;
        let images = self.backend.mean_gradient(&rows, [pixels, 1])?;
        self.backend.recycle(groups)?;
        images.reshape((batch, side, side, channels))
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
            places,
            mean,
            hidden,
            embedding,
            lengths,
        } = trace;
        let g = backend.normalize_gradient(embedding_gradient, &embedding, &lengths)?;
        let by_places = pass.layer(PLACES, &places, &g, GradientTarget::New)?;
        // The third stage is read before the fourth halves its side.
        let mut by_places = Some(self.places_gradient(&by_places, 2 * last_side)?);
        let g = pass.layer(PROJECTION, &hidden, &g, GradientTarget::New)?;
        let g = pass.layer(FC, &mean, &backend.mask(g, &hidden)?, GradientTarget::New)?;
        let mut g = backend.mean_gradient(&g, [last_side; 2])?;
        let Some((pooled, argmax)) = stem else {
            bail!("the forward pass saved no activations")
        };
        for (number, block) in BLOCKS.iter().enumerate().rev() {
            let Some(activations) = blocks.pop() else {
                bail!("the forward pass saved no activations")
            };
            let input = blocks.last().map_or(&pooled, |before| &before.output);
            let reads_places = number == PLACES_BLOCK + 1;
            let target = by_places.take_if(|_| reads_places);
            let target = target.map_or(GradientTarget::New, GradientTarget::AddTo);
            g = pass.block(block, input, activations, (g, target))?;
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
    /// Computes the gradients of a block's weights and returns that of its input `x`, from the gradient `g` of its output. Only a block with a
    /// convolution in its shortcut can add to another gradient of its input.
    fn block(
        &mut self,
        block: &Block,
        x: &Tensor,
        activations: BlockActivations,
        (g, target): (Tensor, GradientTarget),
    ) -> Result<Tensor> {
        let backend = self.network.backend;
        let BlockActivations { hidden, output } = activations;
        let g = backend.mask(g, &output)?;
        backend.recycle(output)?;
        let inner = self.layer(block.second, &hidden, &g, GradientTarget::New)?;
        let inner = backend.mask(inner, &hidden)?;
        backend.recycle(hidden)?;
        let shortcut = match (block.downsample, target) {
            (Some(layer), target) => {
                let shortcut = self.layer(layer, x, &g, target)?;
                backend.recycle(g)?;
                shortcut
            }
            (None, GradientTarget::New) => g,
            (None, GradientTarget::AddTo(_)) => bail!("the shortcut has no convolution"),
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
