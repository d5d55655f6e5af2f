//! Who is a known positive of an anchor, and thus never its negative.

use crate::{GroupKey, PairEntry, PairGraph, Side, SidedImage, SlotKey, membership::Membership};

/// An image that some pair holds on its side, looked up once for many questions.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'graph> {
    /// The image.
    pub image: SidedImage,
    membership: &'graph Membership,
}

impl Candidate<'_> {
    /// As [`PairGraph::log_degree`].
    pub fn log_degree(&self) -> f32 {
        self.membership.log_degree(self.image.side)
    }
}

/// The known positives of one anchor: its own image, its partners in any pair, all images of a pair that shares an image with the
/// anchor's pair, and all images of its groups. Where pairs are directed, images of its own side are no candidates either.
#[derive(Debug)]
pub struct Positives<'graph> {
    graph: &'graph PairGraph,
    /// The anchor's own pair; `None` if it is not in the graph.
    anchor: Option<PairEntry>,
    groups: &'graph [(GroupKey, u32)],
    /// The side of its candidates.
    candidates: Side,
}

impl Positives<'_> {
    /// Whether `candidate` must not be a negative of the anchor. True if its pair is not in the graph.
    ///
    /// The rule is about images, not slots: an image that is a positive through one of its pairs is one in all of its slots.
    pub fn excludes(&self, candidate: SlotKey) -> bool {
        self.excludes_candidate(self.graph.candidate(candidate).as_ref())
    }

    /// Like [`Positives::excludes`], for an image. True if no pair holds it on its side.
    pub fn excludes_image(&self, image: SidedImage) -> bool {
        self.excludes_candidate(self.graph.candidate_image(image).as_ref())
    }

    /// Like [`Positives::excludes`], for a slot that was looked up by [`PairGraph::candidate`].
    pub fn excludes_candidate(&self, candidate: Option<&Candidate<'_>>) -> bool {
        let (Some(anchor), Some(Candidate { image, membership })) = (self.anchor, candidate) else {
            return true;
        };
        image.side != self.candidates
            || anchor.contains(image.image)
            || self.shares_group(membership)
            || (anchor.images.iter()).any(|own| membership.is_partner(*own))
    }

    fn shares_group(&self, membership: &Membership) -> bool {
        membership
            .groups()
            .iter()
            .any(|(group, _)| self.groups.iter().any(|(own, _)| own == group))
    }
}

impl PairGraph {
    /// The known positives of `anchor`.
    pub fn positives(&self, anchor: SlotKey) -> Positives<'_> {
        let groups = self
            .image(anchor)
            .and_then(|image| self.membership(image))
            .map_or(&[][..], Membership::groups);
        Positives {
            graph: self,
            anchor: self.get(anchor.pair()),
            groups,
            candidates: self.candidate_side(anchor.side()),
        }
    }

    /// Looks up the image of a slot for [`Positives::excludes_candidate`]; `None` if its pair is not in the graph.
    pub fn candidate(&self, slot: SlotKey) -> Option<Candidate<'_>> {
        self.candidate_image(self.sided_image(slot)?)
    }

    fn candidate_image(&self, image: SidedImage) -> Option<Candidate<'_>> {
        let membership = self.membership_of(image)?;
        Some(Candidate { image, membership })
    }
}
