//! Who is a known positive of an anchor, and thus never its negative.

use crate::{GroupKey, ImageKey, PairEntry, PairGraph, SlotKey, membership::Membership};

/// An image that some pair holds, looked up once for many questions.
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
/// anchor's pair, and all images of its groups.
#[derive(Debug)]
pub struct Positives<'graph> {
    graph: &'graph PairGraph,
    /// The anchor's own pair; `None` if it is not in the graph.
    anchor: Option<PairEntry>,
    groups: &'graph [(GroupKey, u32)],
}

impl Positives<'_> {
    /// Whether `candidate` must not be a negative of the anchor. True if its pair is not in the graph.
    ///
    /// The rule is about images, not slots: an image that is a positive through one of its pairs is one in all of its slots.
    pub fn excludes(&self, candidate: SlotKey) -> bool {
        self.excludes_candidate(self.graph.candidate(candidate).as_ref())
    }

    /// Like [`Positives::excludes`], for an image. True if no pair holds it.
    pub fn excludes_image(&self, image: ImageKey) -> bool {
        self.excludes_candidate(self.graph.candidate_image(image).as_ref())
    }

    /// Like [`Positives::excludes`], for a slot that was looked up by [`PairGraph::candidate`].
    pub fn excludes_candidate(&self, candidate: Option<&Candidate<'_>>) -> bool {
        let (Some(anchor), Some(Candidate { image, membership })) = (self.anchor, candidate) else {
            return true;
        };
        anchor.contains(*image)
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
        }
    }

    /// Looks up the image of a slot for [`Positives::excludes_candidate`]; `None` if its pair is not in the graph.
    pub fn candidate(&self, slot: SlotKey) -> Option<Candidate<'_>> {
        self.candidate_image(self.image(slot)?)
    }

    fn candidate_image(&self, image: ImageKey) -> Option<Candidate<'_>> {
        let membership = self.membership(image)?;
        Some(Candidate { image, membership })
    }
}
