//! The pairs of an input that are stored, in a file beside it, so that an interrupted run can continue. Without the file a run posts
//! everything again, which stores nothing twice.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use crate::types::Sha256;

/// The server's answer about one pair.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// The pair's id.
    pub(crate) id: String,
    pub(crate) duplicate: bool,
    pub(crate) holdout: bool,
}

/// The open file.
pub(crate) struct Journal {
    path: PathBuf,
    /// `None` if it cannot be written; the run continues without it.
    file: Option<File>,
}

impl Journal {
    /// Opens the journal of `input`, and returns the answers in it by the pair's index. A journal with another `fingerprint` is replaced.
    pub(crate) fn open(input: &Path, fingerprint: Sha256) -> (Self, HashMap<usize, Stored>) {
        let path = beside(input);
        let head = format!("kith-progress 1 {fingerprint}\n");
        let old = fs::read_to_string(&path).unwrap_or_default();
        // The last line may be incomplete.
        let whole = &old[..old.rfind('\n').map_or(0, |at| at + 1)];
        let lines = whole.strip_prefix(&head);
        let done = lines
            .into_iter()
            .flat_map(str::lines)
            .filter_map(parse)
            .collect();
        let begun = match lines {
            Some(_) if whole.len() == old.len() => Ok(()),
            Some(_) => replace(&path, whole),
            None => replace(&path, &head),
        };
        let file = begun.and_then(|()| File::options().append(true).open(&path));
        if let Err(error) = &file {
            eprintln!(
                "{} cannot be written ({error}): if this run is interrupted, the next starts from the beginning",
                path.display()
            );
        }
        let file = file.ok();
        (Self { path, file }, done)
    }

    /// Adds answers.
    pub(crate) fn add(&mut self, answered: &[(usize, Stored)]) {
        let lines: String = answered
            .iter()
            .map(|(index, stored)| line(*index, stored))
            .collect();
        // On a full disk the run continues, without a journal.
        if self
            .file
            .as_mut()
            .is_some_and(|file| file.write_all(lines.as_bytes()).is_err())
        {
            self.file = None;
        }
    }

    /// Removes the file, once every pair is answered.
    pub(crate) fn finish(self) {
        // A journal that stays is harmless.
        let _ = fs::remove_file(&self.path);
    }
}

/// Replaces a file atomically.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let next = path.with_extension("kith-progress-next");
    fs::write(&next, text)?;
    fs::rename(&next, path)
}

/// `pairs.csv` → `pairs.csv.kith-progress`, in the same folder.
fn beside(input: &Path) -> PathBuf {
    let input = input.canonicalize().unwrap_or_else(|_| input.to_owned());
    let mut name = input.file_name().unwrap_or_default().to_owned();
    name.push(".kith-progress");
    input.with_file_name(name)
}

fn line(
    index: usize,
    Stored {
        id,
        duplicate,
        holdout,
    }: &Stored,
) -> String {
    format!(
        "{index} {id} {} {}\n",
        u8::from(*duplicate),
        u8::from(*holdout)
    )
}

fn parse(line: &str) -> Option<(usize, Stored)> {
    let mut words = line.split(' ');
    let index = words.next()?.parse().ok()?;
    let id = words.next()?.to_owned();
    let mut flag = || Some(words.next()? == "1");
    let (duplicate, holdout) = (flag()?, flag()?);
    Some((
        index,
        Stored {
            id,
            duplicate,
            holdout,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: &str, duplicate: bool, holdout: bool) -> Stored {
        let id = id.to_owned();
        Stored {
            id,
            duplicate,
            holdout,
        }
    }

    #[test]
    fn a_second_run_knows_what_the_first_was_answered_and_a_torn_line_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (input, mark) = (folder.path().join("p.csv"), Sha256::digest(b"a"));
        let (mut journal, done) = Journal::open(&input, mark);
        assert!(done.is_empty());
        journal.add(&[(3, stored("x", true, false)), (0, stored("y", false, true))]);
        journal.file.as_mut().unwrap().write_all(b"7 z 1").unwrap();
        drop(journal);
        let (mut journal, done) = Journal::open(&input, mark);
        assert_eq!(
            done,
            [(3, stored("x", true, false)), (0, stored("y", false, true))].into()
        );
        journal.add(&[(8, stored("w", false, false))]);
        let (journal, done) = Journal::open(&input, mark);
        assert_eq!(done.len(), 3);
        journal.finish();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_journal_of_another_list_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("p.csv");
        let (mut journal, _) = Journal::open(&input, Sha256::digest(b"a"));
        journal.add(&[(3, stored("x", true, false))]);
        let (_, done) = Journal::open(&input, Sha256::digest(b"b"));
        assert!(done.is_empty());
    }
}
