//! `kith image`: the images that a running server stores.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    answer, client::Client, file::read_image, image_files::image_files, page,
    path_segment::segment, server_args::ServerArgs,
};

const COLUMNS: [answer::Column; 7] = [
    ("id", "/id"),
    ("bytes", "/bytes"),
    ("width", "/width"),
    ("height", "/height"),
    ("format", "/format"),
    ("created", "/created_at"),
    ("damaged", "/damaged"),
];

#[derive(Args, Debug)]
pub(crate) struct ImageArgs {
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
    /// List stored images, the oldest first
    List {
        /// Most rows
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Only those whose stored bytes are damaged
        #[arg(long)]
        damaged: bool,
    },
    /// Store image files without a pair; one that is stored already is repaired if it is damaged
    Add {
        #[arg(required = true, value_name = "IMAGE|FOLDER|LIST")]
        images: Vec<PathBuf>,
    },
    /// What is known of one image
    Show { id: String },
    /// Write the bytes of one image
    Get {
        id: String,
        /// Where to [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Erase an image and every pair of it
    Delete { id: String },
}

pub(crate) fn run(args: &ImageArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let at = |id: &str| format!("/v1/images/{}", segment(id));
    let answer = match &args.action {
        Action::List { limit, damaged } => {
            let path = if *damaged {
                "/v1/images?damaged=true"
            } else {
                "/v1/images"
            };
            page::list(&client, path, *limit)?
        }
        Action::Add { images } => add(&client, images)?,
        Action::Show { id } => client.get(&at(id))?,
        Action::Get { id, output } => {
            let path = format!("{}/content", at(id));
            return match output {
                Some(output) => {
                    let cannot = || format!("{} cannot be written", output.display());
                    let bytes = client.bytes(&path)?;
                    std::fs::write(output, bytes).with_context(cannot)
                }
                None => {
                    let bytes = client.bytes(&path)?;
                    (io::stdout().lock().write_all(&bytes))
                        .context("standard output cannot be written")
                }
            };
        }
        Action::Delete { id } => {
            client.delete(&at(id))?;
            answer::print_deleted(id, args.json);
            return Ok(());
        }
    };
    answer::print(&answer, &COLUMNS, args.json);
    Ok(())
}

/// Stores files one by one; the first that is refused ends it, by its name.
fn add(client: &Client, images: &[PathBuf]) -> anyhow::Result<Value> {
    let mut rows = Vec::new();
    for path in image_files(images)? {
        let row = add_one(client, &path);
        rows.push(row.with_context(|| format!("{} is not stored", path.display()))?);
    }
    Ok(json!({"data": rows}))
}

fn add_one(client: &Client, path: &Path) -> anyhow::Result<Value> {
    let bytes = read_image(path)?;
    Ok(client.post_bytes("/v1/images", &bytes)?)
}
