//! The current embeddings of a step's images, with and without a gradient.

use std::collections::BTreeSet;

use kith_mcmc::SidedImage;

use super::encoded::Encoded;

/// What is known of the images of a step.
#[derive(Default)]
pub(super) struct Embeddings {
    /// The batch, and images outside of it, through which a gradient flows.
    pub(super) with_grad: Encoded,
    /// Images outside the batch that were only scored.
    pub(super) without_grad: Encoded,
    /// Images that could not be read.
    pub(super) missing: BTreeSet<SidedImage>,
}

impl Embeddings {
    /// The current embedding of an image outside the batch, `[dim]`, if it was encoded in this step.
    pub(super) fn vector(&self, image: SidedImage) -> Option<&[f32]> {
        let without_grad = || self.without_grad.vector(image);
        self.with_grad.vector(image).or_else(without_grad)
    }

    /// All of [`Self::vector`], each image once: those with a gradient by key, then the others by key.
    pub(super) fn current_embeddings(&self) -> impl Iterator<Item = (SidedImage, &[f32])> {
        let without_grad = self.without_grad.vectors();
        let only_scored = without_grad.filter(|(image, _)| self.with_grad.vector(*image).is_none());
        self.with_grad.vectors().chain(only_scored)
    }
}
