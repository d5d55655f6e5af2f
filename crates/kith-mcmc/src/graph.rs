//! The trained pairs as a graph over images: which slot holds which image, who is a known positive of whom, and how many slots an
//! image holds. Must never know: scores, chains.

use std::{collections::HashMap, sync::Mutex};

use super::eligible::Found;
use crate::{GroupKey, ImageKey, PairKey, Side, SlotKey};

/// One trained pair, as the sampler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairEntry {
    /// The images of the anchor and the positive side; equal when one image makes its own pair of views.
    pub images: [ImageKey; 2],
    /// Images of one group are never each other's negatives.
    pub group: Option<GroupKey>,
}

impl PairEntry {
    fn holds(&self, image: ImageKey) -> bool {
        self.images.contains(&image)
    }

    /// The image that `image` is paired with: itself if it makes its own pair.
    fn partner(&self, image: ImageKey) -> ImageKey {
        self.images[(self.images[0] == image) as usize]
    }

    /// Its images, a single one once.
    fn distinct(&self) -> &[ImageKey] {
        if self.images[0] == self.images[1] {
            &self.images[..1]
        } else {
            &self.images
        }
    }
}

/// The trained pairs, and who is a known positive of whom.
#[derive(Debug, Default)]
pub struct PairGraph {
    pairs: HashMap<PairKey, PairEntry>,
    by_image: HashMap<ImageKey, Membership>,
    /// Number of images that pairs of a group hold.
    by_group: HashMap<GroupKey, usize>,
    /// Grows with each change.
    pub(super) revision: u64,
    /// For [`PairGraph::has_eligible_negative`].
    pub(super) found: Mutex<Found>,
}

/// What one image takes part in.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Its partner in each of its pairs, ascending; itself where it makes its own.
    partners: Vec<ImageKey>,
    /// Number of distinct ones among them.
    distinct_partners: usize,
    /// Number of slots it holds: a pair of one image with itself counts twice.
    slots: u32,
    /// The groups of its pairs, with the number of pairs that give each; seldom more than one.
    groups: Vec<(GroupKey, u32)>,
}

impl PairGraph {
    /// Adds a pair; adding one that is there changes nothing.
    pub fn insert(&mut self, pair: PairKey, entry: PairEntry) {
        if self.pairs.contains_key(&pair) {
            return;
        }
        self.revision += 1;
        self.pairs.insert(pair, entry);
        for &image in entry.distinct() {
            let entered = self.by_image.entry(image).or_default().join(image, &entry);
            if let Some(group) = entered {
                *self.by_group.entry(group).or_default() += 1;
            }
        }
    }

    /// Removes a pair; its slots are no candidates any more.
    pub fn remove(&mut self, pair: PairKey) -> Option<PairEntry> {
        let entry = self.pairs.remove(&pair)?;
        self.revision += 1;
        for image in entry.distinct() {
            if let Some(membership) = self.by_image.get_mut(image) {
                let left = membership.leave(*image, &entry);
                if membership.partners.is_empty() {
                    self.by_image.remove(image);
                }
                left.into_iter().for_each(|group| self.shrink(group));
            }
        }
        Some(entry)
    }

    /// An image has left the group.
    fn shrink(&mut self, group: GroupKey) {
        if let Some(images) = self.by_group.get_mut(&group) {
            *images -= 1;
            if *images == 0 {
                self.by_group.remove(&group);
            }
        }
    }

    /// The pair's images and group, if it is (still) trained on.
    pub fn get(&self, pair: PairKey) -> Option<PairEntry> {
        self.pairs.get(&pair).copied()
    }

    /// The image that holds a slot; `None` once its pair is gone.
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
        let sides = [Side::Anchor, Side::Positive];
        self.pairs
            .keys()
            .flat_map(move |pair| sides.map(|side| SlotKey::new(*pair, side)))
    }

    /// All images, in no particular order.
    pub(super) fn each_image(&self) -> impl Iterator<Item = ImageKey> {
        self.by_image.keys().copied()
    }

    pub(super) fn membership(&self, image: ImageKey) -> Option<&Membership> {
        self.by_image.get(&image)
    }

    /// Number of images that pairs of the group hold.
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

    /// ln(number of slots that the image holds): subtracted from a candidate's log score so that the target counts each image once.
    /// 0 for an image that holds none.
    pub fn log_degree(&self, image: ImageKey) -> f32 {
        self.by_image
            .get(&image)
            .map_or(0.0, Membership::log_degree)
    }

    /// What is known to be positive for `anchor`; see [`Positives::excludes`].
    pub fn positives(&self, anchor: SlotKey) -> Positives<'_> {
        let groups = self
            .image(anchor)
            .and_then(|image| self.by_image.get(&image))
            .map_or(&[][..], |own| &own.groups);
        Positives {
            graph: self,
            anchor: self.get(anchor.pair()),
            groups,
        }
    }

    /// The image of a slot, for many questions to [`Positives::excludes_candidate`]; `None` once its pair is gone.
    pub fn candidate(&self, slot: SlotKey) -> Option<Candidate<'_>> {
        self.candidate_image(self.image(slot)?)
    }

    fn candidate_image(&self, image: ImageKey) -> Option<Candidate<'_>> {
        let membership = self.by_image.get(&image)?;
        Some(Candidate { image, membership })
    }
}

impl Membership {
    fn log_degree(&self) -> f32 {
        (self.slots as f32).ln()
    }

    pub(super) fn distinct_partners(&self) -> usize {
        self.distinct_partners
    }

    pub(super) fn is_partner(&self, image: ImageKey) -> bool {
        self.partners.binary_search(&image).is_ok()
    }

    pub(super) fn groups(&self) -> &[(GroupKey, u32)] {
        &self.groups
    }

    /// The group that the image enters by this pair, if it was not in it.
    fn join(&mut self, image: ImageKey, entry: &PairEntry) -> Option<GroupKey> {
        let partner = entry.partner(image);
        let place = self.partners.partition_point(|known| *known < partner);
        self.distinct_partners += usize::from(self.partners.get(place) != Some(&partner));
        self.partners.insert(place, partner);
        self.slots += slots_of(entry);
        let group = entry.group?;
        match self.groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, pairs)) => {
                *pairs += 1;
                None
            }
            None => {
                self.groups.push((group, 1));
                Some(group)
            }
        }
    }

    /// The group that the image leaves with this pair, if no other pair keeps it there.
    fn leave(&mut self, image: ImageKey, entry: &PairEntry) -> Option<GroupKey> {
        let partner = entry.partner(image);
        if let Ok(place) = self.partners.binary_search(&partner) {
            self.partners.remove(place);
            self.distinct_partners -= usize::from(!self.is_partner(partner));
        }
        self.slots -= slots_of(entry);
        let group = entry.group?;
        let place = self.groups.iter().position(|(known, _)| *known == group)?;
        self.groups[place].1 -= 1;
        (self.groups[place].1 == 0).then(|| self.groups.remove(place).0)
    }
}

/// Slots that each of the pair's images holds in it.
fn slots_of(entry: &PairEntry) -> u32 {
    if entry.images[0] == entry.images[1] {
        2
    } else {
        1
    }
}

/// An image that some pair holds, with what it takes part in.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'graph> {
    /// The image.
    pub image: ImageKey,
    membership: &'graph Membership,
}

impl Candidate<'_> {
    /// As [`PairGraph::log_degree`].
    pub fn log_degree(&self) -> f32 {
        self.membership.log_degree()
    }
}

/// The known positives of one anchor: its own image, its partners in any pair, all images of a pair that shares an image with the
/// anchor's pair, and all images that share a group with it.
#[derive(Debug)]
pub struct Positives<'graph> {
    graph: &'graph PairGraph,
    /// The anchor's own pair; `None` if it is not trained on.
    anchor: Option<PairEntry>,
    groups: &'graph [(GroupKey, u32)],
}

impl Positives<'_> {
    /// Whether `candidate` must not be a negative of the anchor (also true of a slot whose pair is gone).
    /// It is asked of images, not slots: an image that is positive through one of its pairs is so wherever it stands.
    pub fn excludes(&self, candidate: SlotKey) -> bool {
        self.excludes_candidate(self.graph.candidate(candidate).as_ref())
    }

    /// [`Positives::excludes`] of an image; also true of one that no pair holds.
    pub fn excludes_image(&self, image: ImageKey) -> bool {
        self.excludes_candidate(self.graph.candidate_image(image).as_ref())
    }

    /// [`Positives::excludes`] of a slot that was looked up before.
    pub fn excludes_candidate(&self, candidate: Option<&Candidate<'_>>) -> bool {
        let (Some(anchor), Some(Candidate { image, membership })) = (self.anchor, candidate) else {
            return true;
        };
        anchor.holds(*image)
            || self.shares_group(membership)
            || (anchor.images.iter()).any(|own| membership.partners.binary_search(own).is_ok())
    }

    fn shares_group(&self, membership: &Membership) -> bool {
        membership
            .groups
            .iter()
            .any(|(group, _)| self.groups.iter().any(|(own, _)| own == group))
    }
}
