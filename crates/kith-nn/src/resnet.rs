//! ResNet-18 without BatchNorm and its head, forward and backward.
//! Must never know: devices, optimisers.

use candle_core::{Result, Tensor, bail};

use super::architecture::{BLOCKS, Block, FC, PROJECTION, STEM};
use super::backend::{Backend, Input, LayerGradient};
use super::layer::Layer;

/// What a forward pass leaves behind.
#[derive(Clone)]
pub(super) struct Trace {
    /// `[batch, side, side, 3]`.
    pixels: Tensor,
    /// The stem's output and the places its pool picked; none if no backward pass is to follow.
    stem: Option<(Tensor, Tensor)>,
    /// Each block's hidden and output maps; empty if no backward pass is to follow.
    blocks: Vec<(Tensor, Tensor)>,
    /// Side of the last maps.
    last_side: usize,
    mean: Tensor,
    /// `[batch, 1, 1, 8 · width]`, after fc + ReLU.
    pub(super) hidden: Tensor,
    /// `[batch, 1, 1, dim]`, each of unit length.
    pub(super) embedding: Tensor,
    lengths: Tensor,
}

/// The network on a device.
#[derive(Clone, Copy)]
pub(super) struct Network<'a> {
    pub(super) on: &'a dyn Backend,
    pub(super) layers: &'a [Layer],
}

impl Network<'_> {
    /// Runs on `pixels`, which are on the device; `keep` for a backward pass.
    pub(super) fn forward(self, pixels: Tensor, keep: bool) -> Result<Trace> {
        let Self { on, layers } = self;
        let (mut x, picks) = on.stem(&layers[STEM], &pixels, keep)?;
        let stem = picks.filter(|_| keep).map(|picks| (x.clone(), picks));
        let mut blocks = Vec::new();
        for block in &BLOCKS {
            let (hidden, output) = self.block(block, &x)?;
            let before = std::mem::replace(&mut x, output.clone());
            if keep {
                blocks.push((hidden, output));
            } else {
                on.recycle(hidden)?;
                on.recycle(before)?;
            }
        }
        let mean = on.mean(&x)?;
        let hidden = on.conv(&layers[FC], &mean, None, true)?;
        let (embedding, lengths) =
            on.normalize(on.conv(&layers[PROJECTION], &hidden, None, false)?)?;
        let last_side = x.dim(1)?;
        if !keep {
            on.recycle(x)?;
        }
        Ok(Trace {
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

    fn block(self, block: &Block, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let Self { on, layers } = self;
        let hidden = on.conv(&layers[block.first], x, None, true)?;
        let second = &layers[block.second];
        let Some(downsample) = block.downsample else {
            let output = on.conv(second, &hidden, Some(x), true)?;
            return Ok((hidden, output));
        };
        let shortcut = on.conv(&layers[downsample], x, None, false)?;
        let output = on.conv(second, &hidden, Some(&shortcut), true)?;
        on.recycle(shortcut)?;
        Ok((hidden, output))
    }

    /// The gradients of all layers' weights, in their order, given the loss's gradient with respect to the embedding.
    pub(super) fn backward(
        self,
        trace: Trace,
        embedding_gradient: Tensor,
    ) -> Result<Vec<LayerGradient>> {
        let on = self.on;
        let mut back = Backward {
            network: self,
            gradients: self.layers.iter().map(|_| None).collect(),
        };
        let Trace {
            pixels,
            stem,
            mut blocks,
            last_side,
            mean,
            hidden,
            embedding,
            lengths,
        } = trace;
        let g = on.normalize_gradient(embedding_gradient, &embedding, &lengths)?;
        let g = back.through(PROJECTION, &hidden, &g, Input::New)?;
        let g = back.through(FC, &mean, &on.mask(g, &hidden)?, Input::New)?;
        let mut g = on.mean_gradient(&g, last_side)?;
        let Some((pooled, picks)) = stem else {
            bail!("the forward pass was not recorded")
        };
        for block in BLOCKS.iter().rev() {
            let Some(maps) = blocks.pop() else {
                bail!("the forward pass was not recorded")
            };
            let input = blocks.last().map_or(&pooled, |(_, output)| output);
            g = back.block(block, (input, maps), g)?;
        }
        let g = on.mask(g, &pooled)?;
        let stem = on.stem_gradient(&self.layers[STEM], &pixels, &picks, &g)?;
        back.gradients[STEM] = Some(stem);
        for tensor in [g, pooled, pixels] {
            on.recycle(tensor)?;
        }
        let all: Option<Vec<_>> = back.gradients.into_iter().collect();
        all.map_or_else(|| bail!("a layer has no gradient"), Ok)
    }
}

/// Maps of a block: its input, and (hidden, output).
type BlockMaps<'a> = (&'a Tensor, (Tensor, Tensor));

/// A backward pass under way.
struct Backward<'a> {
    network: Network<'a>,
    gradients: Vec<Option<LayerGradient>>,
}

impl Backward<'_> {
    fn block(&mut self, block: &Block, maps: BlockMaps, g: Tensor) -> Result<Tensor> {
        let on = self.network.on;
        let (x, (hidden, output)) = maps;
        let g = on.mask(g, &output)?;
        on.recycle(output)?;
        let inner = self.through(block.second, &hidden, &g, Input::New)?;
        let inner = on.mask(inner, &hidden)?;
        on.recycle(hidden)?;
        let shortcut = match block.downsample {
            Some(layer) => {
                let shortcut = self.through(layer, x, &g, Input::New)?;
                on.recycle(g)?;
                shortcut
            }
            None => g,
        };
        let before = self.through(block.first, x, &inner, Input::AddTo(shortcut))?;
        on.recycle(inner)?;
        Ok(before)
    }

    /// Goes back through one layer: keeps its weights' gradients, gives its input's.
    fn through(&mut self, layer: usize, x: &Tensor, g: &Tensor, input: Input) -> Result<Tensor> {
        let Network { on, layers } = self.network;
        let (input, own) = on.conv_gradient(&layers[layer], x, g, input)?;
        self.gradients[layer] = Some(own);
        Ok(input)
    }
}
