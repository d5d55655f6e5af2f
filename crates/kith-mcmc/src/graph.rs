//! The trained pairs as a graph over images: which slot holds which image, which images are partners, and how many slots an image holds.

use std::{collections::HashMap, sync::Mutex};

use crate::{
    DrawShare, Draws, GroupKey, ImageKey, PairEntry, PairKey, Side, SidedImage, SlotKey,
    membership::Membership, weights::Weights,
};

/// The trained pairs and their images.
///
/// Where each side of a pair has an encoder of its own, pairs are directed: the candidates of an anchor are the images of the other side.
#[derive(Debug, Default)]
pub struct PairGraph {
    /// Whether each side has an encoder of its own.
    directed: bool,
    pairs: HashMap<PairKey, PairEntry>,
    by_image: HashMap<ImageKey, Membership>,
    /// Number of distinct images on each side.
    images: [usize; 2],
    /// The same of each group's pairs.
    by_group: HashMap<GroupKey, [usize; 2]>,
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
    Negative(SlotKey, SidedImage),
    /// The answer for one revision of the graph.
    Answer { revision: u64, answer: bool },
}

impl PairGraph {
    /// A graph without pairs whose sides have an encoder each.
    pub fn directed() -> Self {
        Self {
            directed: true,
            ..Self::default()
        }
    }

    /// Whether each side has an encoder of its own.
    pub fn is_directed(&self) -> bool {
        self.directed
    }

    /// The side whose encoder sees the images of `side`.
    pub fn encoder_side(&self, side: Side) -> Side {
        if self.directed { side } else { Side::Anchor }
    }

    /// The side whose images are the candidates of the anchors of `side`.
    pub(super) fn candidate_side(&self, side: Side) -> Side {
        self.encoder_side(side.other())
    }

    /// Adds a pair. Does nothing if the key is in use.
    pub fn insert(&mut self, pair: PairKey, entry: PairEntry) {
        if self.pairs.contains_key(&pair) {
            return;
        }
        self.revision += 1;
        self.pairs.insert(pair, entry);
        self.weights.insert(entry.weight);
        for &image in entry.distinct() {
            self.change(image, |membership, sides| {
                membership.join(image, &entry, sides)
            });
        }
    }

    /// Removes a pair and returns it. Its slots are no candidates any more.
    pub fn remove(&mut self, pair: PairKey) -> Option<PairEntry> {
        let entry = self.pairs.remove(&pair)?;
        self.revision += 1;
        self.weights.remove(entry.weight);
        for image in entry.distinct() {
            self.change(*image, |membership, sides| {
                membership.leave(*image, &entry, sides)
            });
        }
        Some(entry)
    }

    /// Changes what an image takes part in, and the counts that follow from it.
    fn change(&mut self, image: ImageKey, change: impl FnOnce(&mut Membership, [Side; 2])) {
        let sides = Side::BOTH.map(|side| self.encoder_side(side));
        let mut membership = self.by_image.remove(&image).unwrap_or_default();
        self.count(&membership, |images| *images -= 1);
        change(&mut membership, sides);
        self.count(&membership, |images| *images += 1);
        if !membership.is_empty() {
            self.by_image.insert(image, membership);
        }
    }

    /// Counts an image on its sides, in all and in its groups.
    fn count(&mut self, membership: &Membership, count: impl Fn(&mut usize)) {
        for side in Side::BOTH
            .into_iter()
            .filter(|side| membership.is_on(*side))
        {
            count(&mut self.images[side.index()]);
            for (group, _) in membership.groups() {
                count(&mut self.by_group.entry(*group).or_default()[side.index()]);
            }
        }
        for (group, _) in membership.groups() {
            if self.by_group.get(group) == Some(&[0, 0]) {
                self.by_group.remove(group);
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
            .map(|entry| entry.images[slot.side().index()])
    }

    /// The image of a slot, as the slot's encoder sees it; `None` if its pair is not in the graph.
    pub fn sided_image(&self, slot: SlotKey) -> Option<SidedImage> {
        let side = self.encoder_side(slot.side());
        self.image(slot).map(|image| SidedImage { image, side })
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

    /// The pairs with a larger key, in no particular order.
    pub fn newer_than(&self, pair: PairKey) -> impl Iterator<Item = PairKey> {
        self.pairs.keys().copied().filter(move |key| *key > pair)
    }

    /// Both slots of each pair, in no particular order.
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotKey> {
        self.pairs.keys().flat_map(|pair| pair.slots())
    }

    /// All images of a side, in no particular order.
    pub(super) fn images_of(&self, side: Side) -> impl Iterator<Item = SidedImage> {
        let on_side = self.by_image.iter();
        on_side
            .filter(move |(_, membership)| membership.is_on(side))
            .map(move |(image, _)| SidedImage {
                image: *image,
                side,
            })
    }

    /// Number of distinct images on the side.
    pub(super) fn count_of(&self, side: Side) -> usize {
        self.images[side.index()]
    }

    pub(super) fn membership(&self, image: ImageKey) -> Option<&Membership> {
        self.by_image.get(&image)
    }

    /// Number of distinct images on the side that belong to the group.
    pub(super) fn count_of_group(&self, group: GroupKey, side: Side) -> usize {
        self.by_group
            .get(&group)
            .map_or(0, |images| images[side.index()])
    }

    /// Whether some pair holds the image on its side.
    pub fn holds(&self, image: SidedImage) -> bool {
        self.membership_of(image).is_some()
    }

    /// What the image takes part in, if it is on its side.
    pub(super) fn membership_of(
        &self,
        SidedImage { image, side }: SidedImage,
    ) -> Option<&Membership> {
        self.membership(image)
            .filter(|membership| membership.is_on(side))
    }

    /// All images of all sides, ascending.
    pub fn sided_images(&self) -> Vec<SidedImage> {
        let sides = Side::BOTH.into_iter();
        let mut images: Vec<SidedImage> = sides.flat_map(|side| self.images_of(side)).collect();
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

    /// ln(number of slots that the image holds on its side), or 0 if it holds none. Subtracting it from a candidate's log score makes the
    /// target count each image once.
    pub fn log_degree(&self, image: SidedImage) -> f32 {
        self.membership_of(image)
            .map_or(0.0, |membership| membership.log_degree(image.side))
    }
}
