//! `kith evaluate`: retrieval with a checkpoint, on held-out pairs or on image files. The data folder is opened read-only.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{
    data_folder::{DataFolder, block_on, model_at, settings},
    folder,
    image_list::{ImageList, evaluation_set},
    settings_args::SettingsArgs,
};
use crate::{checkpoint::Model, config::Settings, telemetry};
use kith_eval::{Evaluation, EvaluationSet, Retrieval};
use kith_nn::Purpose;

#[derive(Args, Debug)]
pub(crate) struct EvaluateArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// live, latest, an id, the folder of a checkpoint, or a model.safetensors with its manifest.json beside it
    #[arg(long, value_name = "NAME|PATH", default_value = "live")]
    checkpoint: String,
    /// Images to look for: a CSV with the columns path and KEY, or a folder (the key is the sub-folder's name, or the file's)
    #[arg(long, value_name = "CSV|FOLDER", requires = "gallery")]
    query: Option<PathBuf>,
    /// Images to look among; without the two, the data folder's held-out pairs are used
    #[arg(long, value_name = "CSV|FOLDER", requires = "query")]
    gallery: Option<PathBuf>,
    /// The CSVs' column that says what belongs together
    #[arg(long, value_name = "COLUMN", default_value = "key")]
    key: String,
    /// Most held-out pairs (default: snapshots.evaluation_pairs)
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
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

pub(crate) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    telemetry::start("warn", false).map_err(anyhow::Error::msg)?;
    let settings = settings(&args.settings, args.device.as_ref())?;
    let device = settings.device(Purpose::Serving)?;
    let (model, set) = block_on(inputs(args, &settings))?;
    if set.anchors.is_empty() {
        bail!(
            "there is no held-out pair yet: post more pairs, or name images with --query and --gallery"
        );
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build()?;
    let towers = pool.install(|| model.open(&device, settings.serving.precision))?;
    let report = pool.install(|| model.evaluate(&towers, &set, &settings.limits, &|| true))?;
    let judged = report.unwrap_or_default().evaluation;
    if judged.pairs == 0 {
        bail!("no query with a match could be decoded");
    }
    if args.json {
        println!("{}", document(&model, &set, &judged)?);
    } else {
        print(&model, &set, &judged, args.query.is_some());
    }
    Ok(())
}

async fn inputs(
    args: &EvaluateArgs,
    settings: &Settings,
) -> anyhow::Result<(Model, EvaluationSet)> {
    let path = Path::new(&args.checkpoint);
    let named = matches!(args.checkpoint.as_str(), "live" | "latest");
    let lists = args.query.as_ref().zip(args.gallery.as_ref());
    let read = |input: &PathBuf| {
        let list = ImageList::read(input, &args.key)?;
        folder::report(&list.left_out);
        anyhow::Ok(list)
    };
    let set = lists.map(|(query, gallery)| evaluation_set(&read(query)?, &read(gallery)?));
    let set = set.transpose()?;
    if !named
        && path.exists()
        && let Some(set) = set
    {
        return Ok((model_at(path)?, set));
    }
    let folder = DataFolder::open(settings).await?;
    let model = if !named && path.exists() {
        model_at(path)?
    } else {
        let id = folder.find(&args.checkpoint).await?;
        folder.checkpoints.load_model(id).await?
    };
    let max_pairs = args.pairs.unwrap_or(settings.snapshots.evaluation_pairs);
    let set = match set {
        Some(set) => set,
        None => folder.checkpoints.held_out_set(max_pairs).await?,
    };
    folder.db.close().await;
    Ok((model, set))
}

/// The evaluation's own fields, with the checkpoint and the two sizes.
fn document(model: &Model, set: &EvaluationSet, judged: &Evaluation) -> anyhow::Result<String> {
    let mut document = serde_json::to_value(judged)?;
    let fields = document
        .as_object_mut()
        .context("an evaluation is an object")?;
    fields.insert("checkpoint".into(), json!(model.id));
    fields.insert("step".into(), json!(model.step));
    fields.insert("queries".into(), json!(set.anchors.len()));
    fields.insert("gallery".into(), json!(set.positives.len()));
    Ok(format!("{document:#}"))
}

fn print(model: &Model, set: &EvaluationSet, judged: &Evaluation, lists: bool) {
    let (one, other) = if lists {
        ("query", "gallery")
    } else {
        ("anchor", "positive")
    };
    println!("checkpoint {} at step {}", model.id, model.step);
    println!(
        "{} pairs; {} images as {one}, {} as {other}\n",
        judged.pairs,
        set.anchors.len(),
        set.positives.len()
    );
    println!(
        "{:22} {:>9} {:>9} {:>9} {:>9}",
        "", "recall@1", "recall@5", "recall@10", "MRR"
    );
    row(&format!("{one} → {other}"), &judged.anchor_to_positive);
    row(&format!("{other} → {one}"), &judged.positive_to_anchor);
    let geometry = &judged.geometry;
    println!();
    for (name, value, meaning) in [
        (
            "alignment",
            geometry.alignment,
            "mean squared distance of pairs: 0 is best",
        ),
        ("uniformity", geometry.uniformity, "lower is more uniform"),
        (
            "effective rank",
            geometry.effective_rank,
            "dimensions in use",
        ),
        ("spread", geometry.spread, "1: uniform, 0: collapsed"),
        (
            "mean cosine",
            geometry.mean_cosine,
            "of different images: 1 is collapsed",
        ),
    ] {
        println!("{name:22} {value:>9.4}  {meaning}");
    }
}

fn row(name: &str, found: &Retrieval) {
    let Retrieval {
        recall_at_1,
        recall_at_5,
        recall_at_10,
        mrr,
    } = found;
    println!("{name:22} {recall_at_1:>9.4} {recall_at_5:>9.4} {recall_at_10:>9.4} {mrr:>9.4}");
}
