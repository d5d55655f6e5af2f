//! The trained pairs as a graph over images: which slot holds which image, which images are partners, and how many slots an image holds.

use std::{collections::HashMap, sync::Mutex};

use crate::{
    DrawShare, Draws, GroupKey, ImageKey, PairEntry, PairKey, Side, SlotKey,
    membership::Membership, weights::Weights,
};

/// The trained pairs and their images.
#[derive(Debug, Default)]
pub struct PairGraph {
    pairs: HashMap<PairKey, PairEntry>,
    by_image: HashMap<ImageKey, Membership>,
    /// Number of distinct images in the pairs of each group.
    by_group: HashMap<GroupKey, usize>,
    weights: Weights,
    /// Grows with each change.
    pub(super) revision: u64,
    /// Cache of [`PairGraph::has_eligible_negative`].
    pub(super) last_search: Mutex<EligibleSearch>,
}

/// The outcome of the last search for an eligible negative.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum EligibleSearch {
    /// There was no search.
    #[default]
    NotRun,
    /// An anchor and a negative of it; changes of the graph may have made them positives.
    Negative(SlotKey, ImageKey),
    /// The answer for one revision of the graph.
    Answer { revision: u64, answer: bool },
}

impl PairGraph {
    /// Adds a pair. Does nothing if the key is in use.
    pub fn insert(&mut self, pair: PairKey, entry: PairEntry) {
        if self.pairs.contains_key(&pair) {
            return;
        }
        self.revision += 1;
        self.pairs.insert(pair, entry);
        self.weights.insert(entry.weight);
        for &image in entry.distinct() {
            let entered = self.by_image.entry(image).or_default().join(image, &entry);
            if let Some(group) = entered {
                *self.by_group.entry(group).or_default() += 1;
            }
        }
    }

    /// Removes a pair and returns it. Its slots are no candidates any more.
    pub fn remove(&mut self, pair: PairKey) -> Option<PairEntry> {
        let entry = self.pairs.remove(&pair)?;
        self.revision += 1;
        self.weights.remove(entry.weight);
        for image in entry.distinct() {
            if let Some(membership) = self.by_image.get_mut(image) {
                let left = membership.leave(*image, &entry);
                if membership.is_empty() {
                    self.by_image.remove(image);
                }
                left.into_iter().for_each(|group| self.shrink(group));
            }
        }
        Some(entry)
    }

    /// Counts one image less in the group.
    fn shrink(&mut self, group: GroupKey) {
        if let Some(images) = self.by_group.get_mut(&group) {
            *images -= 1;
            if *images == 0 {
                self.by_group.remove(&group);
            }
        }
    }

    /// The pair's images and group; `None` if it is not in the graph.
    pub fn get(&self, pair: PairKey) -> Option<PairEntry> {
        self.pairs.get(&pair).copied()
    }

    /// The image of a slot; `None` if its pair is not in the graph.
    pub fn image(&self, slot: SlotKey) -> Option<ImageKey> {
        self.pairs
            .get(&slot.pair())
            .map(|entry| entry.images[(slot.side() == Side::Positive) as usize])
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Number of distinct images.
    pub fn images(&self) -> usize {
        self.by_image.len()
    }

    /// Both slots of each pair, in no particular order.
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotKey> {
        self.pairs.keys().flat_map(|pair| pair.slots())
    }

    /// All images, in no particular order.
    pub(super) fn each_image(&self) -> impl Iterator<Item = ImageKey> {
        self.by_image.keys().copied()
    }

    pub(super) fn membership(&self, image: ImageKey) -> Option<&Membership> {
        self.by_image.get(&image)
    }

    /// Number of distinct images in the pairs of the group.
    pub(super) fn images_of_group(&self, group: GroupKey) -> usize {
        self.by_group.get(&group).copied().unwrap_or_default()
    }

    /// Whether some pair holds the image.
    pub fn holds(&self, image: ImageKey) -> bool {
        self.by_image.contains_key(&image)
    }

    /// All images, ascending.
    pub fn image_keys(&self) -> Vec<ImageKey> {
        let mut images: Vec<ImageKey> = self.by_image.keys().copied().collect();
        images.sort_unstable();
        images
    }

    /// How the weights of the pairs are spread over draws and factors. Takes time in proportion to the number of distinct weights.
    pub fn draws(&self) -> Draws {
        self.weights.draws()
    }

    /// How often pairs are drawn, without the rest of [`PairGraph::draws`]: in constant time.
    pub fn draw_share(&self) -> DrawShare {
        self.weights.draw_share()
    }

    /// ln of the share of the epochs in which the slot is drawn, or 0 if its pair is not in the graph.
    pub fn log_odds(&self, slot: SlotKey) -> f32 {
        self.get(slot.pair())
            .map_or(0.0, |entry| self.draw_share().of(entry.weight).ln() as f32)
    }

    /// ln(number of slots that the image holds), or 0 if it holds none. Subtracting it from a candidate's log score makes the target
    /// count each image once.
    pub fn log_degree(&self, image: ImageKey) -> f32 {
        self.by_image
            .get(&image)
            .map_or(0.0, Membership::log_degree)
    }
}
