//! Embeds stored images for an audit, a few at a time.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use rayon::{
    ThreadPool,
    iter::{IntoParallelRefIterator, ParallelIterator},
};

use super::sampler_error::SamplerAuditError;
use crate::{
    blobs::{BlobError, Blobs},
    db::Db,
};
use kith_mcmc::{ImageKey, Side, SidedImage};
use kith_nn::Towers;
use kith_pixels::Limits;

/// Images in memory at once, as files and as pixels.
const CHUNK: usize = 32;

/// Embeddings of images, each as its side's encoder sees it.
pub(super) struct Vectors {
    dim: usize,
    rows: HashMap<SidedImage, usize>,
    data: Vec<f32>,
}

impl Vectors {
    pub(super) fn get(&self, image: SidedImage) -> Option<&[f32]> {
        let row = self.rows.get(&image)?;
        Some(&self.data[row * self.dim..(row + 1) * self.dim])
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// What images are embedded with.
#[derive(Clone)]
pub(super) struct Embedder {
    pub(super) blobs: Blobs,
    pub(super) db: Db,
    pub(super) towers: Arc<Towers>,
    pub(super) pool: Arc<ThreadPool>,
    pub(super) limits: Limits,
}

impl Embedder {
    /// The plain views of images, embedded. Images that are gone, damaged or cannot be decoded are left out. `tell` hears of each chunk's size.
    pub(super) async fn embed(
        &self,
        images: &[SidedImage],
        tell: &mut dyn FnMut(usize),
    ) -> Result<Vectors, SamplerAuditError> {
        let mut vectors = Vectors {
            dim: self.towers.config().dim,
            rows: HashMap::with_capacity(images.len()),
            data: Vec::new(),
        };
        for side in Side::BOTH {
            let of_side = images.iter().copied().filter(|image| image.side == side);
            for chunk in of_side.collect::<Vec<_>>().chunks(CHUNK) {
                let files = self.read(chunk).await?;
                let embedder = self.clone();
                let work = move || embedder.encode(side, &files);
                let encoded = tokio::task::spawn_blocking(work).await;
                let encoded =
                    encoded.map_err(|error| SamplerAuditError::Thread(error.to_string()))?;
                for (image, vector) in encoded? {
                    vectors
                        .rows
                        .insert(SidedImage { image, side }, vectors.rows.len());
                    vectors.data.extend(vector);
                }
                tell(chunk.len());
            }
        }
        Ok(vectors)
    }

    async fn read(
        &self,
        images: &[SidedImage],
    ) -> Result<Vec<(ImageKey, Bytes)>, SamplerAuditError> {
        let keys: Vec<ImageKey> = images.iter().map(|image| image.image).collect();
        let ids = self.db.image_ids(&keys).await?;
        let mut files = Vec::with_capacity(keys.len());
        for (key, id) in keys.into_iter().zip(ids) {
            let Some(id) = id else { continue };
            match self.blobs.image(id).await {
                Ok(bytes) => files.push((key, bytes)),
                Err(BlobError::NotFound(_) | BlobError::Damaged(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(files)
    }

    fn encode(
        &self,
        side: Side,
        files: &[(ImageKey, Bytes)],
    ) -> Result<Vec<(ImageKey, Vec<f32>)>, SamplerAuditError> {
        let encoder = self.towers.get(side);
        let (pixels_of, dim) = (encoder.config().side, encoder.config().dim);
        let fit = |(key, bytes): &(ImageKey, Bytes)| {
            let fit = |image: &_| kith_pixels::fit(image, pixels_of);
            let view = kith_pixels::decode_with(bytes, &self.limits, |image| fit(&image));
            Some((*key, view.ok()?))
        };
        self.pool.install(|| {
            let views: Vec<(ImageKey, Vec<f32>)> = files.par_iter().filter_map(fit).collect();
            if views.is_empty() {
                return Ok(Vec::new());
            }
            let parts: Vec<&[f32]> = views.iter().map(|(_, view)| &view[..]).collect();
            let embedded = encoder.forward_all(&parts)?.embedding.data;
            if !embedded.iter().all(|value| value.is_finite()) {
                return Err(SamplerAuditError::NotFinite);
            }
            let rows = embedded.chunks_exact(dim).map(<[f32]>::to_vec);
            Ok(views.iter().map(|(key, _)| *key).zip(rows).collect())
        })
    }
}
