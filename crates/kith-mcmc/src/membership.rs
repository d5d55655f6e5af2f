//! What one image takes part in: its partners, slots and groups.

use crate::{GroupKey, ImageKey, PairWeight};

/// One trained pair, as the sampler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairEntry {
    /// The images of the anchor and the positive side; equal if the pair is two views of one image.
    pub images: [ImageKey; 2],
    /// Images of one group are never each other's negatives.
    pub group: Option<GroupKey>,
    /// How much it counts in the loss.
    pub weight: PairWeight,
}

impl PairEntry {
    /// A pair of weight 1.
    pub fn new(images: [ImageKey; 2], group: Option<GroupKey>) -> Self {
        Self {
            images,
            group,
            weight: PairWeight::ONE,
        }
    }

    /// Whether `image` is one of its images.
    pub(super) fn contains(&self, image: ImageKey) -> bool {
        self.images.contains(&image)
    }

    /// The image that `image` is paired with; itself if the pair is two views of it.
    fn partner(&self, image: ImageKey) -> ImageKey {
        self.images[(self.images[0] == image) as usize]
    }

    /// Its images, each once.
    pub(super) fn distinct(&self) -> &[ImageKey] {
        if self.images[0] == self.images[1] {
            &self.images[..1]
        } else {
            &self.images
        }
    }
}

/// What one image takes part in.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Its partner in each of its pairs, ascending; itself where a pair is two views of it.
    partners: Vec<ImageKey>,
    /// Number of distinct images among `partners`.
    distinct_partners: usize,
    /// Number of slots it holds: two in a pair of two views of it.
    slots: u32,
    /// The groups of its pairs, each with its number of pairs; seldom more than one group.
    groups: Vec<(GroupKey, u32)>,
}

impl Membership {
    /// ln of the number of slots it holds.
    pub(super) fn log_degree(&self) -> f32 {
        (self.slots as f32).ln()
    }

    pub(super) fn distinct_partners(&self) -> usize {
        self.distinct_partners
    }

    pub(super) fn is_partner(&self, image: ImageKey) -> bool {
        self.partners.binary_search(&image).is_ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partners.is_empty()
    }

    pub(super) fn groups(&self) -> &[(GroupKey, u32)] {
        &self.groups
    }

    /// Adds a pair of `image`; returns the pair's group if the image was not in it before.
    pub(super) fn join(&mut self, image: ImageKey, entry: &PairEntry) -> Option<GroupKey> {
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

    /// Removes a pair of `image`; returns the pair's group if no other pair keeps the image in it.
    pub(super) fn leave(&mut self, image: ImageKey, entry: &PairEntry) -> Option<GroupKey> {
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

/// Number of slots that each image of the pair holds in it.
fn slots_of(entry: &PairEntry) -> u32 {
    if entry.images[0] == entry.images[1] {
        2
    } else {
        1
    }
}
