//! `kith reembed`: how far the stored images are embedded under each checkpoint that is searched, and waits until they are.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    answer, checkpoint_id::checkpoint_id, client::Client, path_segment::segment,
    server_args::ServerArgs,
};
use crate::types::CheckpointId;

const BAR: &str = "{bar:30} {pos}/{len} images, {per_sec}, {eta} left";
/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);
const COLUMNS: [answer::Column; 7] = [
    ("checkpoint", "/checkpoint"),
    ("role", "/role"),
    ("images", "/images"),
    ("stored", "/stored"),
    ("share", "/indexed_share"),
    ("in graph", "/graph_images"),
    ("graph", "/graph"),
];

/// A server embeds its stored images by itself, behind all requests: as they come, and again after each promotion. A checkpoint that was never live is
/// embedded when a search names it, which --checkpoint does.
#[derive(Args, Debug)]
pub(crate) struct ReembedArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Have the stored images embedded under this checkpoint, too. The server keeps search.checkpoints such sets of vectors, those searched last
    #[arg(long, value_name = "ID", value_parser = checkpoint_id)]
    checkpoint: Option<CheckpointId>,
    /// Wait until all stored images are embedded under the live checkpoint, the one that answers searches and the one of --checkpoint
    #[arg(long)]
    wait: bool,
    /// Stop waiting, with exit code 1, when no image was embedded for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait", value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ReembedArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    ensure!(
        client.get("/v1/search")?["enabled"] == true,
        "this server keeps no vectors of its stored images: set search.enabled = true and start it again"
    );
    if let Some(id) = args.checkpoint {
        begin(&client, id)?;
    }
    let state = if args.wait {
        wait(&client, args)?
    } else {
        client.get("/v1/search")?
    };
    if args.json {
        println!("{state:#}");
    } else {
        print!("{}", table(&state));
    }
    Ok(())
}

/// Has the server embed its images under a checkpoint, by a search that names it.
fn begin(client: &Client, id: CheckpointId) -> anyhow::Result<()> {
    let model = client.get(&format!("/v1/models/{}", segment(&format!("kith@{id}"))))?;
    let dimensions = model["dimensions"].as_u64();
    let dimensions = dimensions.context("the answer of GET /v1/models/{id} has no dimensions")?;
    // Any direction will do.
    let vector = vec![1.0; usize::try_from(dimensions)?];
    client.post(
        "/v1/search",
        &json!({"vector": vector, "k": 1, "checkpoint": id}),
    )?;
    Ok(())
}

/// Asks until nothing is left; the last answer.
fn wait(client: &Client, args: &ReembedArgs) -> anyhow::Result<Value> {
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(BAR)?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let patience = Duration::from_secs(args.patience);
    let (mut best, mut moved, mut first) = (0, Instant::now(), None);
    loop {
        let live = client.get("/v1/models/kith")?["checkpoint"].clone();
        let state = client.get("/v1/search")?;
        let Progress { done, total } = progress(&state, &live, args.checkpoint)?;
        let first = *first.get_or_insert(done);
        bar.set_length(total.saturating_sub(first));
        bar.set_position(done.saturating_sub(first));
        if done >= total {
            bar.finish_and_clear();
            return Ok(state);
        }
        if done != best {
            (best, moved) = (done, Instant::now());
        }
        if moved.elapsed() > patience {
            bar.finish_and_clear();
            bail!(
                "{} images are not embedded, and none was in the last {} seconds: `kith image list --damaged` names those that cannot be; requests go first, \
                 so wait longer (--patience) on a busy server",
                total - done,
                args.patience
            );
        }
        sleep(ASK_EVERY.min(patience));
    }
}

/// Images under all checkpoints that are waited for.
#[derive(Debug, PartialEq)]
struct Progress {
    done: u64,
    total: u64,
}

/// Counts the images of the live checkpoint, which may have none yet, of those that answer searches or will, and of the one that was asked for.
fn progress(state: &Value, live: &Value, wanted: Option<CheckpointId>) -> anyhow::Result<Progress> {
    let stored = state["stored_images"].as_u64();
    let stored = stored
        .context("the server is older than this program: GET /v1/search has no stored_images")?;
    let rows = state["data"].as_array().map_or(&[][..], Vec::as_slice);
    let wanted = wanted.map(|id| json!(id));
    if let Some(wanted) = &wanted {
        ensure!(
            rows.iter().any(|row| row["checkpoint"] == *wanted),
            "the server dropped the vectors of {}: raise search.checkpoints, which keeps more of them",
            wanted.as_str().unwrap_or_default()
        );
    }
    let counts = |row: &&Value| {
        let checkpoint = &row["checkpoint"];
        row["role"] != "kept" || checkpoint == live || Some(checkpoint) == wanted.as_ref()
    };
    let counted = rows.iter().filter(counts);
    let images = counted
        .clone()
        .map(|row| row["images"].as_u64().unwrap_or(0));
    let begun = rows.iter().any(|row| row["checkpoint"] == *live);
    let spaces = counted.count() as u64 + u64::from(!begun);
    Ok(Progress {
        // An image may have been deleted since they were counted.
        done: images.map(|images| images.min(stored)).sum(),
        total: spaces * stored,
    })
}

fn table(state: &Value) -> String {
    let rows = state["data"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |row: &Value| {
        let share = row["indexed_share"].as_f64().unwrap_or_default();
        let mut row = row.clone();
        row["indexed_share"] = json!(format!("{share:.4}"));
        row["stored"] = state["stored_images"].clone();
        if let Some(progress) = row["graph_progress"].as_f64() {
            row["graph"] = json!(format!("{:.0}% built", (100.0 * progress).floor()));
        }
        row
    };
    let rows: Vec<Value> = rows.iter().map(row).collect();
    answer::table(&rows, &COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "0197a3c2-7d5e-7c11-9f6b-2f1f0c8d4e5a";

    fn state() -> Value {
        json!({"enabled": true, "stored_images": 10, "data": [
            {"checkpoint": "a", "role": "answering", "images": 10, "indexed_share": 1.0},
            {"checkpoint": "b", "role": "next", "images": 4, "indexed_share": 0.4},
            {"checkpoint": OTHER, "role": "kept", "images": 1, "indexed_share": 0.1},
        ]})
    }

    #[test]
    fn what_is_waited_for_is_the_live_one_the_answering_one_and_the_one_asked_for() {
        let left = |live: &str, wanted: Option<CheckpointId>| {
            let Progress { done, total } = progress(&state(), &json!(live), wanted).unwrap();
            (done, total)
        };
        assert_eq!(left("b", None), (14, 20));
        assert_eq!(left("b", Some(OTHER.parse().unwrap())), (15, 30));
        // A live checkpoint whose turn has not come.
        assert_eq!(left("c", None), (14, 30));
    }

    #[test]
    fn vectors_that_the_server_dropped_are_not_waited_for() {
        let gone = "0197a3c2-7d5e-7c11-9f6b-2f1f0c8d4e5b".parse().unwrap();
        let refused = progress(&state(), &json!("b"), Some(gone))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("search.checkpoints"), "{refused}");
    }

    #[test]
    fn a_server_without_images_has_nothing_left() {
        let empty = json!({"stored_images": 0, "data": [{"checkpoint": "a", "role": "answering", "images": 0}]});
        let Progress { done, total } = progress(&empty, &json!("a"), None).unwrap();
        assert!(done >= total);
    }

    #[test]
    fn the_table_has_a_row_for_each_checkpoint() {
        let text = table(&state());
        assert!(text.lines().nth(2).unwrap().starts_with("b "), "{text}");
        assert!(text.contains("0.4000"), "{text}");
    }

    #[test]
    fn a_graph_that_is_being_built_shows_how_far_it_is() {
        assert!(!table(&state()).contains("built"));
        let mut state = state();
        state["data"][1]["graph_progress"] = json!(0.437);
        let text = table(&state);
        assert!(text.lines().nth(2).unwrap().contains("43% built"), "{text}");
    }
}
