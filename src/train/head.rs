//! Fits the projection of a snapshot to stored pairs before it is written (docs/learning.md).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rayon::ThreadPool;

use super::context::Context;
use crate::{
    checkpoint::{CheckpointError, Snapshot},
    db::PairKeys,
};
use kith_eval::geometry;
use kith_mcmc::{ImageKey, Side};
use kith_nn::{Encoder, NamedArray, NnError, Precision, Towers, Vectors};
use kith_seed::mix;
use kith_weights::{PairWhitening, Projection};

/// Pairs whose images are read, decoded and encoded together.
const PAGE: usize = 16;
/// Pairs from whose embeddings it is told whether the features have collapsed.
const JUDGED: usize = 500;
/// After the names of the arrays that the fitted ones stand in for, which are kept with the optimiser's moments: training goes on from them.
const REPLACED: &str = ".replaced";

/// What a head is fitted with.
pub(super) struct HeadFit<'a> {
    pub(super) context: &'a Context,
    pub(super) pool: &'a ThreadPool,
    /// Asked between pages. If it answers `false`, nothing is fitted.
    pub(super) keep_going: &'a (dyn Fn() -> bool + Sync),
}

/// What an image is encoded to.
struct Encoded {
    /// Hidden features, then the means over places.
    features: Vec<f32>,
    /// Under the projection that training ended with.
    embedding: Vec<f32>,
}

/// The images of pairs, those that could be read.
type Features = HashMap<ImageKey, Encoded>;

impl HeadFit<'_> {
    /// Puts the projection that fits stored pairs into the model of `snapshot`. Returns the largest magnitude of a value in the embeddings of
    /// their images; `None`: nothing was fitted, and the snapshot is as it was.
    ///
    /// # Errors
    /// A failure of a store or of the device. The snapshot is then as it was.
    pub(super) fn apply(&self, snapshot: &mut Snapshot) -> Result<Option<f32>, CheckpointError> {
        let (config, encoder) = (&self.context.config, &snapshot.encoder);
        let max_pairs = config.snapshots.head_pairs;
        if max_pairs == 0 || !config.run.enabled || encoder.towers > 1 {
            return Ok(None);
        }
        let mut pairs = self
            .context
            .wait(self.context.checkpoints.trained_pairs(max_pairs))?;
        if pairs.len() < encoder.dim {
            return Ok(None);
        }
        // Whatever pairs the time suffices for are then a fair sample.
        pairs.sort_unstable_by_key(|pair| mix(&[u64::from(pair.pair.0)]));
        let started = Instant::now();
        let Some((features, pairs)) = self.features(snapshot, &pairs)? else {
            return Ok(None);
        };
        let dim = encoder.dim;
        if self.have_collapsed(&features, pairs, dim) {
            tracing::warn!(
                "the embeddings have collapsed: no projection is fitted, which would hide it"
            );
            return Ok(None);
        }
        let fit = || fitted(&features, pairs, dim);
        let Some((projection, range)) = self.pool.install(fit) else {
            return Ok(None);
        };
        let seconds = started.elapsed().as_secs_f32();
        tracing::info!(embedding = %projection, seconds, "the projection is fitted");
        put(snapshot, projection);
        Ok(Some(range))
    }

    /// The features of the images of `pairs`, as far as the time suffices, and the pairs that were got to. `None` if it was stopped on the way.
    fn features<'a>(
        &self,
        snapshot: &Snapshot,
        pairs: &'a [PairKeys],
    ) -> Result<Option<(Features, &'a [PairKeys])>, CheckpointError> {
        let seconds = Duration::from_secs_f64(self.context.config.snapshots.head_seconds);
        let deadline = Instant::now() + seconds;
        let open = || {
            let towers =
                Towers::from_arrays(&snapshot.encoder, &snapshot.model, &self.context.device)?;
            towers.only_encoding(Precision::F32)
        };
        let towers = self.pool.install(open)?;
        let mut features = Features::new();
        let mut done = 0;
        for page in pairs.chunks(PAGE) {
            if !(self.keep_going)() {
                return Ok(None);
            }
            if done > 0 && Instant::now() >= deadline {
                break;
            }
            self.add_page(towers.get(Side::Anchor), page, &mut features)?;
            done += page.len();
        }
        Ok(Some((features, &pairs[..done])))
    }

    /// Whether the embeddings meet the gate's rule of a collapse. A fit spreads out whatever is left of the features, so that the gate would not see it.
    fn have_collapsed(&self, features: &Features, pairs: &[PairKeys], dim: usize) -> bool {
        let (mut anchors, mut positives) = (Vec::new(), Vec::new());
        for pair in pairs.iter().take(JUDGED) {
            if let [Some(anchor), Some(positive)] = pair.images.map(|image| features.get(&image)) {
                anchors.extend_from_slice(&anchor.embedding);
                positives.extend_from_slice(&positive.embedding);
            }
        }
        let found = self.pool.install(|| geometry(dim, &anchors, &positives));
        self.context
            .gate()
            .collapsed(found.spread, found.mean_cosine)
    }

    /// Adds the features of those images of `pairs` that are not there yet and can be decoded.
    fn add_page(
        &self,
        encoder: &Encoder,
        pairs: &[PairKeys],
        features: &mut Features,
    ) -> Result<(), CheckpointError> {
        let mut images: Vec<ImageKey> = pairs.iter().flat_map(|pair| pair.images).collect();
        images.sort_unstable();
        images.dedup();
        let mut stored = Vec::new();
        for image in images {
            if !features.contains_key(&image) {
                let bytes = self
                    .context
                    .wait(self.context.checkpoints.image_bytes(image))?;
                stored.extend(bytes.map(|bytes| (image, bytes)));
            }
        }
        let (limits, side) = (&self.context.config.limits, encoder.config().side);
        let encode = || {
            let (mut keys, mut pixels) = (Vec::new(), Vec::new());
            for (image, bytes) in stored {
                // What cannot be decoded is logged where training comes across it.
                if let Ok(decoded) = kith_pixels::decode(&bytes, limits) {
                    keys.push(image);
                    pixels.extend(kith_pixels::fit(&decoded, side));
                }
            }
            if keys.is_empty() {
                return Ok(());
            }
            let found = encoder.forward(&pixels)?;
            let [places, fine_places] = &found.places;
            let parts = rows(&found.hidden).zip(rows(places)).zip(rows(fine_places));
            let all = parts.zip(rows(&found.embedding));
            let encoded = all.map(|(((hidden, places), fine_places), embedding)| Encoded {
                features: [hidden, places, fine_places].concat(),
                embedding: embedding.to_vec(),
            });
            features.extend(keys.into_iter().zip(encoded));
            Ok::<_, NnError>(())
        };
        Ok(self.pool.install(encode)?)
    }
}

/// The projection to `dim` values that fits `pairs`, and the largest magnitude of a value in the embeddings of their images.
fn fitted(features: &Features, pairs: &[PairKeys], dim: usize) -> Option<(Projection, f32)> {
    let size = features.values().next()?.features.len();
    let mut whitening = PairWhitening::new(size);
    for pair in pairs {
        if let [Some(anchor), Some(positive)] = pair.images.map(|image| features.get(&image)) {
            whitening.add(&anchor.features, &positive.features);
        }
    }
    let projection = whitening.projection(dim)?;
    let ranges = features
        .values()
        .map(|row| projection.largest_value(&row.features));
    let range = ranges.reduce(f32::max)?;
    Some((projection, range))
}

/// Puts `projection` in the place of the one in `snapshot`, which is kept beside the moments.
fn put(snapshot: &mut Snapshot, projection: Projection) {
    let kept = snapshot.optimizer.iter().any(is_replaced);
    for mut fitted in projection.into_head(snapshot.encoder.width) {
        let mut model = snapshot.model.iter_mut();
        let Some(array) = model.find(|array| array.name == fitted.name) else {
            continue;
        };
        std::mem::swap(array, &mut fitted);
        if !kept {
            fitted.name.push_str(REPLACED);
            snapshot.optimizer.push(fitted);
        }
    }
}

fn rows(vectors: &Vectors) -> impl Iterator<Item = &[f32]> {
    vectors.data.chunks_exact(vectors.dim)
}

fn is_replaced(array: &NamedArray) -> bool {
    array.name.ends_with(REPLACED)
}

/// Undoes a fit: `snapshot` has the projection again that its weights were trained with.
pub(super) fn take_back(snapshot: &mut Snapshot) {
    for mut array in snapshot
        .optimizer
        .extract_if(.., |array| is_replaced(array))
    {
        array.name.truncate(array.name.len() - REPLACED.len());
        let place = snapshot
            .model
            .iter_mut()
            .find(|other| other.name == array.name);
        if let Some(place) = place {
            *place = array;
        }
    }
}
