//! The limits of an embedding request's images.

use crate::{
    config::Settings,
    http::error::{ApiError, Problem},
};

/// Limits of a request's images.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_images: usize,
    pub(super) max_bytes: usize,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        Self {
            max_images: settings.server.max_images,
            max_bytes: settings.limits.max_bytes,
        }
    }
}

impl Limits {
    /// Checks the number of images in a request: at least 1.
    pub(super) fn check_count(&self, images: usize) -> Result<(), ApiError> {
        let max = self.max_images;
        if images == 0 {
            return Err(ApiError::invalid(
                "no_images",
                "input",
                "the request has no image: send at least one",
            ));
        }
        if images > max {
            let message = format!(
                "the request has {images} images, more than server.max_images = {max}: send several requests"
            );
            return Err(ApiError::TooLarge(
                Problem::new("too_many_images", message).with_param("input"),
            ));
        }
        Ok(())
    }
}
