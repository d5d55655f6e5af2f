//! `kith pair`: the pairs that a running server stores. `kith ingest` posts many.

use clap::{Args, Subcommand};

use super::{answer, client::Client, page, path_segment::segment, server_args::ServerArgs};

const COLUMNS: [answer::Column; 7] = [
    ("id", "/id"),
    ("anchor", "/anchor"),
    ("positive", "/positive"),
    ("group", "/group"),
    ("weight", "/weight"),
    ("split", "/split"),
    ("created", "/created_at"),
];

#[derive(Args, Debug)]
pub(crate) struct PairArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    server: ServerArgs,
    /// Print the server's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List stored pairs, the oldest first
    List {
        /// Most rows
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Only those of one group
        #[arg(long)]
        group: Option<String>,
    },
    /// Show one pair
    Show { id: String },
    /// Delete a pair; its images stay
    Delete { id: String },
}

pub(crate) fn run(args: &PairArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let at = |id: &str| format!("/v1/pairs/{}", segment(id));
    let answer = match &args.action {
        Action::List { limit, group } => {
            let group = group
                .as_ref()
                .map(|group| format!("?group={}", segment(group)));
            let path = format!("/v1/pairs{}", group.unwrap_or_default());
            page::list(&client, &path, *limit)?
        }
        Action::Show { id } => client.get(&at(id))?,
        Action::Delete { id } => {
            client.delete(&at(id))?;
            answer::print_deleted(id, args.json);
            return Ok(());
        }
    };
    answer::print(&answer, &COLUMNS, args.json);
    Ok(())
}
