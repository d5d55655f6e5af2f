//! ResNet-18 (He et al. 2016) without BatchNorm and its head, forward and backward.
//!
//! The head adds projections and scales their sum to unit length: one of the hidden features, which know no places, and those of the means of a stage's
//! activations over the places of a grid.

use candle_core::{Result, Tensor, bail};

use super::architecture::{BLOCKS, Block, FC, FIRST_PLACES, PLACES, PROJECTION, STEM};
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
    /// For each of [`PLACES`], `[batch, 1, 1, grid² · channels]`: the means of its stage's activations over each place, row by row.
    pub(super) places: [Tensor; PLACES.len()],
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
        let mut places = [const { None }; PLACES.len()];
        for (number, block) in BLOCKS.iter().enumerate() {
            let activations = self.block(block, &x)?;
            for (part, means) in PLACES.iter().zip(&mut places) {
                if number == part.block() {
                    *means = Some(self.places(&activations.output, part.grid)?);
                }
            }
            let input = std::mem::replace(&mut x, activations.output.clone());
            if save {
                blocks.push(activations);
            } else {
                backend.recycle(activations.hidden)?;
                backend.recycle(input)?;
            }
        }
        let [Some(places), Some(fine_places)] = places else {
            bail!("no block's places were read")
        };
        let places = [places, fine_places];
        let mean = backend.mean(&x)?;
        let hidden = backend.conv(&layers[FC], &mean, None, true)?;
        let mut sum = backend.conv(&layers[PROJECTION], &hidden, None, false)?;
        for (means, layer) in places.iter().zip(&layers[FIRST_PLACES..]) {
            let with_part = backend.conv(layer, means, Some(&sum), false)?;
            backend.recycle(std::mem::replace(&mut sum, with_part))?;
        }
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

    /// The mean of `images` over each of grid × grid places: first over the pixels of a row, then over rows.
    fn places(self, images: &Tensor, grid: usize) -> Result<Tensor> {
        let (batch, side, _, channels) = images.dims4()?;
        let pixels = side / grid;
        let rows = images.reshape((batch * side * grid, pixels, 1, channels))?;
        let rows = self.backend.mean(&rows)?;
        let groups = rows.reshape((batch * grid, pixels, 1, grid * channels))?;
        let places = self.backend.mean(&groups)?;
        self.backend.recycle(rows)?;
        places.reshape((batch, 1, 1, grid * grid * channels))
    }

    /// The gradient of [`Network::places`] with respect to images of `side`.
    fn places_gradient(self, gradient: &Tensor, grid: usize, side: usize) -> Result<Tensor> {
        let (batch, _, _, values) = gradient.dims4()?;
        let (pixels, channels) = (side / grid, values / (grid * grid));
        let groups = gradient.reshape((batch * grid, 1, 1, grid * channels))?;
        let groups = self.backend.mean_gradient(&groups, [pixels, 1])?;
        let rows = groups.reshape((batch * side * grid, 1, 1, channels))?;
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

    /// The gradients of the weights of all layers that are trained, in the order of the layers, from the loss's gradient with respect to the embedding.
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
        let mut by_places = Vec::with_capacity(PLACES.len());
        for (part, (means, layer)) in PLACES.iter().zip(places.iter().zip(FIRST_PLACES..)) {
            let gradient = pass.layer(layer, means, &g, GradientTarget::New)?;
            // Each of the stages after the one that is read halves the side.
            let side = last_side << (BLOCKS.len() / 2 - part.stage);
            by_places.push((
                part.block(),
                self.places_gradient(&gradient, part.grid, side)?,
            ));
        }
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
            // The gradient of the activations below that are read.
            let read = by_places.iter().position(|(block, _)| *block + 1 == number);
            let target = read.map_or(GradientTarget::New, |at| {
                GradientTarget::AddTo(by_places.swap_remove(at).1)
            });
            g = pass.block(block, input, activations, (g, target))?;
        }
        let stem = &self.layers[STEM];
        if stem.is_trained {
            g = backend.mask(g, &pooled)?;
            pass.gradients[STEM] = Some(backend.stem_gradient(stem, &pixels, &argmax, &g)?);
        }
        for tensor in [g, pooled, pixels] {
            backend.recycle(tensor)?;
        }
        let layers = pass.gradients.into_iter().zip(self.layers);
        let trained = layers.filter(|(_, layer)| layer.is_trained);
        let all: Option<Vec<_>> = trained.map(|(gradient, _)| gradient).collect();
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
