//! `kith checkpoint`: lists, takes, promotes and deletes checkpoints of a running server; verifies those of a data folder.
//! Must never know: what a checkpoint is made of.

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, ServerArgs};
use crate::types::CheckpointId;

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
    /// Let a checkpoint serve; an older one is a rollback
    Promote { id: CheckpointId },
    /// Delete a checkpoint that does not serve
    Delete { id: CheckpointId },
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
        Action::Promote { id } => {
            client.post(&format!("/v1/checkpoints/{id}/promote"), &json!({}))?
        }
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

/// Mean of both directions, as the gate looks at it.
fn recall(evaluation: &Value) -> String {
    let one = |direction: &str| evaluation[direction]["recall_at_1"].as_f64();
    match (one("anchor_to_positive"), one("positive_to_anchor")) {
        (Some(forth), Some(back)) => format!("{:.3}", (forth + back) / 2.0),
        _ => "-".to_owned(),
    }
}
