//! Embeddings of images as they were when last encoded, and whose turn it is to be encoded anew.
//! Must never know: scores, how images are encoded.

use std::collections::{BTreeMap, BTreeSet};

use kith_mcmc::{ImageKey, PairGraph};

/// At most a fixed number of vectors; beyond it the longest unrefreshed ones go. It lives in memory alone: after a restart it fills again,
/// by batches and refreshes.
#[derive(Debug, Default)]
pub(super) struct EmbeddingCache {
    vectors: BTreeMap<ImageKey, Cached>,
    /// To be encoded in the next step.
    due: Vec<ImageKey>,
    /// What this round of refreshes has still to come by.
    round: Vec<ImageKey>,
}

#[derive(Debug)]
struct Cached {
    step: u64,
    vector: Vec<f32>,
}

impl EmbeddingCache {
    /// All vectors, by key.
    pub(super) fn vectors(&self) -> impl Iterator<Item = (ImageKey, &[f32])> {
        self.vectors
            .iter()
            .map(|(image, cached)| (*image, &cached.vector[..]))
    }

    /// The images to refresh in the next step.
    pub(super) fn due(&self) -> &[ImageKey] {
        &self.due
    }

    /// Takes the vectors of a step, lets go of images that are not in `graph` or were found `gone`, keeps `most`, and settles whose turn is
    /// next: `share` of all images a step, round after round.
    pub(super) fn take(
        &mut self,
        step: u64,
        fresh: Fresh,
        graph: &PairGraph,
        (most, share): (usize, f32),
    ) {
        let cached = |(image, vector)| (image, Cached { step, vector });
        self.vectors.extend(fresh.vectors.into_iter().map(cached));
        self.vectors
            .retain(|image, _| graph.holds(*image) && !fresh.gone.contains(image));
        self.evict(most);
        let count = (f64::from(share) * graph.images() as f64).ceil() as usize;
        self.due = (0..count.min(most))
            .map_while(|_| self.next_of_round(graph))
            .collect();
        // A round may end and begin anew within one step.
        self.due.sort_unstable();
        self.due.dedup();
    }

    /// Forgets what is not in `graph` any more.
    pub(super) fn forget_strangers(&mut self, graph: &PairGraph) {
        self.vectors.retain(|image, _| graph.holds(*image));
    }

    fn next_of_round(&mut self, graph: &PairGraph) -> Option<ImageKey> {
        if self.round.is_empty() {
            self.round = graph.image_keys();
            self.round.reverse();
        }
        self.round.pop()
    }

    fn evict(&mut self, most: usize) {
        let excess = self.vectors.len().saturating_sub(most);
        if excess == 0 {
            return;
        }
        let mut by_age: Vec<(u64, ImageKey)> = self
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

/// What a step leaves for the cache.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// Vectors of today.
    pub(super) vectors: Vec<(ImageKey, Vec<f32>)>,
    /// Images that could not be read.
    pub(super) gone: BTreeSet<ImageKey>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_mcmc::{PairEntry, PairKey};

    /// Images 0 to 9 in five pairs.
    fn graph() -> PairGraph {
        let mut graph = PairGraph::default();
        for pair in 0..5 {
            let images = [2 * pair, 2 * pair + 1].map(ImageKey);
            graph.insert(
                PairKey(pair),
                PairEntry {
                    images,
                    group: None,
                },
            );
        }
        graph
    }

    fn fresh(images: &[u32]) -> Fresh {
        Fresh {
            vectors: images
                .iter()
                .map(|image| (ImageKey(*image), vec![1.0]))
                .collect(),
            gone: BTreeSet::new(),
        }
    }

    fn held(cache: &EmbeddingCache) -> Vec<u32> {
        cache.vectors().map(|(image, _)| image.0).collect()
    }

    #[test]
    fn every_image_is_due_once_a_round() {
        let (graph, mut cache) = (graph(), EmbeddingCache::default());
        let mut due = Vec::new();
        for step in 0..8 {
            cache.take(step, Fresh::default(), &graph, (100, 0.25));
            assert!(cache.due().len() <= 3, "a quarter of ten");
            due.extend(cache.due().iter().map(|image| image.0));
        }
        (0..10).for_each(|image| {
            let times = due.iter().filter(|due| **due == image).count();
            assert!((2..=3).contains(&times), "{image}: {times}");
        });
    }

    #[test]
    fn the_longest_unrefreshed_go_first_and_so_do_images_without_a_pair() {
        let (mut graph, mut cache) = (graph(), EmbeddingCache::default());
        cache.take(0, fresh(&[0, 1, 2, 3]), &graph, (4, 0.1));
        cache.take(1, fresh(&[0, 7]), &graph, (4, 0.1));
        assert_eq!(held(&cache), [0, 2, 3, 7], "image 1 is the oldest");
        graph.remove(PairKey(1));
        cache.forget_strangers(&graph);
        assert_eq!(held(&cache), [0, 7]);
        let unreadable = Fresh {
            gone: BTreeSet::from([ImageKey(7)]),
            ..fresh(&[8, 3])
        };
        cache.take(2, unreadable, &graph, (4, 0.1));
        assert_eq!(held(&cache), [0, 8]);
    }
}
