//! `kith embed`: embeds image files by a running server, and writes JSON lines or a CSV, which gets its name when it is complete.

use std::{
    mem,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};

use super::{
    client::{Client, ClientError, ServerArgs},
    embedding_rows::Rows,
    file::read_file,
    folder,
};

/// Most characters of a request; a larger image goes alone.
const REQUEST_BYTES: usize = 8 << 20;

#[derive(Args, Debug)]
pub(crate) struct EmbedArgs {
    /// Image files, or folders that are searched for them
    #[arg(required = true, value_name = "IMAGE|FOLDER")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// The live checkpoint, or one of them as kith@ID
    #[arg(long, default_value = "kith")]
    model: String,
    /// Fewer values than the model has
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Write a CSV (path, model, one column for each value) instead of printing JSON lines
    #[arg(long, value_name = "FILE.csv")]
    output: Option<PathBuf>,
    /// Most images in a request
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Leave out files that fail, and go on; they are named at the end, and the exit code is 1
    #[arg(long)]
    keep_going: bool,
}

/// One file, encoded for a request.
struct Encoded {
    path: PathBuf,
    /// Base64.
    text: String,
}

/// A run in progress.
struct Run<'a> {
    args: &'a EmbedArgs,
    client: Client,
    /// The model to ask for: after the first answer its checkpoint, so that all rows come from one.
    model: String,
    rows: Rows,
    failed: Vec<String>,
}

pub(crate) fn run(args: &EmbedArgs) -> anyhow::Result<()> {
    let files = files(&args.images)?;
    let mut run = Run {
        args,
        client: Client::new(&args.server),
        model: args.model.clone(),
        rows: Rows::open(args.output.as_deref())?,
        failed: Vec::new(),
    };
    let mut batch: Vec<Encoded> = Vec::new();
    for path in &files {
        let Some(file) = run.encode(path)? else {
            continue;
        };
        let bytes: usize = batch.iter().map(|file| file.text.len()).sum();
        let full = batch.len() >= args.batch.into() || bytes + file.text.len() > REQUEST_BYTES;
        if full {
            run.post(mem::take(&mut batch))?;
        }
        batch.push(file);
    }
    run.post(batch)?;
    run.finish(files.len())
}

/// The files of `paths`, with the image files of folders.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut left_out) = (Vec::new(), Vec::new());
    for path in paths {
        if path.is_dir() {
            let (found, rest) = folder::walk(path)?;
            files.extend(found);
            left_out.extend(rest);
        } else {
            files.push(path.clone());
        }
    }
    folder::report(&left_out);
    ensure!(
        !files.is_empty(),
        "there is no image file in what was named"
    );
    Ok(files)
}

impl Run<'_> {
    /// Reads and encodes a file; `None` if it failed and the run continues.
    fn encode(&mut self, path: &Path) -> anyhow::Result<Option<Encoded>> {
        match read_file(path) {
            Ok(bytes) => Ok(Some(Encoded {
                path: path.to_owned(),
                text: STANDARD.encode(bytes),
            })),
            Err(error) => self.fail(path, &error.to_string()).map(|()| None),
        }
    }

    /// Records a file that failed; an error unless `--keep-going` is set.
    fn fail(&mut self, path: &Path, reason: &str) -> anyhow::Result<()> {
        let line = format!("{}: {reason}", path.display());
        if !self.args.keep_going {
            bail!("{line}; --keep-going leaves out files that fail");
        }
        self.failed.push(line);
        Ok(())
    }

    /// Sends a batch, without the files that the server refuses one by one.
    fn post(&mut self, mut batch: Vec<Encoded>) -> anyhow::Result<()> {
        while !batch.is_empty() {
            let refused = match self.client.post("/v1/embeddings", &self.request(&batch)) {
                Ok(answer) => return self.write(&batch, &answer),
                Err(error) => error,
            };
            let Some(index) = refused_index(&refused, batch.len()) else {
                return Err(refused).context(format!(
                    "{} and {} more images were not embedded",
                    batch[0].path.display(),
                    batch.len() - 1
                ));
            };
            let file = batch.remove(index);
            self.fail(&file.path, &refused.to_string())?;
        }
        Ok(())
    }

    fn request(&self, batch: &[Encoded]) -> Value {
        let input: Vec<&str> = batch.iter().map(|file| file.text.as_str()).collect();
        let mut request = json!({"model": self.model, "input": input});
        if let Some(dimensions) = self.args.dimensions {
            request["dimensions"] = json!(dimensions);
        }
        request
    }

    fn write(&mut self, batch: &[Encoded], answer: &Value) -> anyhow::Result<()> {
        let model = answer["model"]
            .as_str()
            .context("the answer names no model")?;
        let data = answer["data"]
            .as_array()
            .context("the answer has no data")?;
        ensure!(
            data.len() == batch.len(),
            "{} images were sent, {} embeddings came back",
            batch.len(),
            data.len()
        );
        for (file, item) in batch.iter().zip(data) {
            self.rows.write(&file.path, model, &item["embedding"])?;
        }
        model.clone_into(&mut self.model);
        Ok(())
    }

    fn finish(self, total: usize) -> anyhow::Result<()> {
        self.rows.finish()?;
        for line in &self.failed {
            eprintln!("{line}");
        }
        match self.failed.len() {
            0 => Ok(()),
            count => bail!("{count} of {total} images failed and are left out"),
        }
    }
}

/// The index of the image that an error is about: the one that the server names, or the only one.
fn refused_index(error: &ClientError, count: usize) -> Option<usize> {
    let ClientError::Refused { param, .. } = error else {
        return None;
    };
    let inside = param.as_deref()?.strip_prefix("input")?;
    let named = inside
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match named.map(str::parse) {
        Some(Ok(index)) if index < count => Some(index),
        _ => (count == 1).then_some(0),
    }
}
