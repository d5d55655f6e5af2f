//! Decoded images by key, with a bounded cache, and the augmented views made of them.
//! Must never know: batches, steps' outcomes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rayon::prelude::*;

use super::context::{Context, Fault};
use crate::{
    image_store::{ImageError, ImageStore},
    telemetry::Seldom,
    types::Sha256,
};
use kith_learn::{CarriedViews, SharedView};
use kith_mcmc::{ImageKey, SlotKey};
use kith_pixels::DecodedImage;
use kith_seed::mix;

/// What the randomness is for: a view of a batch's slot, or of a carried negative.
const SLOT_VIEW: u64 = 0x51;
const CARRIED_VIEW: u64 = 0xca;

/// The images of the trained pairs.
pub(super) struct Pictures {
    context: Arc<Context>,
    images: ImageStore,
    seed: u64,
    cache: Mutex<Cache>,
    /// A folder that is missing fails image by image, thousands of times a second.
    gone: Seldom,
    broken: Seldom,
}

/// Where an image was found.
pub(super) enum Found {
    Decoded(Arc<DecodedImage>),
    Stored(ImageKey, Sha256),
    Gone(ImageKey),
}

impl Pictures {
    /// `seed`: the run's.
    pub(super) fn new(context: Arc<Context>, seed: u64) -> Self {
        let cache = Mutex::new(Cache::new(context.config.run.cache_mb << 20));
        let images = ImageStore::new(context.blobs.clone(), context.db.clone());
        Self {
            context,
            images,
            seed,
            cache,
            gone: Seldom::default(),
            broken: Seldom::default(),
        }
    }

    /// Looks for images, in order. The number goes to [`Pictures::open`]: images erased in between are not kept.
    pub(super) fn find(&self, images: &[ImageKey]) -> Result<(Vec<Found>, u64), Fault> {
        let (cached, era) = {
            let mut cache = self.cache();
            let cached: Vec<_> = images.iter().map(|image| cache.get(*image)).collect();
            (cached, cache.era)
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
                Some(picture) => Found::Decoded(picture),
                None => match ids.next() {
                    Some((image, Some(id))) => Found::Stored(image, id),
                    _ => Found::Gone(*image),
                },
            })
            .collect();
        Ok((found, era))
    }

    /// The picture; `None`, with a warning, when the image is gone or damaged or cannot be decoded.
    pub(super) fn open(&self, found: Found, era: u64) -> Result<Option<Arc<DecodedImage>>, Fault> {
        let (image, id) = match found {
            Found::Decoded(picture) => return Ok(Some(picture)),
            Found::Gone(image) => {
                if let Some(left_out) = self.gone.now() {
                    tracing::warn!(image = image.0, left_out, "a training image is gone");
                }
                return Ok(None);
            }
            Found::Stored(image, id) => (image, id),
        };
        let context = &self.context;
        let bytes = match context.wait(self.images.read(id)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                if let Some(left_out) = self.gone.now() {
                    tracing::warn!(image = %id, left_out, "a training image is gone");
                }
                return Ok(None);
            }
            // Listed and logged when it was found.
            Err(ImageError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match kith_pixels::decode(&bytes, &context.config.limits) {
            Ok(picture) => {
                let picture = Arc::new(picture);
                self.cache().put(image, picture.clone(), era);
                Ok(Some(picture))
            }
            Err(error) => {
                if let Some(left_out) = self.broken.now() {
                    tracing::warn!(image = %id, %error, left_out, "a training image cannot be decoded");
                }
                Ok(None)
            }
        }
    }

    /// The view of a slot in step `step`.
    pub(super) fn view(&self, picture: &DecodedImage, step: u64, slot: SlotKey) -> Vec<f32> {
        let seed = mix(&[self.seed, step, SLOT_VIEW, u64::from(slot.packed())]);
        self.augment(picture, seed)
    }

    /// Forgets erased images, those that are being decoded included.
    pub(super) fn forget(&self, images: &[ImageKey]) {
        self.cache().forget(images);
    }

    fn augment(&self, picture: &DecodedImage, seed: u64) -> Vec<f32> {
        let config = &self.context.config;
        kith_pixels::augment(picture, config.encoder.side, &config.augment, seed)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CarriedViews for Pictures {
    /// In parallel in the current pool.
    fn views(&self, step: u64, images: &[ImageKey]) -> Vec<Option<SharedView>> {
        let (found, era) = match self.find(images) {
            Ok(found) => found,
            Err(error) => {
                if let Some(left_out) = self.broken.now() {
                    tracing::warn!(%error, left_out, "carried negatives cannot be read");
                }
                return vec![None; images.len()];
            }
        };
        found
            .into_par_iter()
            .zip(images)
            .map(|(found, image)| {
                let picture = self.open(found, era).unwrap_or_else(|error| {
                    if let Some(left_out) = self.broken.now() {
                        tracing::warn!(%error, left_out, "a carried negative cannot be read");
                    }
                    None
                })?;
                let seed = mix(&[self.seed, step, CARRIED_VIEW, u64::from(image.0)]);
                Some(self.augment(&picture, seed).into())
            })
            .collect()
    }
}

/// The most recently used pictures, bounded by their bytes.
struct Cache {
    pictures: HashMap<ImageKey, (u64, Arc<DecodedImage>)>,
    /// By time of last use.
    by_use: BTreeMap<u64, ImageKey>,
    clock: u64,
    bytes: usize,
    most: usize,
    /// Grows with each erasure: what was looked up in an earlier era is not put in.
    era: u64,
}

impl Cache {
    fn new(most: usize) -> Self {
        Self {
            pictures: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
            bytes: 0,
            most,
            era: 0,
        }
    }

    fn get(&mut self, image: ImageKey) -> Option<Arc<DecodedImage>> {
        let (used, picture) = self.pictures.get_mut(&image)?;
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, image);
        Some(picture.clone())
    }

    fn put(&mut self, image: ImageKey, picture: Arc<DecodedImage>, era: u64) {
        let bytes = picture.rgb.len();
        if era != self.era || bytes > self.most {
            return;
        }
        self.remove(image);
        while self.bytes + bytes > self.most
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            self.remove(*oldest);
        }
        self.clock += 1;
        self.bytes += bytes;
        self.by_use.insert(self.clock, image);
        self.pictures.insert(image, (self.clock, picture));
    }

    fn forget(&mut self, images: &[ImageKey]) {
        self.era += 1;
        images.iter().for_each(|image| self.remove(*image));
    }

    fn remove(&mut self, image: ImageKey) {
        if let Some((used, picture)) = self.pictures.remove(&image) {
            self.by_use.remove(&used);
            self.bytes -= picture.rgb.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(bytes: usize) -> Arc<DecodedImage> {
        Arc::new(DecodedImage {
            width: 1,
            height: 1,
            rgb: vec![0; bytes],
        })
    }

    #[test]
    fn the_cache_keeps_to_its_bound_and_drops_what_was_not_used_longest() {
        let mut cache = Cache::new(30);
        (1..=3).for_each(|image| cache.put(ImageKey(image), picture(10), 0));
        assert!(cache.get(ImageKey(1)).is_some());
        cache.put(ImageKey(4), picture(10), 0);
        assert!(cache.get(ImageKey(2)).is_none());
        assert!(
            [1, 3, 4]
                .iter()
                .all(|image| cache.get(ImageKey(*image)).is_some())
        );
        cache.put(ImageKey(5), picture(31), 0);
        assert!(cache.get(ImageKey(5)).is_none());
        assert_eq!(cache.bytes, 30);
    }

    #[test]
    fn an_image_erased_while_it_was_decoded_does_not_come_back() {
        let mut cache = Cache::new(30);
        cache.put(ImageKey(1), picture(10), 0);
        cache.forget(&[ImageKey(1), ImageKey(2)]);
        cache.put(ImageKey(2), picture(10), 0);
        assert!(cache.get(ImageKey(1)).is_none() && cache.get(ImageKey(2)).is_none());
        assert_eq!(cache.bytes, 0);
        cache.put(ImageKey(3), picture(10), 1);
        assert!(cache.get(ImageKey(3)).is_some());
    }
}
