//! ResNet-18 without BatchNorm and its head, forward and backward.
//! Must never know: devices, optimisers.

use candle_core::{Result, Tensor, bail};

use super::architecture::{BLOCKS, Block, FC, PROJECTION, STEM};
use super::layer::Layer;
use super::ops::{self, Input, LayerGradient};

/// What a forward pass leaves behind.
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

/// Runs the network on `pixels`; `keep` for a backward pass.
pub(super) fn forward(layers: &[Layer], pixels: Tensor, keep: bool) -> Result<Trace> {
    let (mut x, picks) = ops::stem(&layers[STEM], &pixels, keep)?;
    let stem = picks.filter(|_| keep).map(|picks| (x.clone(), picks));
    let mut blocks = Vec::new();
    for block in &BLOCKS {
        let (hidden, output) = block_forward(layers, block, &x)?;
        let before = std::mem::replace(&mut x, output.clone());
        if keep {
            blocks.push((hidden, output));
        } else {
            ops::recycle(hidden)?;
            ops::recycle(before)?;
        }
    }
    let mean = ops::mean(&x)?;
    let hidden = ops::conv(&layers[FC], &mean, None, true)?;
    let (embedding, lengths) =
        ops::normalize(ops::conv(&layers[PROJECTION], &hidden, None, false)?)?;
    let last_side = x.dim(1)?;
    if !keep {
        ops::recycle(x)?;
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

fn block_forward(layers: &[Layer], block: &Block, x: &Tensor) -> Result<(Tensor, Tensor)> {
    let hidden = ops::conv(&layers[block.first], x, None, true)?;
    let second = &layers[block.second];
    let Some(downsample) = block.downsample else {
        let output = ops::conv(second, &hidden, Some(x), true)?;
        return Ok((hidden, output));
    };
    let shortcut = ops::conv(&layers[downsample], x, None, false)?;
    let output = ops::conv(second, &hidden, Some(&shortcut), true)?;
    ops::recycle(shortcut)?;
    Ok((hidden, output))
}

/// The gradients of all layers' weights, in their order, given the loss's gradient with respect to the embedding.
pub(super) fn backward(
    layers: &[Layer],
    trace: Trace,
    embedding_gradient: Tensor,
) -> Result<Vec<LayerGradient>> {
    let mut gradients: Vec<Option<LayerGradient>> = layers.iter().map(|_| None).collect();
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
    let g = ops::normalize_gradient(embedding_gradient, &embedding, &lengths)?;
    let g = through(
        (&layers[PROJECTION], &mut gradients[PROJECTION]),
        &hidden,
        &g,
        Input::New,
    )?;
    let g = through(
        (&layers[FC], &mut gradients[FC]),
        &mean,
        &ops::mask(g, &hidden)?,
        Input::New,
    )?;
    let mut g = ops::mean_gradient(&g, last_side)?;
    let Some((pooled, picks)) = stem else {
        bail!("the forward pass was not recorded")
    };
    for block in BLOCKS.iter().rev() {
        let Some(maps) = blocks.pop() else {
            bail!("the forward pass was not recorded")
        };
        let input = blocks.last().map_or(&pooled, |(_, output)| output);
        g = block_backward(layers, block, (input, maps), g, &mut gradients)?;
    }
    let g = ops::mask(g, &pooled)?;
    gradients[STEM] = Some(ops::stem_gradient(&layers[STEM], &pixels, &picks, &g)?);
    for tensor in [g, pooled, pixels] {
        ops::recycle(tensor)?;
    }
    let all: Option<Vec<_>> = gradients.into_iter().collect();
    all.map_or_else(|| bail!("a layer has no gradient"), Ok)
}

/// Maps of a block: its input, and (hidden, output).
type BlockMaps<'a> = (&'a Tensor, (Tensor, Tensor));

fn block_backward(
    layers: &[Layer],
    block: &Block,
    maps: BlockMaps,
    g: Tensor,
    gradients: &mut [Option<LayerGradient>],
) -> Result<Tensor> {
    let (x, (hidden, output)) = maps;
    let g = ops::mask(g, &output)?;
    ops::recycle(output)?;
    let inner = through(
        (&layers[block.second], &mut gradients[block.second]),
        &hidden,
        &g,
        Input::New,
    )?;
    let inner = ops::mask(inner, &hidden)?;
    ops::recycle(hidden)?;
    let shortcut = match block.downsample {
        Some(layer) => {
            let shortcut = through((&layers[layer], &mut gradients[layer]), x, &g, Input::New)?;
            ops::recycle(g)?;
            shortcut
        }
        None => g,
    };
    let before = through(
        (&layers[block.first], &mut gradients[block.first]),
        x,
        &inner,
        Input::AddTo(shortcut),
    )?;
    ops::recycle(inner)?;
    Ok(before)
}

/// Goes back through one layer: stores its weights' gradients, gives its input's.
fn through(
    (layer, slot): (&Layer, &mut Option<LayerGradient>),
    x: &Tensor,
    g: &Tensor,
    input: Input,
) -> Result<Tensor> {
    let (input, own) = ops::conv_gradient(layer, x, g, input)?;
    *slot = Some(own);
    input.map_or_else(|| bail!("no gradient with respect to the input"), Ok)
}
