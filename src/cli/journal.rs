//! What an interrupted run has done, as lines of a file beside its input or output, so that the same command goes on from there. The first line says
//! which run it belongs to; the journal of another run is replaced.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use crate::types::Sha256;

/// The open file.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal beside `file`, and gives each complete line of it to `take`. One with another `fingerprint` is replaced; a torn last
    /// line is removed.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn open(
        file: &Path,
        fingerprint: Sha256,
        take: impl FnMut(&str),
    ) -> io::Result<Self> {
        let path = beside(file);
        let head = format!("kith-progress 2 {fingerprint}");
        match read(&path, &head, take)? {
            Some(whole) => {
                let file = File::options().append(true).open(&path)?;
                file.set_len(whole)?;
                Ok(Self { path, file })
            }
            None => {
                replace(&path, &format!("{head}\n"))?;
                let file = File::options().append(true).open(&path)?;
                Ok(Self { path, file })
            }
        }
    }

    /// Adds lines, each with its line break.
    ///
    /// # Errors
    /// The file cannot be written: it may end in a torn line, which the next [`Journal::open`] removes.
    pub(crate) fn add(&mut self, lines: &str) -> io::Result<()> {
        self.file.write_all(lines.as_bytes())
    }

    /// Gives each line to `take`, as [`Journal::open`] does.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn lines(&self, take: impl FnMut(&str)) -> io::Result<()> {
        read(&self.path, "", take).map(drop)
    }

    /// Removes the file: nothing is left to go on with.
    pub(crate) fn finish(self) {
        // A journal that stays is harmless.
        let _ = fs::remove_file(&self.path);
    }
}

/// Gives the complete lines after the first to `take`; the bytes that they and the first take. `None`: there is no file, or its first line does not begin
/// with `head`.
fn read(path: &Path, head: &str, mut take: impl FnMut(&str)) -> io::Result<Option<u64>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let (mut reader, mut line, mut whole) = (BufReader::new(file), Vec::new(), 0);
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)? as u64;
        let Some(text) = line
            .strip_suffix(b"\n")
            .and_then(|line| str::from_utf8(line).ok())
        else {
            return Ok((whole > 0).then_some(whole));
        };
        if whole > 0 {
            take(text);
        } else if !text.starts_with(head) {
            return Ok(None);
        }
        whole += bytes;
    }
}

/// Replaces a file atomically.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("kith-progress-next");
    fs::write(&next, text)?;
    fs::rename(&next, path)
}

/// `pairs.csv` → `pairs.csv.kith-progress`, in the same folder.
fn beside(file: &Path) -> PathBuf {
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".kith-progress");
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(file: &Path, run: &[u8]) -> (Journal, Vec<String>) {
        let mut lines = Vec::new();
        let take = |line: &str| lines.push(line.to_owned());
        let journal = Journal::open(file, Sha256::digest(run), take).unwrap();
        (journal, lines)
    }

    #[test]
    fn a_second_run_goes_on_and_a_torn_line_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("p.csv");
        let (mut journal, lines) = open(&input, b"a");
        assert!(lines.is_empty());
        journal.add("one\ntwo\nthr").unwrap();
        drop(journal);
        let (mut journal, lines) = open(&input, b"a");
        assert_eq!(lines, ["one", "two"]);
        journal.add("three\n").unwrap();
        let mut lines = Vec::new();
        journal.lines(|line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        journal.finish();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_journal_of_another_run_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("p.csv");
        open(&input, b"a").0.add("one\n").unwrap();
        assert!(open(&input, b"b").1.is_empty());
        assert!(open(&input, b"a").1.is_empty());
    }
}
