//! What a search looks for, from the command line: image files, ids of stored images, or vectors in JSON.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    checkpoint_id::checkpoint_id,
    file::{read_file, read_image},
    image_files::image_files,
};
use crate::types::CheckpointId;

/// Standard input, as the name of a file.
const STANDARD_INPUT: &str = "-";
/// Most bytes that are read from standard input.
const MAX_BYTES: u64 = 1 << 30;

/// One thing that is looked for.
pub(crate) struct SearchQuery {
    /// What tables and errors call it.
    pub(crate) name: String,
    /// The checkpoint that made it, of a vector that says so.
    pub(crate) checkpoint: Option<CheckpointId>,
    source: Source,
}

/// Files are read when they are sent, so that one is in memory at a time.
enum Source {
    Image(PathBuf),
    Stored(String),
    Vector(Value),
}

impl SearchQuery {
    /// The field of a request that says what is looked for.
    pub(crate) fn request(&self) -> anyhow::Result<Value> {
        Ok(match &self.source {
            Source::Image(path) => json!({"image": STANDARD.encode(read_image(path)?)}),
            Source::Stored(id) => json!({"id": id}),
            Source::Vector(values) => json!({"vector": values}),
        })
    }
}

/// A query for each image file that is named.
///
/// # Errors
/// As [`image_files`].
pub(crate) fn from_images(images: &[PathBuf]) -> anyhow::Result<Vec<SearchQuery>> {
    let files = image_files(images)?.into_iter();
    let query = |path: PathBuf| SearchQuery {
        name: path.display().to_string(),
        checkpoint: None,
        source: Source::Image(path),
    };
    Ok(files.map(query).collect())
}

/// A query for each stored image.
pub(crate) fn from_ids(ids: &[String]) -> Vec<SearchQuery> {
    let query = |id: &String| SearchQuery {
        name: id.clone(),
        checkpoint: None,
        source: Source::Stored(id.clone()),
    };
    ids.iter().map(query).collect()
}

/// A query for each vector of a file.
///
/// # Errors
/// The file cannot be read, is no JSON, or holds something else than vectors.
pub(crate) fn from_vectors(file: &Path) -> anyhow::Result<Vec<SearchQuery>> {
    let (name, bytes) = if file.as_os_str() == STANDARD_INPUT {
        let mut bytes = Vec::new();
        let mut input = std::io::stdin().lock().take(MAX_BYTES);
        let read = input.read_to_end(&mut bytes);
        read.context("standard input cannot be read")?;
        ("standard input".to_owned(), bytes)
    } else {
        let name = file.display().to_string();
        let bytes = read_file(file).with_context(|| format!("{name} cannot be read"))?;
        (name, bytes)
    };
    let mut queries = Vec::new();
    for document in serde_json::Deserializer::from_slice(&bytes).into_iter() {
        let document: Value = document.with_context(|| format!("{name} is not JSON"))?;
        add(&document, None, &mut queries).with_context(|| format!("{name} holds no vectors"))?;
    }
    ensure!(!queries.is_empty(), "{name} is empty: write a vector to it");
    if let [query] = &mut queries[..] {
        query.name = name;
    }
    Ok(queries)
}

/// Adds the vectors of a document: a list of numbers, an object with an `embedding`, or one whose `data` are such objects.
fn add(
    document: &Value,
    model: Option<&Value>,
    queries: &mut Vec<SearchQuery>,
) -> anyhow::Result<()> {
    let model = document.get("model").or(model);
    let values = match document {
        Value::Object(fields) => match (fields.get("embedding"), fields.get("data")) {
            (Some(embedding), _) => embedding,
            (None, Some(Value::Array(items))) => {
                return (items.iter()).try_for_each(|item| add(item, model, queries));
            }
            _ => bail!("an object needs an \"embedding\", or \"data\" with embeddings"),
        },
        list => list,
    };
    let numbers = values.as_array().filter(|list| !list.is_empty());
    ensure!(
        numbers.is_some_and(|list| list.iter().all(Value::is_number)),
        "a vector is a list of numbers such as [0.1, -0.2], or an object with such a list as \"embedding\""
    );
    let number = queries.len() + 1;
    let path = document["path"].as_str().map(str::to_owned);
    queries.push(SearchQuery {
        name: path.unwrap_or_else(|| format!("vector {number}")),
        checkpoint: model
            .and_then(Value::as_str)
            .and_then(|model| checkpoint_id(model).ok()),
        source: Source::Vector(values.clone()),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0197a3c2-7d5e-7c11-9f6b-2f1f0c8d4e5a";

    fn read(text: &str) -> anyhow::Result<Vec<SearchQuery>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("vectors.json");
        std::fs::write(&path, text)?;
        from_vectors(&path)
    }

    #[test]
    fn vectors_are_lists_lines_of_embed_or_an_answer_and_know_their_checkpoint() {
        let list = read("[0.5, -1, 2e-3]").unwrap();
        assert_eq!(
            list[0].request().unwrap(),
            json!({"vector": [0.5, -1, 2e-3]})
        );
        assert_eq!(list[0].checkpoint, None);
        let line =
            |path: &str| json!({"path": path, "model": format!("kith@{ID}"), "embedding": [1.0]});
        let lines = read(&format!("{}\n{}\n", line("a.png"), line("b.png"))).unwrap();
        let names: Vec<&str> = lines.iter().map(|query| &*query.name).collect();
        assert_eq!(names, ["a.png", "b.png"]);
        let answer = json!({"model": format!("kith@{ID}"), "data": [{"embedding": [1.0]}, {"embedding": [2.0]}]});
        let answer = read(&answer.to_string()).unwrap();
        assert_eq!(answer[1].request().unwrap(), json!({"vector": [2.0]}));
        for query in lines.iter().chain(&answer) {
            assert_eq!(query.checkpoint, Some(ID.parse().unwrap()));
        }
    }

    #[test]
    fn what_is_no_vector_is_refused_with_the_files_name_and_what_to_write() {
        for (text, part) in [
            ("", "is empty"),
            ("[1, ", "not JSON"),
            ("[\"a\"]", "list of numbers"),
            ("[]", "list of numbers"),
            ("[[1]]", "list of numbers"),
            ("{\"vector\": [1]}", "\"embedding\""),
            ("7", "list of numbers"),
        ] {
            let error = format!("{:#}", read(text).err().unwrap());
            assert!(
                error.contains(part) && error.contains("vectors.json"),
                "{error}"
            );
        }
    }
}
