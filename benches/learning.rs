//! How well an objective learns emoji at equal steps, whatever else the machine does: the trainer's step in a plain loop, no server.
//!
//! `cargo bench --bench learning -- FOLDER [--steps 750] [--every 250] [--set section.key=value …]`. FOLDER is that of
//! `emoji_curve.py`. Each row: recall@1 of the held-out question, Google → Twitter and Google → OpenMoji, with the shape of the
//! embeddings, and the mean seconds and encoded carried negatives of a step.
#![allow(clippy::print_stdout, missing_docs)]

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Parser;
use kith::config::Settings;
use kith_learn::{Batch, CarriedViews, Learner, SharedView, Unreadable};
use kith_mcmc::{ChainTable, GroupKey, ImageKey, PairEntry, PairGraph, PairKey, Recency, Side};
use kith_nn::{Purpose, TowerOptimizer, Towers};
use kith_pixels::{DecodedImage, augment, decode, fit};
use kith_seed::mix;
use rayon::prelude::*;

type Failure = Box<dyn std::error::Error>;

const VENDORS: [&str; 3] = ["google", "twitter", "openmoji"];
/// Vendors whose drawings of one emoji are posted as a pair.
const PAIRED: [[usize; 2]; 3] = [[0, 1], [0, 2], [1, 2]];

#[derive(Parser)]
struct Arguments {
    folder: PathBuf,
    #[arg(long, default_value_t = 750)]
    steps: u64,
    #[arg(long, default_value_t = 250)]
    every: u64,
    #[arg(long)]
    set: Vec<String>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The pictures, and the three drawings of each emoji in each part.
struct Emoji {
    pictures: Vec<DecodedImage>,
    train: Vec<[usize; 3]>,
    holdout: Vec<[usize; 3]>,
}

impl Emoji {
    fn read(folder: &Path, settings: &Settings) -> Result<Self, Failure> {
        let mut pictures = Vec::new();
        let mut parts: HashMap<String, BTreeMap<String, [usize; 3]>> = HashMap::new();
        for row in csv::Reader::from_path(folder.join("manifest.csv"))?.deserialize() {
            let row: HashMap<String, String> = row?;
            let Some(vendor) = VENDORS.iter().position(|vendor| *vendor == row["vendor"]) else {
                continue;
            };
            let part = parts.entry(row["split"].clone()).or_default();
            part.entry(row["codepoint"].clone()).or_default()[vendor] = pictures.len();
            pictures.push(decode(
                &std::fs::read(folder.join(&row["path"]))?,
                &settings.limits,
            )?);
        }
        let mut part = |name| {
            parts
                .remove(name)
                .unwrap_or_default()
                .into_values()
                .collect()
        };
        Ok(Self {
            train: part("train"),
            holdout: part("holdout"),
            pictures,
        })
    }

    /// Every pair, with its group: the emoji.
    fn graph(&self, directed: bool) -> PairGraph {
        let mut graph = if directed {
            PairGraph::directed()
        } else {
            PairGraph::default()
        };
        let pairs = self.train.iter().enumerate().flat_map(|(group, drawings)| {
            PAIRED.map(|pair| (group, pair.map(|vendor| drawings[vendor])))
        });
        for (key, (group, images)) in pairs.enumerate() {
            let images = images.map(|image| ImageKey(image as u32));
            graph.insert(
                PairKey(key as u32),
                PairEntry::new(images, Some(GroupKey(group as u32))),
            );
        }
        graph
    }
}

/// Augmented views, each decided by (seed, step, place).
struct Views<'a> {
    pictures: &'a [DecodedImage],
    settings: &'a Settings,
}

impl Views<'_> {
    fn view(&self, step: u64, place: u64, image: ImageKey) -> Vec<f32> {
        let seed = mix(&[self.settings.training.seed, step, place]);
        augment(
            &self.pictures[image.0 as usize],
            self.settings.encoder.side,
            &self.settings.augment,
            seed,
        )
    }
}

impl CarriedViews for Views<'_> {
    fn views(&self, step: u64, images: &[ImageKey]) -> Result<Vec<Option<SharedView>>, Unreadable> {
        // Places of carried images lie above those of the batch.
        let view = |image: &ImageKey| {
            let view = self.view(step, (1 << 32) + u64::from(image.0), *image);
            Some(view.into())
        };
        Ok(images.par_iter().map(view).collect())
    }
}

/// Batches without replacement: pairs in the order of a hash of (seed, epoch, pair), a short tail left out.
fn batch(views: &Views<'_>, graph: &PairGraph, step: u64) -> Batch {
    let run = &views.settings.training;
    let an_epoch = (graph.len() / run.batch) as u64;
    let (epoch, place) = ((step - 1) / an_epoch, (step - 1) % an_epoch);
    let mut pairs: Vec<PairKey> = (0..graph.len() as u32).map(PairKey).collect();
    pairs.sort_by_cached_key(|pair| mix(&[run.seed, epoch, u64::from(pair.0)]));
    let pairs = pairs[place as usize * run.batch..][..run.batch].to_vec();
    let images: Vec<ImageKey> = pairs
        .iter()
        .filter_map(|pair| graph.get(*pair))
        .flat_map(|entry| entry.images)
        .collect();
    let pixels = images
        .par_iter()
        .enumerate()
        .flat_map_iter(|(place, image)| views.view(step, place as u64, *image))
        .collect();
    Batch {
        step,
        pairs,
        recency: Recency::NONE,
        side: views.settings.encoder.side,
        pixels,
    }
}

fn judge(learner: &Learner, emoji: &Emoji, side: usize) -> Result<String, Failure> {
    let embed = |vendor: usize| -> Result<Vec<f32>, Failure> {
        let mut rows = Vec::new();
        for some in emoji.holdout.chunks(32) {
            let pixels: Vec<f32> = some
                .iter()
                .flat_map(|drawings| fit(&emoji.pictures[drawings[vendor]], side))
                .collect();
            // Google's drawings are the queries.
            let side = Side::BOTH[vendor.min(1)];
            rows.extend(learner.towers.get(side).forward(&pixels)?.embedding.data);
        }
        Ok(rows)
    };
    let [google, twitter, openmoji] = [embed(0)?, embed(1)?, embed(2)?];
    let dim = learner.towers.config().dim;
    let relevant: Vec<Vec<usize>> = (0..emoji.holdout.len()).map(|row| vec![row]).collect();
    let recall =
        |gallery: &[f32]| kith_eval::retrieval(dim, &google, gallery, &relevant).recall_at_1;
    let shape = kith_eval::geometry(dim, &google, &twitter);
    Ok(format!(
        "{:.3} | {:.3} | {:.3} | {:.1}",
        recall(&twitter),
        recall(&openmoji),
        shape.spread,
        shape.effective_rank
    ))
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let mut sets = vec!["encoder.side=64".to_owned(), "augment.flip=0.0".to_owned()];
    sets.extend(arguments.set);
    let settings = Settings::load(None, &sets)?;
    let emoji = Emoji::read(&arguments.folder, &settings)?;
    let graph = emoji.graph(settings.encoder.towers == 2);
    let views = Views {
        pictures: &emoji.pictures,
        settings: &settings,
    };
    let towers = Towers::fresh(
        &settings.encoder_config(),
        settings.training.seed,
        &settings.device(Purpose::Training)?,
    )?;
    let optimizer = TowerOptimizer::new(&settings.optimizer, &towers)?;
    let mut learner = Learner::new(
        settings.learning.clone(),
        settings.training.seed,
        towers,
        optimizer,
        ChainTable::default(),
    );

    println!("{sets:?}");
    println!(
        "| step | Google → Twitter | Google → OpenMoji | spread | effective rank | seconds a step | carried |"
    );
    println!("|---|---|---|---|---|---|---|");
    println!(
        "| 0 | {} | | |",
        judge(&learner, &emoji, settings.encoder.side)?
    );
    let (mut seconds, mut carried) = (0.0, 0);
    for step in 1..=arguments.steps {
        let started = Instant::now();
        let report = learner.step(
            &batch(&views, &graph, step),
            &graph,
            &views,
            settings.schedule.rate(step, None),
        )?;
        seconds += started.elapsed().as_secs_f64();
        carried += report.carried_encoded;
        if step % arguments.every == 0 {
            let every = arguments.every as f64;
            let judged = judge(&learner, &emoji, settings.encoder.side)?;
            println!(
                "| {step} | {judged} | {:.2} | {:.1} |",
                seconds / every,
                carried as f64 / every
            );
            (seconds, carried) = (0.0, 0);
        }
    }
    Ok(())
}
