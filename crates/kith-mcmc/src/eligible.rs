//! Whether some anchor of the trained pairs has an eligible negative. Without one there is nothing to learn.

use std::sync::PoisonError;

use crate::{PairGraph, SidedImage, SlotKey, graph::EligibleSearch, membership::Membership};

/// Bound on the questions about single images in one search; they take about half a second. Only a set that several large groups and hubs
/// cover together, and none of them alone, asks more; it counts as having a negative.
const MAX_QUESTIONS: usize = 4_000_000;

/// How many of all candidates are known positives of an anchor, as far as counting tells.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Coverage {
    /// Fewer than all.
    Some,
    /// All.
    All,
    /// Only a question for each image tells.
    Unclear,
}

impl PairGraph {
    /// Whether some anchor has an image that is no known positive of it ([`Positives::excludes_image`](crate::Positives::excludes_image)).
    ///
    /// Takes a few look-ups as long as the negative that was found last is still eligible.
    pub fn has_eligible_negative(&self) -> bool {
        // A write is one assignment, so a poisoned lock still guards a whole value.
        let mut last = self
            .last_search
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match *last {
            EligibleSearch::Negative(anchor, image)
                if !self.positives(anchor).excludes_image(image) =>
            {
                return true;
            }
            EligibleSearch::Answer { revision, answer } if revision == self.revision => {
                return answer;
            }
            _ => {}
        }
        *last = self.search();
        match *last {
            EligibleSearch::Answer { answer, .. } => answer,
            EligibleSearch::Negative(..) => true,
            EligibleSearch::NotRun => false,
        }
    }

    fn search(&self) -> EligibleSearch {
        let answer = |answer| EligibleSearch::Answer {
            revision: self.revision,
            answer,
        };
        let mut unclear = Vec::new();
        for anchor in self.slots() {
            match self.coverage(anchor) {
                Coverage::All => {}
                Coverage::Unclear => unclear.push(anchor),
                Coverage::Some => match self.negative(anchor) {
                    Some(image) => return EligibleSearch::Negative(anchor, image),
                    None => unclear.push(anchor),
                },
            }
        }
        let affordable = MAX_QUESTIONS / self.images().max(1);
        for anchor in unclear.iter().take(affordable) {
            if let Some(image) = self.negative(*anchor) {
                return EligibleSearch::Negative(*anchor, image);
            }
        }
        answer(unclear.len() > affordable)
    }

    /// Compares the number of all candidates with the sizes of the sets whose union is the anchor's known positives. Where pairs are directed,
    /// partners of both sides are counted: more than there are among the candidates.
    fn coverage(&self, anchor: SlotKey) -> Coverage {
        let (Some(entry), Some(image)) = (self.get(anchor.pair()), self.image(anchor)) else {
            return Coverage::All;
        };
        let partners = entry.images.iter().filter_map(|image| {
            let membership = self.membership(*image)?;
            Some(membership.distinct_partners() + usize::from(!membership.is_partner(*image)))
        });
        let groups = self.membership(image).map_or(&[][..], Membership::groups);
        let side = self.candidate_side(anchor.side());
        let groups = groups
            .iter()
            .map(|(group, _)| self.count_of_group(*group, side));
        let (partners, groups): (Vec<usize>, Vec<usize>) = (partners.collect(), groups.collect());
        let all = self.count_of(side);
        if groups.contains(&all) || !self.is_directed() && partners.contains(&all) {
            Coverage::All
        } else if partners.iter().chain(&groups).sum::<usize>() < all {
            Coverage::Some
        } else {
            Coverage::Unclear
        }
    }

    /// An image that may be the anchor's negative.
    fn negative(&self, anchor: SlotKey) -> Option<SidedImage> {
        let positives = self.positives(anchor);
        self.images_of(self.candidate_side(anchor.side()))
            .find(|image| !positives.excludes_image(*image))
    }
}
