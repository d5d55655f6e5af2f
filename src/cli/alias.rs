//! `kith alias`: names for checkpoints on a running server, and the trial of a candidate under one.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{answer, client::Client, path_segment::segment, server_args::ServerArgs};

const COLUMNS: [answer::Column; 6] = [
    ("name", "/name"),
    ("checkpoint", "/checkpoint"),
    ("canary", "/canary/checkpoint"),
    ("percent", "/canary/percent"),
    ("shadow", "/canary/shadow"),
    ("shared neighbours", "/canary/shared_neighbours"),
];

#[derive(Args, Debug)]
pub(crate) struct AliasArgs {
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
    /// List all names (the default)
    List,
    /// Point a name at a checkpoint, for all callers at once; ends a trial under it
    Set {
        name: String,
        /// An id, or auto for the live one
        #[arg(value_name = "CHECKPOINT")]
        checkpoint: String,
    },
    /// Try a candidate under a name: it answers some keys, or none with --shadow
    Try {
        /// kith, or another name
        name: String,
        /// The candidate's id
        #[arg(value_name = "CANDIDATE")]
        candidate: String,
        /// Share of the keys, or of the images with --shadow
        #[arg(long, value_name = "PERCENT", default_value_t = 10)]
        percent: u8,
        /// Answer nobody with it: only compare its neighbours
        #[arg(long)]
        shadow: bool,
        /// What the name points at meanwhile: an id, or auto for the live one
        #[arg(long, value_name = "CHECKPOINT", default_value = "auto")]
        checkpoint: String,
    },
    /// Remove a name
    Delete { name: String },
}

pub(crate) fn run(args: &AliasArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let put =
        |name: &str, document| client.put(&format!("/v1/aliases/{}", segment(name)), &document);
    let answer = match args.action.as_ref().unwrap_or(&Action::List) {
        Action::List => client.get("/v1/aliases")?,
        Action::Set { name, checkpoint } => put(name, json!({"checkpoint": checkpoint}))?,
        Action::Try {
            name,
            candidate,
            percent,
            shadow,
            checkpoint,
        } => {
            let canary = json!({"checkpoint": candidate, "percent": percent, "shadow": shadow});
            put(name, json!({"checkpoint": checkpoint, "canary": canary}))?
        }
        Action::Delete { name } => {
            client.delete(&format!("/v1/aliases/{}", segment(name)))?;
            answer::print_deleted(name, args.json);
            return Ok(());
        }
    };
    answer::print(&answer, &COLUMNS, args.json);
    Ok(())
}
