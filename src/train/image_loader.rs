//! Reads and decodes training images, caches them within a bound, and makes augmented views of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rayon::prelude::*;

use super::{context::Context, error::TrainFailure};
use crate::{
    image_store::{ImageError, ImageStore},
    telemetry::LogThrottle,
    types::Sha256,
};
use kith_learn::{CarriedViews, SharedView, Unreadable};
use kith_mcmc::{ImageKey, SlotKey};
use kith_pixels::{AugmentConfig, DecodedImage, Limits, PixelError};
use kith_seed::mix;

/// Domains of the seeds of views: of a slot in the batch, and of a carried negative.
const SLOT_VIEW: u64 = 0x51;
const CARRIED_VIEW: u64 = 0xca;

/// Loads the images of the trained pairs.
pub(super) struct ImageLoader {
    context: Arc<Context>,
    images: ImageStore,
    seed: u64,
    pretrained: bool,
    cache: Mutex<Cache>,
    /// A missing folder makes thousands of images a second fail.
    gone: LogThrottle,
    broken: LogThrottle,
}

/// Where an image is.
pub(super) enum ImageSource {
    Cached(Arc<DecodedImage>),
    Stored(ImageKey, Sha256),
    Gone(ImageKey),
}

impl ImageLoader {
    /// `seed`: the run's. `pretrained`: its weights did not begin as random ones.
    pub(super) fn new(context: Arc<Context>, seed: u64, pretrained: bool) -> Self {
        let cache = Mutex::new(Cache::new(context.config.run.cache_mb << 20));
        let images = ImageStore::new(context.blobs.clone(), context.db.clone());
        Self {
            context,
            images,
            seed,
            pretrained,
            cache,
            gone: LogThrottle::default(),
            broken: LogThrottle::default(),
        }
    }

    /// Finds where images are, in order. The second value is the cache's generation, for [`ImageLoader::open`]: an image erased in between is
    /// not cached.
    pub(super) fn find(
        &self,
        images: &[ImageKey],
    ) -> Result<(Vec<ImageSource>, u64), TrainFailure> {
        let (cached, generation) = {
            let mut cache = self.cache();
            let cached: Vec<_> = images.iter().map(|image| cache.get(*image)).collect();
            (cached, cache.generation)
        };
        let missing: Vec<ImageKey> = images
            .iter()
            .zip(&cached)
            .filter(|(_, cached)| cached.is_none())
            .map(|(image, _)| *image)
            .collect();
        let mut ids = Vec::new();
        if !missing.is_empty() {
            ids = self.context.wait(self.context.db.image_ids(&missing))?;
        }
        let mut ids = missing.into_iter().zip(ids);
        let found = cached
            .into_iter()
            .zip(images)
            .map(|(cached, image)| match cached {
                Some(decoded) => ImageSource::Cached(decoded),
                None => match ids.next() {
                    Some((image, Some(id))) => ImageSource::Stored(image, id),
                    _ => ImageSource::Gone(*image),
                },
            })
            .collect();
        Ok((found, generation))
    }

    /// The decoded image; `None`, with a warning, where it is gone, damaged or cannot be decoded.
    pub(super) fn open(
        &self,
        source: ImageSource,
        generation: u64,
    ) -> Result<Option<Arc<DecodedImage>>, TrainFailure> {
        let (image, id) = match source {
            ImageSource::Cached(decoded) => return Ok(Some(decoded)),
            ImageSource::Gone(image) => {
                if let Some(left_out) = self.gone.ready() {
                    tracing::warn!(image = image.0, left_out, "a training image is gone");
                }
                return Ok(None);
            }
            ImageSource::Stored(image, id) => (image, id),
        };
        let context = &self.context;
        let bytes = match context.wait(self.images.read(id)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                if let Some(left_out) = self.gone.ready() {
                    tracing::warn!(image = %id, left_out, "a training image is gone");
                }
                return Ok(None);
            }
            // Listed and logged when it was found.
            Err(ImageError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match decode(&bytes, &context.config.augment, &context.config.limits) {
            Ok(decoded) => {
                let decoded = Arc::new(decoded);
                self.cache().insert(image, decoded.clone(), generation);
                Ok(Some(decoded))
            }
            Err(error) => {
                if let Some(left_out) = self.broken.ready() {
                    tracing::warn!(image = %id, %error, left_out, "a training image cannot be decoded");
                }
                Ok(None)
            }
        }
    }

    /// The view of a slot in step `step`.
    pub(super) fn view(&self, decoded: &DecodedImage, step: u64, slot: SlotKey) -> Vec<f32> {
        let seed = mix(&[self.seed, step, SLOT_VIEW, u64::from(slot.packed())]);
        self.augment(decoded, self.side(step), seed)
    }

    /// Pixels across the views of `step`.
    pub(super) fn side(&self, step: u64) -> usize {
        let config = &self.context.config;
        let full = config.encoder.side;
        config.schedule.side(step, self.pretrained, full)
    }

    /// Drops erased images from the cache, and keeps those that are being decoded from entering it.
    pub(super) fn forget(&self, images: &[ImageKey]) {
        self.cache().forget(images);
    }

    fn augment(&self, decoded: &DecodedImage, side: usize, seed: u64) -> Vec<f32> {
        self.context.foreground.yield_to_requests();
        kith_pixels::augment(decoded, side, &self.context.config.augment, seed)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the alpha where views need it: most images are opaque, and the others take a third more memory with it.
pub(super) fn decode(
    bytes: &[u8],
    augment: &AugmentConfig,
    limits: &Limits,
) -> Result<DecodedImage, PixelError> {
    if augment.uses_alpha() {
        kith_pixels::decode_keeping_alpha(bytes, limits)
    } else {
        kith_pixels::decode(bytes, limits)
    }
}

impl CarriedViews for ImageLoader {
    /// In parallel in the current pool.
    fn views(&self, step: u64, images: &[ImageKey]) -> Result<Vec<Option<SharedView>>, Unreadable> {
        let unreadable = |error: TrainFailure| Unreadable(error.to_string());
        let (found, generation) = self.find(images).map_err(unreadable)?;
        let side = self.side(step);
        let view = |(found, image): (ImageSource, &ImageKey)| {
            let decoded = self.open(found, generation).map_err(unreadable)?;
            let seed = mix(&[self.seed, step, CARRIED_VIEW, u64::from(image.0)]);
            Ok(decoded.map(|decoded| self.augment(&decoded, side, seed).into()))
        };
        found.into_par_iter().zip(images).map(view).collect()
    }
}

/// The most recently used images, bounded by their bytes.
struct Cache {
    images: HashMap<ImageKey, (u64, Arc<DecodedImage>)>,
    /// By time of last use.
    by_use: BTreeMap<u64, ImageKey>,
    clock: u64,
    bytes: usize,
    max_bytes: usize,
    /// Grows with each erasure. An image that was looked up in an earlier generation is not inserted.
    generation: u64,
}

impl Cache {
    fn new(max_bytes: usize) -> Self {
        Self {
            images: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
            bytes: 0,
            max_bytes,
            generation: 0,
        }
    }

    fn get(&mut self, image: ImageKey) -> Option<Arc<DecodedImage>> {
        let (used, decoded) = self.images.get_mut(&image)?;
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, image);
        Some(decoded.clone())
    }

    fn insert(&mut self, image: ImageKey, decoded: Arc<DecodedImage>, generation: u64) {
        let bytes = decoded.bytes();
        if generation != self.generation || bytes > self.max_bytes {
            return;
        }
        self.remove(image);
        while self.bytes + bytes > self.max_bytes
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            self.remove(*oldest);
        }
        self.clock += 1;
        self.bytes += bytes;
        self.by_use.insert(self.clock, image);
        self.images.insert(image, (self.clock, decoded));
    }

    fn forget(&mut self, images: &[ImageKey]) {
        self.generation += 1;
        images.iter().for_each(|image| self.remove(*image));
    }

    fn remove(&mut self, image: ImageKey) {
        if let Some((used, decoded)) = self.images.remove(&image) {
            self.by_use.remove(&used);
            self.bytes -= decoded.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_of(bytes: usize) -> Arc<DecodedImage> {
        Arc::new(DecodedImage::opaque(1, 1, vec![0; bytes]))
    }

    #[test]
    fn the_cache_keeps_to_its_bound_and_drops_what_was_not_used_longest() {
        let mut cache = Cache::new(30);
        (1..=3).for_each(|image| cache.insert(ImageKey(image), image_of(10), 0));
        assert!(cache.get(ImageKey(1)).is_some());
        cache.insert(ImageKey(4), image_of(10), 0);
        assert!(cache.get(ImageKey(2)).is_none());
        assert!(
            [1, 3, 4]
                .iter()
                .all(|image| cache.get(ImageKey(*image)).is_some())
        );
        cache.insert(ImageKey(5), image_of(31), 0);
        assert!(cache.get(ImageKey(5)).is_none());
        assert_eq!(cache.bytes, 30);
    }

    #[test]
    fn alpha_is_kept_if_views_need_it_and_counts_in_the_cache() {
        let clear = image::RgbaImage::from_fn(2, 1, |x, _| image::Rgba([9, 9, 9, 255 * x as u8]));
        let mut file = std::io::Cursor::new(Vec::new());
        clear.write_to(&mut file, image::ImageFormat::Png).unwrap();
        let limits = Limits {
            max_bytes: 1 << 20,
            max_pixels: 1 << 20,
            decode_memory_mb: 64,
        };
        let decoded = |background| {
            let augment = AugmentConfig {
                background,
                ..AugmentConfig::none()
            };
            Arc::new(decode(file.get_ref(), &augment, &limits).unwrap())
        };
        let (without, with) = (decoded(0.0), decoded(0.5));
        assert_eq!(without.alpha, None);
        assert_eq!(with.alpha, Some(vec![0, 255]));
        let mut cache = Cache::new(30);
        cache.insert(ImageKey(1), without, 0);
        assert_eq!(cache.bytes, 6);
        cache.insert(ImageKey(1), with, 0);
        assert_eq!(cache.bytes, 8);
        cache.forget(&[ImageKey(1)]);
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn an_image_erased_while_it_was_decoded_does_not_come_back() {
        let mut cache = Cache::new(30);
        cache.insert(ImageKey(1), image_of(10), 0);
        cache.forget(&[ImageKey(1), ImageKey(2)]);
        cache.insert(ImageKey(2), image_of(10), 0);
        assert!(cache.get(ImageKey(1)).is_none() && cache.get(ImageKey(2)).is_none());
        assert_eq!(cache.bytes, 0);
        cache.insert(ImageKey(3), image_of(10), 1);
        assert!(cache.get(ImageKey(3)).is_some());
    }
}
