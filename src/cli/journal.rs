//! What an interrupted run has done, as lines of a file beside its input or output, so that the same command goes on from there. The first line says
//! which run it belongs to.

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::types::Sha256;

/// What becomes of the journal of another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// It is emptied: what it holds is done again.
    Replace,
    /// It stays, and this run does not begin.
    Refuse,
}

/// The open file, which is locked.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal beside `file`, and gives each complete line of it to `take`. A torn last line is removed.
    ///
    /// # Errors
    /// The file cannot be read or written, another process has it, or it has another `fingerprint` and may not be replaced.
    pub(crate) fn open(
        file: &Path,
        fingerprint: Sha256,
        foreign: Foreign,
        take: impl FnMut(&str),
    ) -> io::Result<Self> {
        let path = beside(file);
        let mut file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let what = format!("another kith writes {}: wait for its end", path.display());
                io::Error::other(what)
            }
            TryLockError::Error(error) => error,
        })?;
        let head = format!("kith-progress 2 {fingerprint}");
        match read(&mut file, &head, take)? {
            Some(whole) => file.set_len(whole)?,
            None if foreign == Foreign::Refuse && file.metadata()?.len() > 0 => {
                return Err(io::Error::other(format!(
                    "{} is of another run, with another model or other dimensions: remove it to begin anew",
                    path.display()
                )));
            }
            None => {
                file.set_len(0)?;
                file.write_all(format!("{head}\n").as_bytes())?;
            }
        }
        Ok(Self { path, file })
    }

    /// Adds lines, each with its line break.
    ///
    /// # Errors
    /// The file cannot be written: it may end in a torn line, which the next [`Journal::open`] removes.
    pub(crate) fn add(&mut self, lines: &str) -> io::Result<()> {
        self.file.write_all(lines.as_bytes())
    }

    /// Gives each line to `take`, as [`Journal::open`] does, also if the file has lost its name meanwhile.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn lines(&mut self, take: impl FnMut(&str)) -> io::Result<()> {
        read(&mut self.file, "", take).map(drop)
    }

    /// Removes the file: nothing is left to go on with.
    pub(crate) fn finish(self) {
        // A journal that stays is harmless.
        let _ = fs::remove_file(&self.path);
    }
}

/// Gives the complete lines after the first to `take`; the bytes that they and the first take. `None`: there is no first line that begins with `head`.
fn read(file: &mut File, head: &str, mut take: impl FnMut(&str)) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(0))?;
    let (mut reader, mut line, mut whole) = (BufReader::new(file), Vec::new(), 0);
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)? as u64;
        let text = line.strip_suffix(b"\n");
        let Some(text) = text.and_then(|line| str::from_utf8(line).ok()) else {
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
        let journal = Journal::open(file, Sha256::digest(run), Foreign::Replace, take).unwrap();
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
    fn two_runs_do_not_share_a_journal_and_one_may_refuse_that_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("p.csv");
        let open = |run: &[u8]| {
            let opened = Journal::open(&input, Sha256::digest(run), Foreign::Refuse, |_| ());
            opened.map_err(|error| error.to_string())
        };
        let mut first = open(b"a").unwrap();
        first.add("one\n").unwrap();
        let refused = open(b"a").err().unwrap();
        assert!(refused.contains("another kith writes"), "{refused}");
        drop(first);
        let refused = open(b"b").err().unwrap();
        assert!(refused.contains("remove it to begin anew"), "{refused}");
        let mut lines = 0;
        open(b"a").unwrap().lines(|_| lines += 1).unwrap();
        assert_eq!(lines, 1);
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
