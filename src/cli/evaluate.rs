//! `kith evaluate`: judges a checkpoint, or compares two, on held-out pairs or on image files. The data folder is opened read-only.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use rayon::ThreadPool;

use super::{
    data_folder::{DataFolder, block_on, model_at, settings},
    evaluation::{Judged, document, print},
    folder,
    image_list::{ImageList, classification_set, evaluation_set},
    settings_args::SettingsArgs,
};
use crate::{checkpoint::Model, config::Settings, telemetry};
use kith_eval::{BootstrapConfig, ClassificationConfig, ClassificationSet, EvaluationSet};
use kith_mcmc::Side;
use kith_nn::{Device, Purpose};

#[derive(Args, Debug)]
pub(crate) struct EvaluateArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// live, latest, an id, the folder of a checkpoint, or a model.safetensors with its manifest.json beside it
    #[arg(long, value_name = "NAME|PATH", default_value = "live")]
    checkpoint: String,
    /// Another checkpoint to compare it with, on the same images
    #[arg(long, value_name = "NAME|PATH")]
    against: Option<String>,
    /// Images to look for: a CSV with the columns path and KEY, or a folder (the key is the sub-folder's name, or the file's)
    #[arg(long, value_name = "CSV|FOLDER", requires = "gallery")]
    query: Option<PathBuf>,
    /// Images to look among; without the two, the data folder's held-out pairs are used
    #[arg(long, value_name = "CSV|FOLDER", requires = "query")]
    gallery: Option<PathBuf>,
    /// Images whose key is their class, to be told by nearest neighbours and by a linear probe
    #[arg(long, value_name = "CSV|FOLDER", conflicts_with_all = ["query", "pairs"])]
    labels: Option<PathBuf>,
    /// Images of the same classes to test on; without it, one in five of each class of --labels
    #[arg(long, value_name = "CSV|FOLDER", requires = "labels")]
    test: Option<PathBuf>,
    /// The CSVs' column that says what belongs together, or the class
    #[arg(long, value_name = "COLUMN", default_value = "key")]
    key: String,
    /// Nearest neighbours that vote on a class
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    neighbours: u16,
    /// Most held-out pairs (default: snapshots.evaluation_pairs, or gate.min_pairs if that is more)
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// Chooses the test images of --labels, the probe's order and the draws of the interval
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// cpu or cuda:N (default: encoder.device)
    #[arg(long)]
    device: Option<String>,
    /// Threads to compute with; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What a model is judged on.
enum Questions {
    Pairs {
        set: EvaluationSet,
        /// What the two sides are called.
        sides: [&'static str; 2],
    },
    Classes {
        set: ClassificationSet,
        config: ClassificationConfig,
    },
}

/// What models are opened and run with.
struct Machine {
    settings: Settings,
    device: Device,
    pool: ThreadPool,
}

pub(crate) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    telemetry::start("warn", false).map_err(anyhow::Error::msg)?;
    let settings = settings(&args.settings, args.device.as_ref())?;
    let (model, other, questions) = block_on(inputs(args, &settings))?;
    let machine = Machine {
        device: settings.device(Purpose::Serving)?,
        pool: rayon::ThreadPoolBuilder::new()
            .num_threads(args.threads)
            .build()?,
        settings,
    };
    let judged = questions.judge(&model, &machine)?;
    let other = other.map(|other| questions.judge(&other, &machine));
    let other = other.transpose()?;
    let draws = BootstrapConfig {
        seed: args.seed,
        ..BootstrapConfig::default()
    };
    let differences = other.as_ref().map(|other| {
        let differences = || judged.differences(other, &draws);
        machine.pool.install(differences)
    });
    let against = other.as_ref().zip(differences.transpose()?);
    if args.json {
        println!("{:#}", document(&judged, against)?);
    } else {
        print(&judged, against);
    }
    Ok(())
}

/// The model, the one to compare it with, and the questions.
async fn inputs(
    args: &EvaluateArgs,
    settings: &Settings,
) -> anyhow::Result<(Model, Option<Model>, Questions)> {
    let listed = args.listed()?;
    let names = [Some(&args.checkpoint), args.against.as_ref()];
    let in_folder = |name: &&String| file_of(name).is_none();
    let folder = if listed.is_none() || names.iter().flatten().any(in_folder) {
        Some(DataFolder::open(settings).await?)
    } else {
        None
    };
    let model = model(&args.checkpoint, folder.as_ref()).await?;
    let other = match &args.against {
        Some(name) => Some(self::model(name, folder.as_ref()).await?),
        None => None,
    };
    let questions = match (listed, &folder) {
        (Some(questions), _) => questions,
        (None, Some(folder)) => {
            let of_settings = settings
                .gate
                .pairs_to_ask(settings.snapshots.evaluation_pairs);
            let max_pairs = args.pairs.unwrap_or(of_settings);
            held_out(folder.checkpoints.held_out_set(max_pairs).await?)?
        }
        (None, None) => bail!("held-out pairs are in a data folder, and none is open"),
    };
    if let Some(folder) = folder {
        folder.db.close().await;
    }
    Ok((model, other, questions))
}

/// The path that `name` stands for, if it names no checkpoint of the data folder.
fn file_of(name: &str) -> Option<&Path> {
    let path = Path::new(name);
    (!matches!(name, "live" | "latest") && path.exists()).then_some(path)
}

async fn model(name: &str, folder: Option<&DataFolder>) -> anyhow::Result<Model> {
    match (file_of(name), folder) {
        (Some(path), _) => model_at(path),
        (None, Some(folder)) => {
            let id = folder.find(name).await?;
            Ok(folder.checkpoints.load_model(id).await?)
        }
        (None, None) => bail!("{name} is in a data folder, and none is open"),
    }
}

fn held_out(set: EvaluationSet) -> anyhow::Result<Questions> {
    if set.anchors.is_empty() {
        bail!(
            "there is no held-out pair yet: post more pairs, or name images with --query and --gallery, or --labels"
        );
    }
    let sides = ["anchor", "positive"];
    Ok(Questions::Pairs { set, sides })
}

impl EvaluateArgs {
    /// The questions that files ask; `None` if none are named.
    fn listed(&self) -> anyhow::Result<Option<Questions>> {
        let read = |input: &PathBuf| {
            let list = ImageList::read(input, &self.key)?;
            folder::report(&list.left_out);
            anyhow::Ok(list)
        };
        if let Some(labels) = &self.labels {
            let test = self.test.as_ref().map(read).transpose()?;
            let set = classification_set(read(labels)?, test, self.seed)?;
            let config = ClassificationConfig {
                neighbours: self.neighbours.into(),
                seed: self.seed,
            };
            return Ok(Some(Questions::Classes { set, config }));
        }
        let Some((query, gallery)) = self.query.as_ref().zip(self.gallery.as_ref()) else {
            return Ok(None);
        };
        let set = evaluation_set(&read(query)?, &read(gallery)?)?;
        let sides = ["query", "gallery"];
        Ok(Some(Questions::Pairs { set, sides }))
    }
}

impl Questions {
    fn judge(&self, model: &Model, machine: &Machine) -> anyhow::Result<Judged> {
        let Machine {
            settings,
            device,
            pool,
        } = machine;
        let limits = &settings.limits;
        let towers = pool.install(|| model.open(device, settings.serving.precision))?;
        match self {
            Self::Pairs { set, sides } => {
                let report = pool.install(|| model.evaluate(&towers, set, limits, &|| true))?;
                let report = report.unwrap_or_default();
                if report.evaluation.pairs == 0 {
                    bail!("no query with a match could be decoded");
                }
                Ok(Judged::by_retrieval(model, set, *sides, report))
            }
            Self::Classes { set, config } => {
                // Two towers: the one that classes' images would be queries of.
                let encoder = towers.get(Side::Anchor);
                let report = pool.install(|| set.evaluate(encoder, limits, config))?;
                if report.classification.test == 0 {
                    bail!("no test image could be decoded");
                }
                Ok(Judged::by_classes(model, config.neighbours, report))
            }
        }
    }
}
