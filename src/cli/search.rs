//! `kith search`: the stored images of a running server that are nearest to image files, to a stored image or to vectors.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{
    answer,
    checkpoint_id::checkpoint_id,
    client::Client,
    search_query::{self, SearchQuery},
    server_args::ServerArgs,
};
use crate::types::CheckpointId;

const COLUMNS: [answer::Column; 4] = [
    ("rank", "/rank"),
    ("id", "/id"),
    ("score", "/score"),
    ("group", "/group"),
];

#[derive(Args, Debug)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    queries: QueryArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Most images for each query
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    k: u16,
    /// Only images of pairs of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// The checkpoint that answers [default: the newest that knows all stored images; for a vector the one that made it, or the live one]
    #[arg(long, value_name = "ID", value_parser = checkpoint_id)]
    checkpoint: Option<CheckpointId>,
    /// Print the server's answers, one JSON document a line, with the name of the query
    #[arg(long)]
    json: bool,
}

/// What is looked for: one of the three.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct QueryArgs {
    /// Image files, which need not be stored, folders that are searched for them, or lists of them, as `kith embed` takes them. Where each side of pairs
    /// has an encoder of its own, they are anchors
    #[arg(value_name = "IMAGE|FOLDER|LIST")]
    images: Vec<PathBuf>,
    /// A stored image by its id, which is then not among the answers; may be given several times
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// Vectors in JSON, from a file or, with -, from standard input: a list of numbers, lines of `kith embed`, or an answer of POST /v1/embeddings
    #[arg(long, value_name = "FILE")]
    vector: Option<PathBuf>,
}

/// Searches for one query after another. The first that fails ends it, by its name.
pub(crate) fn run(args: &SearchArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let QueryArgs { images, id, vector } = &args.queries;
    let queries = match vector {
        Some(file) => search_query::from_vectors(file)?,
        None if images.is_empty() => search_query::from_ids(id),
        None => search_query::from_images(images)?,
    };
    let mut pinned = args.checkpoint;
    for (place, query) in queries.into_iter().enumerate() {
        let checkpoint = args.checkpoint.or(query.checkpoint).or(pinned);
        let answer = search(&client, args, &query, checkpoint)
            .with_context(|| format!("{} is not searched for", query.name))?;
        if query.checkpoint.is_none() && pinned.is_none() {
            // All answers come from one checkpoint, though another may be promoted meanwhile.
            let model = answer["model"].as_str().unwrap_or_default();
            pinned = checkpoint_id(model).ok();
        }
        if args.json {
            println!("{}", with_name(&query.name, answer));
        } else {
            let gap = if place == 0 { "" } else { "\n" };
            print!("{gap}{}:\n{}", query.name, readable(&answer));
        }
    }
    Ok(())
}

fn search(
    client: &Client,
    args: &SearchArgs,
    query: &SearchQuery,
    checkpoint: Option<CheckpointId>,
) -> anyhow::Result<Value> {
    let mut request = query.request()?;
    request["k"] = json!(args.k);
    if let Some(group) = &args.group {
        request["group"] = json!(group);
    }
    if let Some(id) = checkpoint {
        request["checkpoint"] = json!(id);
    }
    Ok(client.post("/v1/search", &request)?)
}

fn with_name(name: &str, mut answer: Value) -> Value {
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("query".to_owned(), json!(name));
    }
    answer
}

/// The images as a table, and a line on the checkpoint that answered.
fn readable(answer: &Value) -> String {
    let found = answer["data"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |(place, image): (usize, &Value)| {
        let score = image["score"].as_f64().unwrap_or(f64::NAN);
        json!({"rank": place + 1, "id": image["id"], "score": format!("{score:.4}"), "group": image["group"]})
    };
    let rows: Vec<Value> = found.iter().enumerate().map(row).collect();
    let model = |part: &Value| part["model"].as_str().unwrap_or("-").to_owned();
    let share = |part: &Value| percent(part["indexed_share"].as_f64().unwrap_or_default());
    let mut text = answer::table(&rows, &COLUMNS);
    text += &format!(
        "answered by {}, under which {} of the stored images are embedded\n",
        model(answer),
        share(answer)
    );
    let next = &answer["next"];
    if !next.is_null() {
        text += &format!(
            "the live checkpoint is {}, under which {} are: `kith reembed --wait` waits for the rest\n",
            model(next),
            share(next)
        );
    }
    text
}

/// A share in percent, which is 100% only where nothing is left.
fn percent(share: f64) -> String {
    let tenths = (share * 1000.0).floor() / 10.0;
    format!("{tenths}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_numbers_the_images_and_a_line_names_the_checkpoint_and_what_it_knows() {
        let answer = json!({
            "data": [{"id": "9f86", "score": 0.93124, "group": "sku-81"}, {"id": "60b1", "score": 0.5, "group": null}],
            "model": "kith@1", "indexed_share": 1.0, "next": {"model": "kith@2", "indexed_share": 0.99999},
        });
        let text = readable(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "rank  id    score   group");
        assert_eq!(lines[1], "1     9f86  0.9312  sku-81");
        assert_eq!(lines[2], "2     60b1  0.5000  -");
        assert!(lines[3].contains("kith@1") && lines[3].contains("100% of"));
        assert!(lines[4].contains("kith@2") && lines[4].contains("99.9% are"));
    }
}
