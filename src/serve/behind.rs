//! Embeds stored images behind all requests, for what is not urgent.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use futures::future::join_all;

use super::{Row, ServeError, Serving, Which, queue::Origin};
use kith_mcmc::Side;

impl Serving {
    /// Embeds images under `which` as what is found (the positives' side), when no request is under way or the background has its turn. An image that cannot be decoded fails alone.
    ///
    /// # Errors
    /// Those of [`Serving::admit`] and [`Serving::model`].
    pub async fn embed_behind(
        &self,
        which: Which,
        images: Vec<Bytes>,
    ) -> Result<Vec<Result<Row, ServeError>>, ServeError> {
        let shared = self.shared.clone();
        let foreground = shared.foreground.clone();
        // A panic there would be a fault of ours: the images are embedded all the same.
        let _ = tokio::task::spawn_blocking(move || foreground.yield_to_requests()).await;
        let admission = self.admit(images.len())?;
        let encoder = shared.encoder(which).await?;
        let encoder = encoder.tower(Side::Positive);
        let origin = Origin {
            request: shared.requests.fetch_add(1, SeqCst),
            small: false,
        };
        let encoded = images
            .into_iter()
            .zip(admission.places())
            .map(|(image, place)| shared.encode(image, place, (origin, encoder.clone())));
        Ok(join_all(encoded).await)
    }
}
