//! `kith checkpoint`: lists, takes, promotes and deletes checkpoints of a running server; imports weights into a data folder, and verifies its checkpoints.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    checkpoint_id::checkpoint_id,
    client::Client,
    data_folder::{DataFolder, block_on},
    export::{self, ExportArgs},
    server_args::ServerArgs,
    settings_args::SettingsArgs,
};
use crate::{app, config::Settings, types::CheckpointId};
use kith_weights::printable;

#[derive(Args, Debug)]
pub(crate) struct CheckpointArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print the server's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all checkpoints, the newest first (the default)
    List,
    /// Take a snapshot and wait until it is complete
    Snapshot {
        /// A remark to keep with it
        #[arg(long)]
        note: Option<String>,
    },
    /// Make a checkpoint live; an older one is a rollback. It stays live until "kith checkpoint auto"
    Promote {
        #[arg(value_parser = checkpoint_id)]
        id: CheckpointId,
        /// Let the gate promote a better one
        #[arg(long)]
        no_hold: bool,
    },
    /// Let the gate promote checkpoints again
    Auto,
    /// Keep a checkpoint from being pruned, or stop keeping it
    Keep {
        #[arg(value_parser = checkpoint_id)]
        id: CheckpointId,
        /// Stop keeping it
        #[arg(long)]
        off: bool,
        /// A remark to keep with it
        #[arg(long)]
        note: Option<String>,
    },
    /// Delete a checkpoint that is not live
    Delete {
        #[arg(value_parser = checkpoint_id)]
        id: CheckpointId,
    },
    /// Make a checkpoint of torchvision's or timm's ResNet-18 (.safetensors or .pth); no server may use the data folder meanwhile
    Import {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Write a checkpoint as files of other programs; the server may run or not
    Export(ExportArgs),
    /// Check every file of a checkpoint on disk against its manifest; the server may run or not
    Verify {
        /// live, latest, an id, or all
        #[arg(value_name = "NAME", default_value = "all")]
        name: String,
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

pub(crate) fn run(args: &CheckpointArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let answer = match args.action.as_ref().unwrap_or(&Action::List) {
        Action::List => client.get("/v1/checkpoints")?,
        Action::Snapshot { note } => {
            let document = note
                .as_ref()
                .map_or(json!({}), |note| json!({"note": note}));
            client.post("/v1/checkpoints?wait=true", &document)?
        }
        Action::Promote { id, no_hold } => {
            let document = json!({"hold": !no_hold});
            client.post(&format!("/v1/checkpoints/{id}/promote"), &document)?
        }
        Action::Auto => client.post("/v1/checkpoints/auto", &json!({}))?,
        Action::Keep { id, off, note } => {
            let document = json!({"keep": !off, "note": note});
            client.patch(&format!("/v1/checkpoints/{id}"), &document)?
        }
        Action::Import { file, settings } => {
            return block_on(import(file, &settings.load()?, args.json));
        }
        Action::Export(args) => return block_on(export::run(args)),
        Action::Verify { name, settings } => return block_on(verify(name, &settings.load()?)),
        Action::Delete { id } => {
            client.delete(&format!("/v1/checkpoints/{id}"))?;
            println!("deleted {id}");
            return Ok(());
        }
    };
    if args.json {
        println!("{answer:#}");
        return Ok(());
    }
    let one = std::slice::from_ref(&answer);
    let rows = answer["data"].as_array().map_or(one, Vec::as_slice);
    println!(
        "{:36}  {:>9}  {:8}  {:9}  {:>8}  {:>8}  {:20}  note",
        "id", "step", "status", "role", "MB", "recall@1", "created"
    );
    rows.iter()
        .try_for_each(|row| print(row).context("the answer is no list of checkpoints"))
}

/// Imports a file of weights and says what became of it.
async fn import(file: &Path, settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    let (id, origin) = app::import_weights(settings, file).await?;
    if as_json {
        println!("{:#}", json!({"id": id, "origin": origin}));
        return Ok(());
    }
    println!("{id}  from {}", printable(&file.to_string_lossy()));
    if let Some(projection) = origin.projection {
        println!("embedding: {projection}");
    }
    if !origin.dropped.is_empty() {
        println!("left out: {}", origin.dropped.join(", "));
    }
    println!(
        "the next start goes on from it; where another checkpoint is live, it serves after `kith checkpoint promote {id}`, or, where training is on, \
         when the gate finds it better"
    );
    Ok(())
}

/// Verifies one checkpoint, or all of them; an error if any is damaged.
async fn verify(name: &str, settings: &Settings) -> anyhow::Result<()> {
    let folder = DataFolder::open(settings).await?;
    let ids = match name {
        "all" => folder.complete().await?,
        _ => vec![folder.find(name).await?],
    };
    let mut damaged = 0;
    for id in ids {
        match verify_one(&folder, id).await {
            Ok(step) => println!("{id}  step {step}  good"),
            Err(error) => {
                println!("{id}  DAMAGED  {error:#}");
                damaged += 1;
            }
        }
    }
    folder.db.close().await;
    ensure!(damaged == 0, "{damaged} checkpoints are damaged");
    Ok(())
}

/// Compares each file's hash with the manifest, then loads the checkpoint; its step.
async fn verify_one(folder: &DataFolder, id: CheckpointId) -> anyhow::Result<u64> {
    let manifest = folder.checkpoints.manifest(id).await?;
    for part in &manifest.parts {
        let bytes = folder.checkpoints.part(id, &part.name).await?;
        part.check(&bytes)?;
    }
    Ok(folder.checkpoints.load(id).await?.trainer.step)
}

fn print(row: &Value) -> Option<()> {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let created: String = row["created_at"].as_str()?.chars().take(19).collect();
    let megabytes = row["bytes"].as_f64().unwrap_or_default() / 1e6;
    println!(
        "{:36}  {:>9}  {:8}  {:9}  {megabytes:>8.1}  {:>8}  {created:20}  {}",
        row["id"].as_str()?,
        row["step"].as_u64()?,
        text("status"),
        text("role"),
        recall(&row["evaluation"]),
        text("note")
    );
    Some(())
}

/// Mean recall@1 of both directions, as the gate compares it.
fn recall(evaluation: &Value) -> String {
    let one = |direction: &str| evaluation[direction]["recall_at_1"].as_f64();
    match (one("anchor_to_positive"), one("positive_to_anchor")) {
        (Some(forth), Some(back)) => format!("{:.3}", (forth + back) / 2.0),
        _ => "-".to_owned(),
    }
}
