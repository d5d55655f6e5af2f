//! Fits the projection of a snapshot to stored pairs before it is written (docs/learning.md).

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rayon::ThreadPool;

use super::{config::TrainConfig, context::Context, image_loader::decode};
use crate::{
    checkpoint::{CheckpointError, Origin, PairSample, RecentShare, Snapshot},
    db::PairKeys,
};
use kith_eval::geometry;
use kith_mcmc::{ImageKey, PairKey, Side};
use kith_nn::{Encoder, NnError, Precision, Towers, Vectors, arrays_of_towers};
use kith_seed::mix;
use kith_weights::{PairCorrelation, PairWhitening, Projection};

/// Pairs whose images are read, decoded and encoded together.
const PAGE: usize = 16;
/// Purpose of a seed.
const VIEW: u64 = u64::from_be_bytes(*b"headview");
/// Pairs from whose embeddings it is told whether the features have collapsed.
const JUDGED: usize = 500;

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

/// How an image is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Seen {
    /// As it is served.
    Whole,
    /// One of the views of a pair of an image with itself, as training makes them: the pair says that they belong together.
    View(u8),
}

/// Those of such a pair.
const VIEWS: [Seen; 2] = [Seen::View(0), Seen::View(1)];

/// An image, the side after which the encoder is named that sees it, and how.
type Place = (ImageKey, Side, Seen);

/// The images of pairs, those that could be read.
type Features = HashMap<Place, Encoded>;

impl HeadFit<'_> {
    /// Puts the projection that fits stored pairs into the model of `snapshot`. Returns the largest magnitude of a value in the embeddings of
    /// their images; `None`: nothing was fitted, and the snapshot is as it was.
    ///
    /// # Errors
    /// A failure of a store or of the device. The snapshot is then as it was.
    pub(super) fn apply(&self, snapshot: &mut Snapshot) -> Result<Option<f32>, CheckpointError> {
        let (config, encoder) = (&self.context.config, &snapshot.encoder);
        let max_pairs = config.snapshots.head_pairs;
        if !may_fit(config, max_pairs) {
            return Ok(None);
        }
        let recent = RecentShare {
            after: PairKey(
                snapshot
                    .trainer
                    .recent
                    .map_or(u32::MAX, |recent| recent.after),
            ),
            share: config.run.recent_share,
        };
        // Whatever pairs the time suffices for are such a sample as well.
        let PairSample {
            pairs,
            recent_times,
        } = self
            .context
            .wait(self.context.checkpoints.trained_pairs(max_pairs, recent))?;
        if !may_fit(config, pairs.len()) {
            return Ok(None);
        }
        let started = Instant::now();
        let Some((features, pairs)) = self.features(snapshot, &pairs)? else {
            return Ok(None);
        };
        let (dim, sides) = (encoder.dim, encoder_sides(encoder.towers));
        // Random weights begin close to what would be a collapse, and the gate sees none in the warm-up: a fit shows what they know.
        let near_random = !Origin::is_pretrained(snapshot.origin.as_ref())
            && snapshot.trainer.step <= config.schedule.warmup_steps;
        if !near_random && self.have_collapsed(&features, (pairs, sides), dim) {
            tracing::warn!(
                "the embeddings have collapsed: no projection is fitted, which would hide it"
            );
            return Ok(None);
        }
        let times = |pair: &PairKeys| {
            if pair.pair > recent.after {
                recent_times
            } else {
                1
            }
        };
        let fit = || fitted(&features, (pairs, sides), times, dim);
        let fit = self.pool.install(fit);
        let seconds = started.elapsed().as_secs_f32();
        let Some(Fitted { projections, range }) = fit else {
            tracing::warn!(
                pairs = pairs.len(),
                wanted = dim,
                seconds,
                "no projection is fitted: too few pairs were encoded within snapshots.head_seconds, or their images are all alike"
            );
            return Ok(None);
        };
        tracing::info!(embedding = %projections[0], seconds, "the projection is fitted");
        put(snapshot, projections);
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
            self.add_page(&towers, page, &mut features)?;
            done += page.len();
        }
        Ok(Some((features, &pairs[..done])))
    }

    /// Whether the embeddings meet the gate's rule of a collapse. A fit spreads out whatever is left of the features, so that the gate would not see it.
    fn have_collapsed(
        &self,
        features: &Features,
        (pairs, sides): (&[PairKeys], [Side; 2]),
        dim: usize,
    ) -> bool {
        let (mut anchors, mut positives) = (Vec::new(), Vec::new());
        for pair in pairs.iter().take(JUDGED) {
            let wholes = wholes(pair, sides).map(|place| features.get(&place));
            if let [Some(anchor), Some(positive)] = wholes {
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
        towers: &Towers,
        pairs: &[PairKeys],
        features: &mut Features,
    ) -> Result<(), CheckpointError> {
        let mut stored: HashMap<Side, Vec<_>> = HashMap::new();
        for place in wanted(pairs, encoder_sides(towers.config().towers), features) {
            let (image, side, _) = place;
            let bytes = self
                .context
                .wait(self.context.checkpoints.image_bytes(image))?;
            let of_side = stored.entry(side).or_default();
            of_side.extend(bytes.map(|bytes| (place, bytes)));
        }
        for (side, encoder) in towers.each() {
            let Some(stored) = stored.remove(&side) else {
                continue;
            };
            let encode = || self.encode(encoder, stored, features);
            self.pool.install(encode)?;
        }
        Ok(())
    }

    /// Adds the features of the images of some files, which one encoder sees.
    fn encode(
        &self,
        encoder: &Encoder,
        stored: Vec<(Place, Bytes)>,
        features: &mut Features,
    ) -> Result<(), NnError> {
        let side = encoder.config().side;
        let (mut places, mut pixels) = (Vec::new(), Vec::new());
        for ((image, tower, seen), bytes) in stored {
            // What cannot be decoded is logged where training comes across it.
            if let Some(input) = self.input((image, seen), &bytes, side) {
                places.push((image, tower, seen));
                pixels.extend(input);
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        let found = encoder.forward(&pixels)?;
        let [coarse, fine] = &found.places;
        let parts = rows(&found.hidden).zip(rows(coarse)).zip(rows(fine));
        let all = parts.zip(rows(&found.embedding));
        let encoded = all.map(|(((hidden, coarse), fine), embedding)| Encoded {
            features: [hidden, coarse, fine].concat(),
            embedding: embedding.to_vec(),
        });
        features.extend(places.into_iter().zip(encoded));
        Ok(())
    }

    /// What the encoder gets of an image, `[side, side, 3]`; `None` if it cannot be decoded.
    fn input(
        &self,
        (image, seen): (ImageKey, Seen),
        bytes: &[u8],
        side: usize,
    ) -> Option<Vec<f32>> {
        let (limits, augment) = (&self.context.config.limits, &self.context.config.augment);
        match seen {
            Seen::Whole => {
                let decoded = kith_pixels::decode(bytes, limits).ok()?;
                Some(kith_pixels::fit(&decoded, side))
            }
            Seen::View(number) => {
                let decoded = decode(bytes, augment, limits).ok()?;
                let seed = mix(&[VIEW, u64::from(image.0), number.into()]);
                Some(kith_pixels::augment(&decoded, side, augment, seed))
            }
        }
    }
}

/// The sides after which the encoders of anchors and positives are named: with one tower the same.
fn encoder_sides(towers: usize) -> [Side; 2] {
    if towers > 1 {
        Side::BOTH
    } else {
        [Side::Anchor; 2]
    }
}

/// The images of a pair as they are served.
fn wholes(pair: &PairKeys, sides: [Side; 2]) -> [Place; 2] {
    [0, 1].map(|at| (pair.images[at], sides[at], Seen::Whole))
}

/// What a pair is fitted by: its images, or two views of one that is paired with itself.
fn fitted_by(pair: &PairKeys, sides: [Side; 2]) -> [Place; 2] {
    let alone = pair.images[0] == pair.images[1];
    let seen = if alone { VIEWS } else { [Seen::Whole; 2] };
    [0, 1].map(|at| (pair.images[at], sides[at], seen[at]))
}

/// The images of `pairs`, ascending, each once in each way in which it is to be seen, without those that are in `features`.
fn wanted(pairs: &[PairKeys], sides: [Side; 2], features: &Features) -> BTreeSet<Place> {
    let of_pair = |pair| [wholes(pair, sides), fitted_by(pair, sides)];
    let all = pairs.iter().flat_map(of_pair).flatten();
    all.filter(|place| !features.contains_key(place)).collect()
}

/// The projections of each encoder that fit pairs.
struct Fitted {
    projections: Vec<Projection>,
    /// The largest magnitude of a value in the embeddings of their images.
    range: f32,
}

/// Fits projections to `dim` values to `pairs`, each of which counts some `times` with its weight.
fn fitted(
    features: &Features,
    (pairs, sides): (&[PairKeys], [Side; 2]),
    times: impl Fn(&PairKeys) -> usize,
    dim: usize,
) -> Option<Fitted> {
    let size = features.values().next()?.features.len();
    let each = pairs.iter().filter_map(|pair| {
        let [anchor, positive] = fitted_by(pair, sides).map(|place| features.get(&place));
        let images = (&anchor?.features[..], &positive?.features[..]);
        Some((images, pair.weight.value(), times(pair)))
    });
    let each = each.flat_map(|((anchor, positive), weight, times)| {
        std::iter::repeat_n((anchor, positive, weight), times)
    });
    let projections = if sides[0] == sides[1] {
        let mut whitening = PairWhitening::new(size);
        each.for_each(|(anchor, positive, weight)| _ = whitening.add(anchor, positive, weight));
        vec![whitening.projection(dim)?]
    } else {
        let mut correlation = PairCorrelation::new(size);
        each.for_each(|(anchor, positive, weight)| _ = correlation.add(anchor, positive, weight));
        correlation.projections(dim)?.into()
    };
    let wholes = features
        .iter()
        .filter(|((.., seen), _)| *seen == Seen::Whole);
    let range = |((_, side, _), encoded): (&Place, &Encoded)| {
        let projection = projections.get(side.index()).or(projections.first())?;
        Some(projection.largest_value(&encoded.features))
    };
    let range = wholes.filter_map(range).reduce(f32::max)?;
    Some(Fitted { projections, range })
}

/// Puts `projections` in the place of those in `snapshot`.
fn put(snapshot: &mut Snapshot, projections: Vec<Projection>) {
    let width = snapshot.encoder.width;
    let heads = projections.into_iter();
    let heads = heads.map(|projection| projection.into_head(width));
    snapshot.replace(arrays_of_towers(heads));
}

fn rows(vectors: &Vectors) -> impl Iterator<Item = &[f32]> {
    vectors.data.chunks_exact(vectors.dim)
}

/// Whether so many pairs suffice for a fit.
pub(super) fn suffice(config: &TrainConfig, pairs: usize) -> bool {
    pairs.min(config.snapshots.head_pairs) >= config.encoder.dim
}

/// Whether projections are fitted to so many pairs.
fn may_fit(config: &TrainConfig, pairs: usize) -> bool {
    config.run.enabled && suffice(config, pairs)
}
