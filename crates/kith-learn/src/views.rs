//! Augmented views of stored images that a step needs in addition to its batch.

use std::{collections::BTreeSet, sync::Arc};

use kith_mcmc::ImageKey;

/// An augmented view of an image, `[side, side, 3]`, shared with whoever made it.
pub type SharedView = Arc<Vec<f32>>;

/// An image and a view of it.
pub(super) type View = (ImageKey, SharedView);

/// A source of augmented views of stored images.
pub trait CarriedViews {
    /// One view of each of `images`, in their order; `None` where an image was deleted or cannot be read.
    fn views(&self, step: u64, images: &[ImageKey]) -> Vec<Option<SharedView>>;
}

/// Loads views of `images`; the second set holds the images of which there is none.
pub(super) fn load(
    source: &dyn CarriedViews,
    step: u64,
    images: &[ImageKey],
) -> (Vec<View>, BTreeSet<ImageKey>) {
    if images.is_empty() {
        return Default::default();
    }
    let views = source.views(step, images);
    debug_assert_eq!(views.len(), images.len());
    let found: Vec<View> = images
        .iter()
        .zip(views)
        .filter_map(|(image, view)| Some((*image, view?)))
        .collect();
    let mut missing: BTreeSet<ImageKey> = images.iter().copied().collect();
    found
        .iter()
        .for_each(|(image, _)| _ = missing.remove(image));
    (found, missing)
}
