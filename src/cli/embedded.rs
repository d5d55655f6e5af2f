//! The embeddings of a run that writes a table, as lines of a journal beside it: an interrupted run goes on where it ended, with the same checkpoint.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    embedding_table::{Format, Row, Table},
    journal::{Foreign, Journal},
};
use crate::types::Sha256;

/// One embedded file.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    path: String,
    version: FileVersion,
    model: String,
    /// Base64 of little-endian `f32`.
    embedding: String,
}

/// What changes when a file is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct FileVersion {
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

/// A table to be, and what is known of it.
pub(crate) struct Embedded {
    output: PathBuf,
    journal: Journal,
    /// By path.
    done: HashMap<String, FileVersion>,
    model: Option<String>,
}

impl Embedded {
    /// `request`: what the vectors depend on besides the images, such as the model that was asked for.
    ///
    /// # Errors
    /// The name is of no format or of a folder, nothing can be written beside it, or there is the journal of another run.
    pub(crate) fn open(output: &Path, request: &str) -> anyhow::Result<Self> {
        Format::of(output).map_err(anyhow::Error::msg)?;
        ensure!(!output.is_dir(), "{} is a folder", output.display());
        // The table replaces what a link points at, and not the link.
        let output = &output.canonicalize().unwrap_or_else(|_| output.to_owned());
        let (mut done, mut model) = (HashMap::new(), None);
        let fingerprint = Sha256::digest(request.as_bytes());
        let journal = Journal::open(output, fingerprint, Foreign::Refuse, |line| {
            if let Ok(line) = serde_json::from_str::<Line>(line) {
                done.insert(line.path, line.version);
                model = Some(line.model);
            }
        });
        let journal = journal.with_context(|| format!("{} cannot be written", output.display()))?;
        Ok(Self {
            output: output.to_owned(),
            journal,
            done,
            model,
        })
    }

    /// The checkpoint of all rows, as `kith@ID`, once there is one.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Files that are embedded.
    pub(crate) fn count(&self) -> usize {
        self.done.len()
    }

    /// Whether a file is embedded as it is now.
    pub(crate) fn has(&self, path: &Path) -> bool {
        let done = self.done.get(path.to_string_lossy().as_ref());
        done.is_some_and(|version| *version == FileVersion::of(path))
    }

    /// Adds rows, each with the version of the file that was read for it.
    pub(crate) fn add(&mut self, rows: &[(Row, FileVersion)]) -> anyhow::Result<()> {
        let mut lines = String::new();
        for (row, version) in rows {
            let bytes: Vec<u8> = row
                .embedding
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            let line = Line {
                path: row.path.clone(),
                version: *version,
                model: row.model.clone(),
                embedding: STANDARD.encode(bytes),
            };
            lines.push_str(&serde_json::to_string(&line)?);
            lines.push('\n');
            self.done.insert(line.path, line.version);
            self.model = Some(line.model);
        }
        let added = self.journal.add(&lines);
        added.with_context(|| format!("the journal of {} cannot be written", self.output.display()))
    }

    /// Leaves a file out, though an earlier version of it was embedded.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.done.remove(path.to_string_lossy().as_ref());
    }

    /// Writes the table, with the rows of `files` in the order in which they came, and removes the journal. Without any row, a table that is there stays.
    pub(crate) fn finish(mut self, files: &[PathBuf]) -> anyhow::Result<()> {
        let mut wanted: HashMap<String, FileVersion> = HashMap::new();
        for file in files {
            let path = file.to_string_lossy().into_owned();
            if let Some(version) = self.done.get(&path) {
                wanted.insert(path, *version);
            }
        }
        let (mut table, total, mut dim) = (None, wanted.len(), 0);
        let mut failed = Ok(());
        let mut write = |line: &str| -> anyhow::Result<()> {
            let Ok(line) = serde_json::from_str::<Line>(line) else {
                return Ok(());
            };
            // Of a file that changed meanwhile only the newest line counts.
            if wanted.get(&line.path) != Some(&line.version) {
                return Ok(());
            }
            wanted.remove(&line.path);
            let row = line.into_row()?;
            let table = match &mut table {
                Some(table) => table,
                None => {
                    dim = row.embedding.len();
                    table.insert(Table::create(&self.output, total, dim)?)
                }
            };
            ensure!(
                row.embedding.len() == dim,
                "{}: it has {} values, others have {dim}",
                row.path,
                row.embedding.len()
            );
            table.write(row)
        };
        let read = self.journal.lines(|line| {
            if failed.is_ok() {
                failed = write(line);
            }
        });
        read.context("the journal cannot be read")?;
        failed?;
        ensure!(
            wanted.is_empty(),
            "{} rows are missing in the journal of {}: run the same command again",
            wanted.len(),
            self.output.display()
        );
        if let Some(table) = table {
            table.finish()?;
        }
        self.journal.finish();
        Ok(())
    }

    /// Keeps the journal for the next run, unless it holds nothing.
    pub(crate) fn stop(self) {
        if self.done.is_empty() {
            self.journal.finish();
        }
    }
}

impl FileVersion {
    /// Zeros for a file that cannot be looked at.
    pub(crate) fn of(path: &Path) -> Self {
        let Ok(found) = fs::metadata(path) else {
            return Self::default();
        };
        let modified = found.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            bytes: found.len(),
            // Until the year 2554.
            modified: modified.map_or(0, |since| since.as_nanos() as u64),
        }
    }
}

impl Line {
    fn into_row(self) -> anyhow::Result<Row> {
        Ok(Row {
            path: self.path,
            model: self.model,
            embedding: floats(&self.embedding)?,
        })
    }
}

/// Values of base64 text of little-endian `f32`.
///
/// # Errors
/// It is no such text.
pub(crate) fn floats(text: &str) -> anyhow::Result<Vec<f32>> {
    let bytes = STANDARD
        .decode(text)
        .context("an embedding is not base64")?;
    let (values, rest) = bytes.as_chunks::<4>();
    ensure!(
        rest.is_empty(),
        "an embedding has {} bytes, no multiple of 4",
        bytes.len()
    );
    Ok(values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &Path, value: f32) -> (Row, FileVersion) {
        let row = Row {
            path: path.to_string_lossy().into_owned(),
            model: "kith@1".to_owned(),
            embedding: vec![value, 0.5],
        };
        (row, FileVersion::of(path))
    }

    #[test]
    fn a_second_run_goes_on_with_the_checkpoint_and_embeds_a_changed_file_again() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.png"), folder.path().join("b.png"));
        let output = folder.path().join("t.csv");
        fs::write(&a, "1").unwrap();
        fs::write(&b, "1").unwrap();
        let mut first = Embedded::open(&output, "live").unwrap();
        assert_eq!((first.model(), first.has(&a)), (None, false));
        first.add(&[row(&a, 1.0), row(&b, 2.0)]).unwrap();
        first.stop();
        assert!(!output.exists());
        fs::write(&b, "longer").unwrap();
        let refused = Embedded::open(&output, "another").err().unwrap();
        assert!(format!("{refused:#}").contains("begin anew"), "{refused:#}");
        let mut second = Embedded::open(&output, "live").unwrap();
        assert_eq!(second.model(), Some("kith@1"));
        assert_eq!((second.has(&a), second.has(&b)), (true, false));
        second.add(&[row(&b, 3.0)]).unwrap();
        second.finish(&[a.clone(), b.clone()]).unwrap();
        let text = fs::read_to_string(&output).unwrap();
        let values: Vec<_> = text
            .lines()
            .skip(1)
            .map(|line| line.split(',').nth(2).unwrap())
            .collect();
        assert_eq!(values, ["1", "3"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_that_fails_now_has_no_row_and_a_lost_row_is_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a.png", "b.png"].map(|name| folder.path().join(name));
        let output = folder.path().join("t.csv");
        fs::write(&output, "older").unwrap();
        let mut run = Embedded::open(&output, "live").unwrap();
        run.add(&[row(&files[0], 1.0), row(&files[1], 2.0)])
            .unwrap();
        run.forget(&files[0]);
        run.finish(&files).unwrap();
        assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 2);
        let mut run = Embedded::open(&output, "live").unwrap();
        run.add(&[row(&files[0], 1.0)]).unwrap();
        fs::write(folder.path().join("t.csv.kith-progress"), "").unwrap();
        assert!(run.finish(&files).is_err());
        assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_run_without_any_embedding_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        Embedded::open(&folder.path().join("t.csv"), "live")
            .unwrap()
            .stop();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
