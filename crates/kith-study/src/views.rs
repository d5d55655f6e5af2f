//! Pairs of two augmented views of one image: fixed ones, over which the global loss is exact, or new ones in each step, whose second may be
//! disguised. Also the order in which epochs draw the pairs.

use rayon::prelude::*;

use kith_learn::{Batch, CarriedViews, FixedViews, SharedView, Unreadable};
use kith_mcmc::{ImageKey, PairEntry, PairGraph, PairKey, Recency};
use kith_pixels::{AugmentConfig, DecodedImage, augment, fit};
use kith_seed::mix;

/// Number of images that are resized and embedded at once.
pub(super) const TILE: usize = 64;

/// The augmentation of Yau et al. 2024 on STL-10; the blur is always applied.
fn published_augment() -> AugmentConfig {
    AugmentConfig {
        crop_min_area: 0.08,
        flip: 0.5,
        jitter: 0.8,
        jitter_strength: [0.8, 0.8, 0.8, 0.2],
        greyscale: 0.2,
        blur: 1.0,
        ..AugmentConfig::none()
    }
}

/// The views that a learner trains on.
pub(super) trait TrainingViews: CarriedViews {
    /// The pairs, and the images of each.
    fn graph(&self) -> &PairGraph;

    /// The pairs of one step with their views.
    fn batch(&self, step: u64, pairs: Vec<PairKey>) -> Batch;
}

/// Two fixed views of each image. Every view counts as an image of its own, whose key is that of its slot.
pub(super) struct FixedSet {
    graph: PairGraph,
    pairs: Vec<PairKey>,
    /// `[2 · pairs, side, side, 3]`.
    pixels: Vec<f32>,
    /// Pixels across each.
    side: usize,
}

impl FixedSet {
    pub(super) fn new(images: &[DecodedImage], side: usize, seed: u64) -> Self {
        let config = published_augment();
        let view = |slot: usize| {
            let seed = mix(&[seed, u64::from_be_bytes(*b"   fixed"), slot as u64]);
            augment(&images[slot / 2], side, &config, seed)
        };
        let views: Vec<Vec<f32>> = (0..2 * images.len()).into_par_iter().map(view).collect();
        let pairs: Vec<PairKey> = (0..images.len() as u32).map(PairKey).collect();
        Self {
            graph: distinct_pairs(images.len() as u32),
            pairs,
            pixels: views.concat(),
            side,
        }
    }

    /// All views, as the exact loss takes them.
    pub(super) fn views(&self) -> FixedViews<'_> {
        FixedViews {
            pairs: &self.pairs,
            pixels: &self.pixels,
        }
    }
}

impl TrainingViews for FixedSet {
    fn graph(&self) -> &PairGraph {
        &self.graph
    }

    fn batch(&self, step: u64, pairs: Vec<PairKey>) -> Batch {
        let len = 2 * self.side * self.side * 3;
        let pair = |pair: &PairKey| &self.pixels[pair.0 as usize * len..][..len];
        let pixels = pairs.iter().flat_map(pair).copied().collect();
        Batch {
            step,
            pairs,
            recency: Recency::NONE,
            side: self.side,
            pixels,
        }
    }
}

impl CarriedViews for FixedSet {
    fn views(
        &self,
        _step: u64,
        images: &[ImageKey],
    ) -> Result<Vec<Option<SharedView>>, Unreadable> {
        let len = self.side * self.side * 3;
        let view = |image: &ImageKey| {
            let start = image.0 as usize * len;
            self.pixels
                .get(start..start + len)
                .map(|view| view.to_vec().into())
        };
        Ok(images.iter().map(view).collect())
    }
}

/// Two new views of each image in every step. Each pair has the same image on both sides.
pub(super) struct FreshSet<'a> {
    graph: PairGraph,
    images: &'a [DecodedImage],
    side: usize,
    augment: AugmentConfig,
    seed: u64,
}

impl<'a> FreshSet<'a> {
    pub(super) fn new(images: &'a [DecodedImage], side: usize, seed: u64) -> Self {
        Self {
            graph: pair_graph(images.len() as u32, |pair| [ImageKey(pair); 2]),
            images,
            side,
            augment: published_augment(),
            seed,
        }
    }

    fn view(&self, step: u64, slot: u64, image: u32) -> Vec<f32> {
        let seed = mix(&[self.seed, step, slot, u64::from(image)]);
        augment(&self.images[image as usize], self.side, &self.augment, seed)
    }
}

impl TrainingViews for FreshSet<'_> {
    fn graph(&self) -> &PairGraph {
        &self.graph
    }

    fn batch(&self, step: u64, pairs: Vec<PairKey>) -> Batch {
        let views = |(index, pair): (usize, &PairKey)| {
            [0, 1]
                .map(|side| self.view(step, 2 * index as u64 + side, pair.0))
                .concat()
        };
        let views: Vec<Vec<f32>> = pairs.par_iter().enumerate().map(views).collect();
        Batch {
            step,
            pairs,
            recency: Recency::NONE,
            side: self.side,
            pixels: views.concat(),
        }
    }
}

impl CarriedViews for FreshSet<'_> {
    fn views(&self, step: u64, images: &[ImageKey]) -> Result<Vec<Option<SharedView>>, Unreadable> {
        // A slot that no batch has.
        let view = |image: &ImageKey| Some(self.view(step, u64::MAX, image.0).into());
        Ok(images.par_iter().map(view).collect())
    }
}

/// A new view of each image in every step, paired with a new view of it in disguise.
pub(super) struct DisguisedSet<'a> {
    graph: PairGraph,
    views: FreshSet<'a>,
}

impl<'a> DisguisedSet<'a> {
    /// `directed`: each side has an encoder of its own.
    pub(super) fn new(images: &'a [DecodedImage], side: usize, directed: bool, seed: u64) -> Self {
        let empty = if directed {
            PairGraph::directed()
        } else {
            PairGraph::default()
        };
        // An image and its disguise are two images: that of key k and that of key k + 1.
        let keys = |pair| [ImageKey(2 * pair), ImageKey(2 * pair + 1)];
        Self {
            graph: filled(empty, images.len() as u32, keys),
            views: FreshSet {
                // Mild, so that what is learned is the disguise.
                augment: AugmentConfig {
                    crop_min_area: 0.6,
                    flip: 0.0,
                    jitter: 0.0,
                    greyscale: 0.0,
                    blur: 0.0,
                    ..published_augment()
                },
                ..FreshSet::new(images, side, seed)
            },
        }
    }

    fn view(&self, step: u64, slot: u64, image: ImageKey) -> Vec<f32> {
        let view = self.views.view(step, slot, image.0 / 2);
        if image.0.is_multiple_of(2) {
            view
        } else {
            disguise(&view, self.views.side)
        }
    }
}

impl TrainingViews for DisguisedSet<'_> {
    fn graph(&self) -> &PairGraph {
        &self.graph
    }

    fn batch(&self, step: u64, pairs: Vec<PairKey>) -> Batch {
        let views = |(index, pair): (usize, &PairKey)| {
            [0, 1]
                .map(|side| {
                    let slot = 2 * index as u64 + side;
                    self.view(step, slot, ImageKey(2 * pair.0 + side as u32))
                })
                .concat()
        };
        let views: Vec<Vec<f32>> = pairs.par_iter().enumerate().map(views).collect();
        Batch {
            step,
            pairs,
            recency: Recency::NONE,
            side: self.views.side,
            pixels: views.concat(),
        }
    }
}

impl CarriedViews for DisguisedSet<'_> {
    fn views(&self, step: u64, images: &[ImageKey]) -> Result<Vec<Option<SharedView>>, Unreadable> {
        // A slot that no batch has.
        let view = |image: &ImageKey| Some(self.view(step, u64::MAX, *image).into());
        Ok(images.par_iter().map(view).collect())
    }
}

/// A view (`[side, side, 3]`, around 0) as a negative with its colours exchanged, standing on its head.
pub(super) fn disguise(view: &[f32], side: usize) -> Vec<f32> {
    let rows = view.chunks_exact(side * 3).rev();
    let pixels = rows.flat_map(|row| row.chunks_exact(3));
    pixels
        .flat_map(|pixel| [-pixel[1], -pixel[2], -pixel[0]])
        .collect()
}

/// A graph of pairs of two distinct images each; no two pairs share one.
pub(super) fn distinct_pairs(pairs: u32) -> PairGraph {
    pair_graph(pairs, |pair| [ImageKey(2 * pair), ImageKey(2 * pair + 1)])
}

fn pair_graph(pairs: u32, images: impl Fn(u32) -> [ImageKey; 2]) -> PairGraph {
    filled(PairGraph::default(), pairs, images)
}

fn filled(mut graph: PairGraph, pairs: u32, images: impl Fn(u32) -> [ImageKey; 2]) -> PairGraph {
    for pair in 0..pairs {
        graph.insert(PairKey(pair), PairEntry::new(images(pair), None));
    }
    graph
}

/// Images as serving sees them, [`TILE`] at a time: f32 `[≤ TILE, side, side, 3]`.
pub(super) fn plain_tiles(images: &[DecodedImage], side: usize) -> impl Iterator<Item = Vec<f32>> {
    images.chunks(TILE).map(move |tile| {
        let fitted: Vec<Vec<f32>> = tile.par_iter().map(|image| fit(image, side)).collect();
        fitted.concat()
    })
}

/// Draws batches without replacement. Each epoch has its own order; a last batch that would be short is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epochs {
    pub(super) seed: u64,
    pub(super) pairs: usize,
    pub(super) batch: usize,
}

impl Epochs {
    /// The pairs of a step; steps count from 1.
    pub(super) fn draw(&self, step: u64) -> Vec<PairKey> {
        let epoch_steps = (self.pairs / self.batch).max(1) as u64;
        let (epoch, index) = ((step - 1) / epoch_steps, (step - 1) % epoch_steps);
        let mut pairs: Vec<PairKey> = (0..self.pairs as u32).map(PairKey).collect();
        pairs.sort_by_cached_key(|pair| mix(&[self.seed, epoch, u64::from(pair.0)]));
        let start = index as usize * self.batch;
        pairs[start..(start + self.batch).min(self.pairs)].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(count: u8) -> Vec<DecodedImage> {
        let image = |shade: u8| {
            DecodedImage::opaque(
                40,
                40,
                (0..40 * 40 * 3).map(|n| (n % 251) as u8 ^ shade).collect(),
            )
        };
        (0..count).map(image).collect()
    }

    #[test]
    fn a_batch_and_a_carried_negative_see_the_same_fixed_view() {
        let set = FixedSet::new(&images(3), 32, 1);
        let batch = set.batch(7, vec![PairKey(2), PairKey(0)]);
        let carried = CarriedViews::views(
            &set,
            7,
            &[ImageKey(4), ImageKey(5), ImageKey(0), ImageKey(9)],
        )
        .unwrap();
        assert_eq!(batch.pixels.len(), 4 * 32 * 32 * 3);
        let found: Vec<f32> = carried[..3]
            .iter()
            .flatten()
            .flat_map(|view| view.iter())
            .copied()
            .collect();
        assert_eq!(found, batch.pixels[..3 * 32 * 32 * 3]);
        assert!(carried[3].is_none());
        assert_ne!(carried[0], carried[1], "two views of one image differ");
    }

    #[test]
    fn fresh_views_change_with_the_step_and_come_back_with_it() {
        let images = images(3);
        let set = FreshSet::new(&images, 32, 1);
        let at = |step| set.batch(step, vec![PairKey(1)]).pixels;
        assert_eq!(at(1), at(1));
        assert_ne!(at(1), at(2));
    }

    #[test]
    fn an_epoch_draws_every_pair_once() {
        let epochs = Epochs {
            seed: 1,
            pairs: 10,
            batch: 3,
        };
        let mut drawn: Vec<u32> = (1..=3)
            .flat_map(|step| epochs.draw(step))
            .map(|pair| pair.0)
            .collect();
        let second: Vec<u32> = (4..=6)
            .flat_map(|step| epochs.draw(step))
            .map(|pair| pair.0)
            .collect();
        assert_ne!(drawn, second);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 9);
    }
}
