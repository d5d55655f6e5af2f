//! Whether the trained pairs hold an anchor with an eligible negative: without one there is nothing to learn.

use std::sync::PoisonError;

use super::{PairGraph, graph::Membership};
use crate::{ImageKey, SlotKey};

/// Most questions that one search asks about single images: about half a second. Only sets that are covered by several large groups and
/// hubs at once, and by none of them alone, take more; they count as having a negative.
const MOST_QUESTIONS: usize = 4_000_000;

/// What the last search found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Found {
    /// Nobody has searched.
    #[default]
    Nothing,
    /// An anchor and a negative of it, which may have changed since.
    Negative(SlotKey, ImageKey),
    /// The answer for the graph of that revision.
    Answer { revision: u64, answer: bool },
}

/// What counting tells about the images that are known positives of an anchor.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Coverage {
    /// They are fewer than all.
    Some,
    /// They are all.
    All,
    /// Only asking image by image tells.
    Unclear,
}

impl PairGraph {
    /// Whether some anchor has an image that is no known positive of it ([`super::Positives::excludes_image`]).
    /// As long as the negative that was found last is one still, this takes a few look-ups.
    pub fn has_eligible_negative(&self) -> bool {
        // Each write is a single step.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match *found {
            Found::Negative(anchor, image) if !self.positives(anchor).excludes_image(image) => {
                return true;
            }
            Found::Answer { revision, answer } if revision == self.revision => return answer,
            _ => {}
        }
        *found = self.search();
        match *found {
            Found::Answer { answer, .. } => answer,
            Found::Negative(..) => true,
            Found::Nothing => false,
        }
    }

    fn search(&self) -> Found {
        let answer = |answer| Found::Answer {
            revision: self.revision,
            answer,
        };
        let mut unclear = Vec::new();
        for anchor in self.slots() {
            match self.coverage(anchor) {
                Coverage::All => {}
                Coverage::Unclear => unclear.push(anchor),
                Coverage::Some => match self.negative(anchor) {
                    Some(image) => return Found::Negative(anchor, image),
                    None => unclear.push(anchor),
                },
            }
        }
        let affordable = MOST_QUESTIONS / self.images().max(1);
        for anchor in unclear.iter().take(affordable) {
            if let Some(image) = self.negative(*anchor) {
                return Found::Negative(*anchor, image);
            }
        }
        answer(unclear.len() > affordable)
    }

    /// Compares the number of all images with the sizes of the sets that the anchor's positives are the union of.
    fn coverage(&self, anchor: SlotKey) -> Coverage {
        let (Some(entry), Some(image)) = (self.get(anchor.pair()), self.image(anchor)) else {
            return Coverage::All;
        };
        let partners = entry.images.iter().filter_map(|image| {
            let membership = self.membership(*image)?;
            Some(membership.distinct_partners() + usize::from(!membership.is_partner(*image)))
        });
        let groups = self.membership(image).map_or(&[][..], Membership::groups);
        let groups = groups.iter().map(|(group, _)| self.images_of_group(*group));
        let sizes: Vec<usize> = partners.chain(groups).collect();
        if sizes.contains(&self.images()) {
            Coverage::All
        } else if sizes.iter().sum::<usize>() < self.images() {
            Coverage::Some
        } else {
            Coverage::Unclear
        }
    }

    /// The first image that may be the anchor's negative.
    fn negative(&self, anchor: SlotKey) -> Option<ImageKey> {
        let positives = self.positives(anchor);
        self.each_image()
            .find(|image| !positives.excludes_image(*image))
    }
}
