//! Augmented views of stored images that a step needs in addition to its batch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Unreadable;
use kith_mcmc::{ImageKey, SidedImage};

/// An augmented view of an image, `[side, side, 3]`, shared with whoever made it.
pub type SharedView = Arc<Vec<f32>>;

/// An image on its side, and a view of it.
pub(super) type View = (SidedImage, SharedView);

/// A source of augmented views of stored images.
pub trait CarriedViews {
    /// One view of each of `images`, in their order; `None` where an image was deleted or is damaged.
    ///
    /// # Errors
    /// What may succeed later: the step is then not made.
    fn views(&self, step: u64, images: &[ImageKey]) -> Result<Vec<Option<SharedView>>, Unreadable>;
}

/// Loads views of `images`; the second set holds the images of which there is none. An image on both sides has one view for both.
pub(super) fn load(
    source: &dyn CarriedViews,
    step: u64,
    images: &[SidedImage],
) -> Result<(Vec<View>, BTreeSet<SidedImage>), Unreadable> {
    if images.is_empty() {
        return Ok(Default::default());
    }
    let distinct: BTreeSet<ImageKey> = images.iter().map(|image| image.image).collect();
    let distinct: Vec<ImageKey> = distinct.into_iter().collect();
    let views = source.views(step, &distinct)?;
    debug_assert_eq!(views.len(), distinct.len());
    let views: BTreeMap<ImageKey, Option<SharedView>> = distinct.into_iter().zip(views).collect();
    let found: Vec<View> = images
        .iter()
        .filter_map(|image| Some((*image, views.get(&image.image)?.clone()?)))
        .collect();
    let mut missing: BTreeSet<SidedImage> = images.iter().copied().collect();
    found
        .iter()
        .for_each(|(image, _)| _ = missing.remove(image));
    Ok((found, missing))
}
