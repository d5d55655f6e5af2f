//! `kith embed`: embeddings of image files from a running server, as JSON lines or CSV.
//! Must never know: how an embedding is made.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, ServerArgs};

#[derive(Args, Debug)]
pub(crate) struct EmbedArgs {
    /// Image files
    #[arg(required = true, value_name = "IMAGE")]
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
}

/// Where rows go.
enum Rows {
    Lines(Box<dyn Write>),
    Csv(Box<csv::Writer<File>>),
}

pub(crate) fn run(args: &EmbedArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.server);
    let mut rows = match &args.output {
        Some(path) => {
            let file = File::create(path)
                .with_context(|| format!("{} cannot be written", path.display()))?;
            Rows::Csv(Box::new(csv::Writer::from_writer(file)))
        }
        None => Rows::Lines(Box::new(BufWriter::new(io::stdout().lock()))),
    };
    let mut model = args.model.clone();
    let mut first = true;
    for images in args.images.chunks(args.batch.into()) {
        let answer = client.post("/v1/embeddings", &request(args, &model, images)?)?;
        let answered = answer["model"]
            .as_str()
            .context("the answer names no model")?;
        // All rows of one run come from one checkpoint: the one that answered the first request.
        answered.clone_into(&mut model);
        let data = answer["data"]
            .as_array()
            .context("the answer has no data")?;
        ensure!(
            data.len() == images.len(),
            "{} images were sent, {} embeddings came back",
            images.len(),
            data.len()
        );
        for (path, item) in images.iter().zip(data) {
            rows.write(path, answered, &item["embedding"], first)?;
            first = false;
        }
    }
    rows.finish()
}

fn request(args: &EmbedArgs, model: &str, images: &[PathBuf]) -> anyhow::Result<Value> {
    let encode = |path: &PathBuf| -> anyhow::Result<String> {
        let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(STANDARD.encode(bytes))
    };
    let input = images.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    let mut request = json!({"model": model, "input": input});
    if let Some(dimensions) = args.dimensions {
        request["dimensions"] = json!(dimensions);
    }
    Ok(request)
}

impl Rows {
    fn write(
        &mut self,
        path: &Path,
        model: &str,
        embedding: &Value,
        first: bool,
    ) -> anyhow::Result<()> {
        match self {
            Self::Lines(out) => {
                let line =
                    json!({"path": path.to_string_lossy(), "model": model, "embedding": embedding});
                writeln!(out, "{line}")?;
            }
            Self::Csv(out) => {
                let values = embedding
                    .as_array()
                    .context("the embedding is no list of numbers")?;
                if first {
                    let columns = (0..values.len()).map(|index| format!("e{index}"));
                    out.write_record(
                        ["path".to_owned(), "model".to_owned()]
                            .into_iter()
                            .chain(columns),
                    )?;
                }
                let head = [path.to_string_lossy().into_owned(), model.to_owned()];
                out.write_record(head.into_iter().chain(values.iter().map(Value::to_string)))?;
            }
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Lines(mut out) => out.flush()?,
            Self::Csv(mut out) => out.flush()?,
        }
        Ok(())
    }
}
