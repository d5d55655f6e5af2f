//! `kith embed`: embeds image files by a running server, and writes a table, which gets its name when it is complete, or prints JSON lines. An interrupted
//! run that writes a table goes on where it ended.

use std::{
    io::{self, Write},
    mem,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    client::Client,
    client_error::ClientError,
    embedded::{Embedded, FileVersion, floats},
    embedding_table::Row,
    file::{read_image, refuse_inputs},
    image_files::image_files,
    server_args::ServerArgs,
};

/// Most characters of a request; a larger image goes alone.
const REQUEST_BYTES: usize = 8 << 20;
const BAR: &str = "{bar:30} {pos}/{len} images, {per_sec}, {eta} left";

#[derive(Args, Debug)]
pub(crate) struct EmbedArgs {
    /// Image files, folders that are searched for them, lists: a .txt with one path a line, a .csv with a column path, or - for standard input
    #[arg(required = true, value_name = "IMAGE|FOLDER|LIST")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// The live checkpoint, or one of them as kith@ID
    #[arg(long, default_value = "kith")]
    model: String,
    /// The side of pairs that the images are on: anchor or positive. A model with an encoder for each side needs it
    #[arg(long, value_name = "SIDE")]
    input_type: Option<String>,
    /// Fewer values than the model has
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Write a table instead of printing JSON lines: .npy (the paths are in FILE.npy.json), .parquet, .jsonl or .csv (path, model, one column for each
    /// value). Run again after an interruption, it goes on with the same checkpoint
    #[arg(long, value_name = "FILE")]
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
    /// As it was before it was read: if it is written meanwhile, it is embedded again.
    version: FileVersion,
    /// Base64.
    text: String,
}

/// A run in progress.
struct Run<'a> {
    args: &'a EmbedArgs,
    client: Client,
    /// The model to ask for: after the first answer its checkpoint, so that all rows come from one.
    model: String,
    /// The table; without one, rows are printed.
    table: Option<Embedded>,
    bar: ProgressBar,
    failed: Vec<String>,
}

pub(crate) fn run(args: &EmbedArgs) -> anyhow::Result<()> {
    let files = image_files(&args.images)?;
    let client = Client::new(&args.server);
    let request = json!([args.model, args.dimensions, args.input_type]).to_string();
    if let Some(output) = &args.output {
        // The lists, and the files that they name.
        refuse_inputs(output, &args.images)?;
        refuse_inputs(output, &files)?;
    }
    let table = (args.output.as_ref()).map(|output| Embedded::open(output, &request));
    let table = table.transpose()?;
    let model = table.as_ref().and_then(Embedded::model);
    let mut run = Run {
        args,
        client,
        model: model.unwrap_or(&args.model).to_owned(),
        table,
        bar: ProgressBar::new(files.len() as u64).with_style(ProgressStyle::with_template(BAR)?),
        failed: Vec::new(),
    };
    let embedded = run.embed(&files);
    run.bar.finish_and_clear();
    let (table, failed) = (run.table, run.failed);
    if let Err(error) = embedded {
        let Some(table) = table else {
            return Err(error);
        };
        let (done, total) = (table.count(), files.len());
        table.stop();
        let lost = (error.downcast_ref()).is_some_and(ClientError::is_unknown_checkpoint);
        return Err(match done {
            0 => error,
            _ if lost => error.context(format!(
                "the checkpoint of the {done} images that are embedded is gone: remove {}.kith-progress to begin anew",
                args.output.as_deref().unwrap_or(Path::new("")).display()
            )),
            _ => error.context(format!(
                "{done} of {total} images are embedded: run the same command again to go on"
            )),
        });
    }
    if let Some(table) = table {
        match table.count() {
            0 => table.stop(),
            _ => table.finish(&files)?,
        }
    }
    for line in &failed {
        eprintln!("{line}");
    }
    match failed.len() {
        0 => Ok(()),
        count => bail!("{count} of {} images failed and are left out", files.len()),
    }
}

impl Run<'_> {
    /// Embeds the files that are not in the table yet.
    fn embed(&mut self, files: &[PathBuf]) -> anyhow::Result<()> {
        self.bar.enable_steady_tick(Duration::from_millis(200));
        if let Some(table) = self.table.as_ref().filter(|table| table.count() > 0) {
            eprintln!(
                "going on with {}, of which {} images are embedded",
                self.model,
                table.count()
            );
        }
        let mut batch: Vec<Encoded> = Vec::new();
        for path in files {
            if self.table.as_ref().is_some_and(|table| table.has(path)) {
                self.bar.inc(1);
                self.bar.reset_eta();
                continue;
            }
            let Some(file) = self.encode(path)? else {
                continue;
            };
            let bytes: usize = batch.iter().map(|file| file.text.len()).sum();
            let full =
                batch.len() >= self.args.batch.into() || bytes + file.text.len() > REQUEST_BYTES;
            if full {
                self.post(mem::take(&mut batch))?;
            }
            batch.push(file);
        }
        self.post(batch)
    }

    /// Reads and encodes a file; `None` if it failed and the run continues.
    fn encode(&mut self, path: &Path) -> anyhow::Result<Option<Encoded>> {
        if path.to_str().is_none() {
            let failed = self.fail(path, "its name is not UTF-8, which no table can hold");
            return failed.map(|()| None);
        }
        let version = FileVersion::of(path);
        match read_image(path) {
            Ok(bytes) => Ok(Some(Encoded {
                path: path.to_owned(),
                version,
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
        self.bar.inc(1);
        if let Some(table) = &mut self.table {
            table.forget(path);
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
            if refused.is_too_large() && batch.len() > 1 {
                let rest = batch.split_off(batch.len() / 2);
                self.post(batch)?;
                return self.post(rest);
            }
            let index = match refused.is_too_large() {
                true => Some(0),
                false => refused_index(&refused, batch.len()),
            };
            let Some(index) = index else {
                return Err(refused).context(not_embedded(&batch));
            };
            let file = batch.remove(index);
            self.fail(&file.path, &refused.to_string())?;
        }
        Ok(())
    }

    fn request(&self, batch: &[Encoded]) -> Value {
        let input: Vec<&str> = batch.iter().map(|file| file.text.as_str()).collect();
        let mut request = json!({"model": self.model, "input": input, "encoding_format": "base64"});
        if let Some(side) = &self.args.input_type {
            request["input_type"] = json!(side);
        }
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
        let mut rows = Vec::with_capacity(data.len());
        for (file, item) in batch.iter().zip(data) {
            let embedding = item["embedding"].as_str();
            let row = Row {
                path: file.path.to_string_lossy().into_owned(),
                model: model.to_owned(),
                embedding: floats(embedding.context("the answer has no embedding")?)?,
            };
            rows.push((row, file.version));
        }
        self.bar.inc(rows.len() as u64);
        model.clone_into(&mut self.model);
        match &mut self.table {
            Some(table) => table.add(&rows),
            None => print(&rows).context("standard output cannot be written"),
        }
    }
}

fn not_embedded(batch: &[Encoded]) -> String {
    let first = batch[0].path.display();
    match batch.len() {
        1 => format!("{first} was not embedded"),
        count => format!("{first} and {} more were not embedded", count - 1),
    }
}

/// Prints a JSON line a row.
fn print(rows: &[(Row, FileVersion)]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (row, _) in rows {
        writeln!(out, "{}", row.to_json())?;
    }
    out.flush()
}

/// The index of the image that an error is about: the one that the server names, or the only one.
fn refused_index(error: &ClientError, count: usize) -> Option<usize> {
    let ClientError::Refused { param, .. } = error else {
        return None;
    };
    // `input_type` is another field.
    let inside = param.as_deref()?.strip_prefix("input")?;
    if !inside.is_empty() && !inside.starts_with('[') {
        return None;
    }
    let named = inside
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match named.map(str::parse) {
        Some(Ok(index)) if index < count => Some(index),
        _ => (count == 1).then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_about_the_input_is_about_an_image() {
        let refused = |param: Option<&str>, count| {
            let error = ClientError::Refused {
                status: 400,
                code: "invalid_field".to_owned(),
                message: String::new(),
                param: param.map(str::to_owned),
            };
            refused_index(&error, count)
        };
        assert_eq!(refused(Some("input[1]"), 3), Some(1));
        assert_eq!(refused(Some("input"), 1), Some(0));
        assert_eq!(refused(Some("input"), 2), None);
        assert_eq!(refused(Some("input[7]"), 2), None);
        for other in [Some("input_type"), Some("dimensions"), None] {
            assert_eq!(refused(other, 1), None, "{other:?}");
        }
    }
}
