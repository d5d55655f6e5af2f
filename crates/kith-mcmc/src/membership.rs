//! What one image takes part in: its partners, slots and groups.

use crate::{GroupKey, ImageKey, PairWeight, Side};

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
    /// Number of slots it holds on each side; of both on the anchor's where the sides share an encoder.
    slots: [u32; 2],
    /// The groups of its pairs, each with its number of pairs; seldom more than one group.
    groups: Vec<(GroupKey, u32)>,
}

impl Membership {
    /// ln of the number of slots it holds on the side; it must hold one.
    pub(super) fn log_degree(&self, side: Side) -> f32 {
        (self.slots[side.index()] as f32).ln()
    }

    /// Whether it holds a slot on the side.
    pub(super) fn is_on(&self, side: Side) -> bool {
        self.slots[side.index()] > 0
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

    /// Adds a pair of `image`. `sides` are those that the pair's two slots count on.
    pub(super) fn join(&mut self, image: ImageKey, entry: &PairEntry, sides: [Side; 2]) {
        let partner = entry.partner(image);
        let place = self.partners.partition_point(|known| *known < partner);
        self.distinct_partners += usize::from(self.partners.get(place) != Some(&partner));
        self.partners.insert(place, partner);
        for side in sides_of(image, entry, sides) {
            self.slots[side.index()] += 1;
        }
        let Some(group) = entry.group else { return };
        match self.groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, pairs)) => *pairs += 1,
            None => self.groups.push((group, 1)),
        }
    }

    /// Removes a pair of `image`, as [`Membership::join`] added it.
    pub(super) fn leave(&mut self, image: ImageKey, entry: &PairEntry, sides: [Side; 2]) {
        let partner = entry.partner(image);
        if let Ok(place) = self.partners.binary_search(&partner) {
            self.partners.remove(place);
            self.distinct_partners -= usize::from(!self.is_partner(partner));
        }
        for side in sides_of(image, entry, sides) {
            self.slots[side.index()] -= 1;
        }
        let place = self
            .groups
            .iter()
            .position(|(known, _)| Some(*known) == entry.group);
        if let Some(place) = place {
            self.groups[place].1 -= 1;
            if self.groups[place].1 == 0 {
                self.groups.remove(place);
            }
        }
    }
}

/// Those of `sides` on which the pair has `image`.
fn sides_of(image: ImageKey, entry: &PairEntry, sides: [Side; 2]) -> impl Iterator<Item = Side> {
    let places = sides.into_iter().zip(entry.images);
    places.filter_map(move |(side, held)| (held == image).then_some(side))
}
