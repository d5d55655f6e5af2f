//! Compares the states of a checkpoint's chains with the exact softmax that they should be draws from.

use std::{collections::BTreeSet, sync::Arc};

use rayon::{
    ThreadPool,
    iter::{IntoParallelRefIterator, ParallelIterator},
};

use super::{
    embed::{Embedder, Vectors},
    sample::{HeldState, Sample, SampleSize, TrainedPairs},
    sampler_error::SamplerAuditError,
    sampler_report::{AuditScope, Judged, SamplerReport},
};
use crate::{
    blobs::Blobs,
    checkpoint::{CHAINS, CheckpointError, Checkpoints},
    db::Db,
    types::CheckpointId,
};
use kith_eval::ChainDraw;
use kith_mcmc::{Candidate, ChainColumns, SidedImage, StateKind};
use kith_nn::{Device, Precision, Towers};
use kith_pixels::Limits;
use kith_seed::{mix, unit};

/// What the seed of a rank is for.
const RANKS: u64 = 3;

/// What is compared, and how it is judged.
#[derive(Clone, Copy, Debug)]
pub struct SamplerAuditConfig {
    /// Most images that states are compared among.
    pub images: usize,
    /// Most chains.
    pub chains: usize,
    /// Fewest visits of a chain that is compared.
    pub min_visits: u32,
    /// Inverse temperature that the chains were moved by.
    pub beta: f32,
    /// Largest distance of the ranks from uniform that is small.
    pub tolerance: f64,
    /// Seed of the choice of images and chains.
    pub seed: u64,
}

/// What images are embedded on.
pub struct SamplerAuditMachine {
    /// The device.
    pub device: Device,
    /// Decodes and, on a CPU, encodes.
    pub pool: Arc<ThreadPool>,
    /// Bounds on images.
    pub limits: Limits,
}

/// What an audit tells while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerAuditEvent {
    /// So many images are to be embedded.
    Total(usize),
    /// So many more are.
    Embedded(usize),
}

/// An audit of the sampler of one data folder, which a server may be using meanwhile.
pub struct SamplerAudit<'a> {
    /// Its blobs.
    pub blobs: &'a Blobs,
    /// Its database.
    pub db: &'a Db,
    /// Its checkpoints.
    pub checkpoints: &'a Checkpoints,
    /// What is compared.
    pub config: SamplerAuditConfig,
}

impl SamplerAudit<'_> {
    /// Compares the chains of a checkpoint with the softmaxes under the weights that training goes on from, which are not those that serve: they move the
    /// chains. The views of the images are plain. Memory holds the checkpoint, the trained pairs and the embeddings of the chosen images.
    ///
    /// # Errors
    /// [`SamplerAuditError`] says what is missing.
    pub async fn run(
        &self,
        id: CheckpointId,
        machine: SamplerAuditMachine,
        tell: &mut dyn FnMut(SamplerAuditEvent),
    ) -> Result<SamplerReport, SamplerAuditError> {
        let columns = self.chains(id).await?;
        let snapshot = self.checkpoints.load(id).await?;
        let (encoder, step) = (snapshot.encoder.clone(), snapshot.trainer.step);
        if snapshot.optimizer.is_empty() && step > 0 {
            tracing::warn!(checkpoint = %id, "it has no weights in training: chains are compared under those that serve");
        }
        let weights = snapshot.into_weights_in_training();
        let pairs = TrainedPairs::read(self.db, encoder.towers > 1).await?;
        let size = SampleSize {
            images: self.config.images,
            chains: self.config.chains,
            min_visits: self.config.min_visits,
            seed: self.config.seed,
        };
        let sample = Sample::new(&pairs, &columns, size);
        let pool = machine.pool.clone();
        let towers = pool.install(|| {
            Towers::from_arrays(&encoder, &weights, &machine.device)?.only_encoding(Precision::F32)
        });
        let towers = towers.map_err(CheckpointError::from)?;
        let embedder = Embedder {
            blobs: self.blobs.clone(),
            db: self.db.clone(),
            towers: Arc::new(towers),
            pool: machine.pool,
            limits: machine.limits,
        };
        let anchors = sample.chains.iter();
        let anchors = anchors.filter_map(|held| pairs.graph.sided_image(held.anchor));
        let images = sample.images.iter().map(|(image, _)| *image);
        let images: BTreeSet<SidedImage> = images.chain(anchors).collect();
        let images: Vec<SidedImage> = images.into_iter().collect();
        tell(SamplerAuditEvent::Total(images.len()));
        let mut told = |count| tell(SamplerAuditEvent::Embedded(count));
        let vectors = embedder.embed(&images, &mut told).await?;
        let judged = pool.install(|| self.judge(&pairs, &sample, &vectors));
        let scope = AuditScope {
            checkpoint: id,
            step,
            beta: self.config.beta,
            seed: self.config.seed,
            chains: columns.anchor.len(),
            dropped_chains: sample.dropped,
            images: sample.images.len(),
            all_images: sample.all_images,
            missing_images: images.len() - vectors.len(),
        };
        let found = judged.len();
        let report = SamplerReport::new(scope, &judged, self.config.tolerance);
        report.ok_or(SamplerAuditError::TooFew { found })
    }

    /// The chain table of a checkpoint, verified.
    async fn chains(&self, id: CheckpointId) -> Result<ChainColumns, SamplerAuditError> {
        let damaged = |what: String| CheckpointError::Damaged { id, what };
        let manifest = self.checkpoints.manifest(id).await?;
        let bytes = self.checkpoints.part(id, CHAINS).await?;
        let part = manifest.part(CHAINS);
        let part = part.ok_or_else(|| damaged(format!("its manifest does not name {CHAINS}")))?;
        part.check(&bytes)
            .map_err(|error| damaged(error.to_string()))?;
        let columns = kith_mcmc::chains_from_bytes(&bytes);
        let columns = columns.map_err(|error| damaged(error.to_string()))?;
        match columns.kind {
            _ if columns.anchor.is_empty() => Err(SamplerAuditError::NoChains(id)),
            StateKind::Averages => Err(SamplerAuditError::Averages(id)),
            StateKind::Chains => Ok(columns),
        }
    }

    /// Each chain's state within its softmax. Chains whose anchor or state could not be embedded are left out.
    fn judge(&self, pairs: &TrainedPairs, sample: &Sample, vectors: &Vectors) -> Vec<Judged> {
        let candidates: Vec<(Candidate<'_>, &[f32])> = sample
            .images
            .iter()
            .filter_map(|(image, slot)| Some((pairs.graph.candidate(*slot)?, vectors.get(*image)?)))
            .collect();
        let judge = |held: &HeldState| {
            let graph = &pairs.graph;
            let anchor = vectors.get(graph.sided_image(held.anchor)?)?;
            let current = graph.sided_image(held.state.negative)?;
            let positives = graph.positives(held.anchor);
            let (mut scores, mut state) = (Vec::with_capacity(candidates.len()), None);
            for (candidate, vector) in &candidates {
                if positives.excludes_candidate(Some(candidate)) {
                    continue;
                }
                if candidate.image == current {
                    state = Some(scores.len());
                }
                scores.push(self.config.beta * dot(anchor, vector));
            }
            let draw = ChainDraw::new(&scores, state?, self.uniform(held))?;
            Some(Judged {
                state: held.state,
                draw,
            })
        };
        sample.chains.par_iter().filter_map(judge).collect()
    }

    /// A number in [0, 1) for a chain.
    fn uniform(&self, held: &HeldState) -> f64 {
        unit(mix(&[self.config.seed, RANKS, held.anchor.packed().into()]))
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
