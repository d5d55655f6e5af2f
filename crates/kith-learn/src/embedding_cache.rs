//! The last known embeddings of images, and the order in which they are refreshed.

use std::collections::{BTreeMap, BTreeSet};

use kith_mcmc::{PairGraph, SidedImage};

/// A bounded number of embeddings. It lives in memory only: after a restart, batches and refreshes fill it again.
#[derive(Debug, Default)]
pub(super) struct EmbeddingCache {
    vectors: BTreeMap<SidedImage, Cached>,
    /// Images to encode in the next step.
    due: Vec<SidedImage>,
    /// Images that this round of refreshes has not reached yet, the next one last.
    round: Vec<SidedImage>,
}

#[derive(Debug)]
struct Cached {
    step: u64,
    vector: Vec<f32>,
}

impl EmbeddingCache {
    /// All embeddings, by key.
    pub(super) fn vectors(&self) -> impl Iterator<Item = (SidedImage, &[f32])> {
        self.vectors
            .iter()
            .map(|(image, cached)| (*image, &cached.vector[..]))
    }

    /// The images to refresh in the next step.
    pub(super) fn due(&self) -> &[SidedImage] {
        &self.due
    }

    /// Stores the embeddings of a step, drops images that are missing or not in `graph`, and chooses the images to refresh next.
    pub(super) fn update(
        &mut self,
        step: u64,
        fresh: FreshEmbeddings,
        graph: &PairGraph,
        limits: CacheLimits,
    ) {
        let cached = |(image, vector)| (image, Cached { step, vector });
        self.vectors.extend(fresh.vectors.into_iter().map(cached));
        self.vectors
            .retain(|image, _| graph.holds(*image) && !fresh.missing.contains(image));
        self.evict(limits.max_images);
        let count = (f64::from(limits.refresh) * graph.sided_images().len() as f64).ceil() as usize;
        self.due = (0..count.min(limits.max_images))
            .map_while(|_| self.next_of_round(graph))
            .collect();
        // A round may end and begin anew within one step.
        self.due.sort_unstable();
        self.due.dedup();
    }

    /// Drops the images that are not in `graph`.
    pub(super) fn retain_known(&mut self, graph: &PairGraph) {
        self.vectors.retain(|image, _| graph.holds(*image));
    }

    fn next_of_round(&mut self, graph: &PairGraph) -> Option<SidedImage> {
        if self.round.is_empty() {
            self.round = graph.sided_images();
            self.round.reverse();
        }
        self.round.pop()
    }

    /// Drops the longest unrefreshed embeddings.
    fn evict(&mut self, max_images: usize) {
        let excess = self.vectors.len().saturating_sub(max_images);
        if excess == 0 {
            return;
        }
        let mut by_age: Vec<(u64, SidedImage)> = self
            .vectors
            .iter()
            .map(|(image, cached)| (cached.step, *image))
            .collect();
        by_age.sort_unstable();
        by_age[..excess]
            .iter()
            .for_each(|(_, image)| _ = self.vectors.remove(image));
    }
}

/// Bounds of an [`EmbeddingCache`].
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheLimits {
    /// See [`LearnConfig::cache_images`](crate::LearnConfig::cache_images).
    pub(super) max_images: usize,
    /// See [`LearnConfig::cache_refresh`](crate::LearnConfig::cache_refresh).
    pub(super) refresh: f32,
}

/// The embeddings that a step computed.
#[derive(Debug, Default)]
pub(super) struct FreshEmbeddings {
    /// Images with their current embeddings, `[dim]`.
    pub(super) vectors: Vec<(SidedImage, Vec<f32>)>,
    /// Images that could not be read.
    pub(super) missing: BTreeSet<SidedImage>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_mcmc::{ImageKey, PairEntry, PairKey, Side};

    /// Images 0 to 9 in five pairs.
    fn graph() -> PairGraph {
        let mut graph = PairGraph::default();
        for pair in 0..5 {
            let images = [2 * pair, 2 * pair + 1].map(ImageKey);
            graph.insert(PairKey(pair), PairEntry::new(images, None));
        }
        graph
    }

    fn fresh(images: &[u32]) -> FreshEmbeddings {
        FreshEmbeddings {
            vectors: images
                .iter()
                .map(|image| (on_anchor_side(*image), vec![1.0]))
                .collect(),
            missing: BTreeSet::new(),
        }
    }

    fn on_anchor_side(image: u32) -> SidedImage {
        SidedImage {
            image: ImageKey(image),
            side: Side::Anchor,
        }
    }

    fn limits(max_images: usize, refresh: f32) -> CacheLimits {
        CacheLimits {
            max_images,
            refresh,
        }
    }

    fn held(cache: &EmbeddingCache) -> Vec<u32> {
        cache.vectors().map(|(image, _)| image.image.0).collect()
    }

    #[test]
    fn every_image_is_due_once_a_round() {
        let (graph, mut cache) = (graph(), EmbeddingCache::default());
        let mut due = Vec::new();
        for step in 0..8 {
            cache.update(step, FreshEmbeddings::default(), &graph, limits(100, 0.25));
            assert!(cache.due().len() <= 3, "a quarter of ten");
            due.extend(cache.due().iter().map(|image| image.image.0));
        }
        (0..10).for_each(|image| {
            let times = due.iter().filter(|due| **due == image).count();
            assert!((2..=3).contains(&times), "{image}: {times}");
        });
    }

    #[test]
    fn the_longest_unrefreshed_go_first_and_so_do_images_without_a_pair() {
        let (mut graph, mut cache) = (graph(), EmbeddingCache::default());
        cache.update(0, fresh(&[0, 1, 2, 3]), &graph, limits(4, 0.1));
        cache.update(1, fresh(&[0, 7]), &graph, limits(4, 0.1));
        assert_eq!(held(&cache), [0, 2, 3, 7], "image 1 is the oldest");
        graph.remove(PairKey(1));
        cache.retain_known(&graph);
        assert_eq!(held(&cache), [0, 7]);
        let unreadable = FreshEmbeddings {
            missing: BTreeSet::from([on_anchor_side(7)]),
            ..fresh(&[8, 3])
        };
        cache.update(2, unreadable, &graph, limits(4, 0.1));
        assert_eq!(held(&cache), [0, 8]);
    }
}
