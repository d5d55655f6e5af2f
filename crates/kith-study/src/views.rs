//! Pictures as pairs of their own two views: fixed ones, over which a global loss is exact, or new ones in each step; and the order in
//! which pairs are drawn. Must never know: objectives, encoders.

use rayon::prelude::*;

use kith_learn::{Batch, CarriedViews, FixedViews, SharedView};
use kith_mcmc::{ImageKey, PairEntry, PairGraph, PairKey};
use kith_pixels::{AugmentConfig, DecodedImage, augment, fit};
use kith_seed::mix;

/// Images that are cut to size at once when a whole set is embedded.
pub(super) const TILE: usize = 64;

/// The augmentation of Yau et al. 2024 on STL-10; the blur is never left out.
pub(super) fn published_augment() -> AugmentConfig {
    AugmentConfig {
        crop_min_area: 0.08,
        flip: 0.5,
        jitter: 0.8,
        jitter_strength: [0.8, 0.8, 0.8, 0.2],
        greyscale: 0.2,
        blur: 1.0,
    }
}

/// Each picture's two augmentations, made once. Every view is an image of its own, its key that of its slot.
pub(super) struct FixedSet {
    pub(super) graph: PairGraph,
    pub(super) pairs: Vec<PairKey>,
    /// `[2 · pairs, side, side, 3]`.
    pub(super) pixels: Vec<f32>,
    /// Values of a view.
    each: usize,
}

impl FixedSet {
    pub(super) fn new(pictures: &[DecodedImage], side: usize, seed: u64) -> Self {
        let config = published_augment();
        let view = |slot: usize| {
            let seed = mix(&[seed, u64::from_be_bytes(*b"   fixed"), slot as u64]);
            augment(&pictures[slot / 2], side, &config, seed)
        };
        let views: Vec<Vec<f32>> = (0..2 * pictures.len()).into_par_iter().map(view).collect();
        let pairs: Vec<PairKey> = (0..pictures.len() as u32).map(PairKey).collect();
        let mut graph = PairGraph::default();
        for pair in &pairs {
            let images = [ImageKey(2 * pair.0), ImageKey(2 * pair.0 + 1)];
            graph.insert(
                *pair,
                PairEntry {
                    images,
                    group: None,
                },
            );
        }
        Self {
            graph,
            pairs,
            pixels: views.concat(),
            each: side * side * 3,
        }
    }

    /// As the exact loss takes them.
    pub(super) fn views(&self) -> FixedViews<'_> {
        FixedViews {
            pairs: &self.pairs,
            pixels: &self.pixels,
        }
    }

    pub(super) fn batch(&self, step: u64, pairs: Vec<PairKey>) -> Batch {
        let pair =
            |pair: &PairKey| &self.pixels[2 * pair.0 as usize * self.each..][..2 * self.each];
        let pixels = pairs.iter().flat_map(pair).copied().collect();
        Batch {
            step,
            pairs,
            pixels,
        }
    }
}

impl CarriedViews for FixedSet {
    fn views(&self, _step: u64, images: &[ImageKey]) -> Vec<Option<SharedView>> {
        let view = |image: &ImageKey| {
            let start = image.0 as usize * self.each;
            self.pixels
                .get(start..start + self.each)
                .map(|view| view.to_vec().into())
        };
        images.iter().map(view).collect()
    }
}

/// Each picture a pair with itself, of two views that are new in every step.
pub(super) struct FreshSet<'a> {
    pub(super) graph: PairGraph,
    pictures: &'a [DecodedImage],
    side: usize,
    augment: AugmentConfig,
    seed: u64,
}

impl<'a> FreshSet<'a> {
    pub(super) fn new(pictures: &'a [DecodedImage], side: usize, seed: u64) -> Self {
        let mut graph = PairGraph::default();
        for pair in 0..pictures.len() as u32 {
            let images = [ImageKey(pair); 2];
            graph.insert(
                PairKey(pair),
                PairEntry {
                    images,
                    group: None,
                },
            );
        }
        Self {
            graph,
            pictures,
            side,
            augment: published_augment(),
            seed,
        }
    }

    fn view(&self, step: u64, place: u64, picture: u32) -> Vec<f32> {
        let seed = mix(&[self.seed, step, place, u64::from(picture)]);
        augment(
            &self.pictures[picture as usize],
            self.side,
            &self.augment,
            seed,
        )
    }

    pub(super) fn batch(&self, step: u64, pairs: Vec<PairKey>) -> Batch {
        let views = |(place, pair): (usize, &PairKey)| {
            [0, 1]
                .map(|side| self.view(step, 2 * place as u64 + side, pair.0))
                .concat()
        };
        let views: Vec<Vec<f32>> = pairs.par_iter().enumerate().map(views).collect();
        Batch {
            step,
            pairs,
            pixels: views.concat(),
        }
    }
}

impl CarriedViews for FreshSet<'_> {
    fn views(&self, step: u64, images: &[ImageKey]) -> Vec<Option<SharedView>> {
        // A place that no slot of a batch has.
        let view = |image: &ImageKey| Some(self.view(step, u64::MAX, image.0).into());
        images.par_iter().map(view).collect()
    }
}

/// Pictures as serving sees them, [`TILE`] at a time.
pub(super) fn plain_tiles(
    pictures: &[DecodedImage],
    side: usize,
) -> impl Iterator<Item = Vec<f32>> {
    pictures.chunks(TILE).map(move |some| {
        let fitted: Vec<Vec<f32>> = some.par_iter().map(|picture| fit(picture, side)).collect();
        fitted.concat()
    })
}

/// Epochs without replacement: each in an order of its own, a short tail left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epochs {
    pub(super) seed: u64,
    pub(super) pairs: usize,
    pub(super) batch: usize,
}

impl Epochs {
    /// The pairs of a step, counted from 1.
    pub(super) fn draw(&self, step: u64) -> Vec<PairKey> {
        let an_epoch = (self.pairs / self.batch).max(1) as u64;
        let (epoch, place) = ((step - 1) / an_epoch, (step - 1) % an_epoch);
        let mut pairs: Vec<PairKey> = (0..self.pairs as u32).map(PairKey).collect();
        pairs.sort_by_cached_key(|pair| mix(&[self.seed, epoch, u64::from(pair.0)]));
        let start = place as usize * self.batch;
        pairs[start..(start + self.batch).min(self.pairs)].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(count: u8) -> Vec<DecodedImage> {
        let picture = |shade: u8| DecodedImage {
            width: 40,
            height: 40,
            rgb: (0..40 * 40 * 3).map(|n| (n % 251) as u8 ^ shade).collect(),
        };
        (0..count).map(picture).collect()
    }

    #[test]
    fn a_batch_and_a_carried_negative_see_the_same_fixed_view() {
        let set = FixedSet::new(&pictures(3), 32, 1);
        let batch = set.batch(7, vec![PairKey(2), PairKey(0)]);
        let carried = CarriedViews::views(
            &set,
            7,
            &[ImageKey(4), ImageKey(5), ImageKey(0), ImageKey(9)],
        );
        assert_eq!(batch.pixels.len(), 4 * 32 * 32 * 3);
        let found: Vec<f32> = carried[..3]
            .iter()
            .flatten()
            .flat_map(|view| view.iter())
            .copied()
            .collect();
        assert_eq!(found, batch.pixels[..3 * 32 * 32 * 3]);
        assert!(carried[3].is_none());
        assert_ne!(carried[0], carried[1], "two views of one picture differ");
    }

    #[test]
    fn fresh_views_change_with_the_step_and_come_back_with_it() {
        let pictures = pictures(3);
        let set = FreshSet::new(&pictures, 32, 1);
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
