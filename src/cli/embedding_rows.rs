//! Writes embeddings: JSON lines to standard output, or a CSV that gets its name when it is complete.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::{Value, json};

/// The destination of rows.
pub(crate) enum Rows {
    Lines(Box<dyn Write>),
    Csv(Box<Table>),
}

/// An incomplete CSV, in a file beside the final one.
pub(crate) struct Table {
    writer: csv::Writer<File>,
    path: PathBuf,
    partial: Partial,
    has_header: bool,
}

/// A temporary file, removed on drop unless it was renamed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // It does not exist any more if the table is complete.
        let _ = fs::remove_file(&self.0);
    }
}

impl Rows {
    /// `output`: the table's file; `None`: standard output.
    pub(crate) fn open(output: Option<&Path>) -> anyhow::Result<Self> {
        match output {
            Some(path) => Ok(Self::Csv(Box::new(Table::open(path)?))),
            None => Ok(Self::Lines(Box::new(BufWriter::new(io::stdout().lock())))),
        }
    }

    pub(crate) fn write(
        &mut self,
        path: &Path,
        model: &str,
        embedding: &Value,
    ) -> anyhow::Result<()> {
        match self {
            Self::Lines(out) => {
                let line =
                    json!({"path": path.to_string_lossy(), "model": model, "embedding": embedding});
                writeln!(out, "{line}").context("standard output cannot be written")
            }
            Self::Csv(table) => table.write(path, model, embedding),
        }
    }

    pub(crate) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Lines(mut out) => out.flush().context("standard output cannot be written"),
            Self::Csv(table) => table.finish(),
        }
    }
}

impl Table {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        let file = File::create(&partial)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self {
            writer: csv::Writer::from_writer(file),
            path: path.to_owned(),
            partial: Partial(partial),
            has_header: false,
        })
    }

    fn write(&mut self, path: &Path, model: &str, embedding: &Value) -> anyhow::Result<()> {
        let values = embedding
            .as_array()
            .context("the embedding is no list of numbers")?;
        if !self.has_header {
            let columns = (0..values.len()).map(|index| format!("e{index}"));
            let head = ["path".to_owned(), "model".to_owned()];
            self.writer.write_record(head.into_iter().chain(columns))?;
            self.has_header = true;
        }
        let cells = [path.to_string_lossy().into_owned(), model.to_owned()];
        let cells = cells.into_iter().chain(values.iter().map(Value::to_string));
        self.writer.write_record(cells)?;
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let name = self.path.display().to_string();
        let written = || format!("{name} cannot be written");
        self.writer.flush().with_context(written)?;
        self.writer.get_ref().sync_all().with_context(written)?;
        fs::rename(&self.partial.0, &self.path).with_context(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_name_only_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        let files = || fs::read_dir(folder.path()).unwrap().count();
        fs::write(&path, "older").unwrap();
        let mut rows = Rows::open(Some(&path)).unwrap();
        rows.write(Path::new("a.png"), "kith@1", &json!([0.5, 1]))
            .unwrap();
        drop(rows);
        assert_eq!(fs::read_to_string(&path).unwrap(), "older");
        assert_eq!(files(), 1);
        let mut rows = Rows::open(Some(&path)).unwrap();
        rows.write(Path::new("a.png"), "kith@1", &json!([0.5, 1]))
            .unwrap();
        rows.finish().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "path,model,e0,e1\na.png,kith@1,0.5,1\n");
        assert_eq!(files(), 1);
    }
}
