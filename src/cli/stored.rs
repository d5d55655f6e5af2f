//! The server's answers about pairs, as lines of a run's journal. Without the journal a run posts everything again, which stores nothing twice.

use std::{collections::HashMap, path::Path};

use super::journal::{Foreign, Journal};
use crate::types::Sha256;

/// The server's answer about one pair.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// The pair's id.
    pub(crate) id: String,
    pub(crate) duplicate: bool,
    pub(crate) holdout: bool,
}

/// The pairs of an input that are stored, by their index.
pub(crate) struct StoredPairs {
    /// `None` if it cannot be written; the run continues without it.
    journal: Option<Journal>,
}

impl StoredPairs {
    /// Those of earlier runs with the same `fingerprint`, and where to add others.
    pub(crate) fn open(input: &Path, fingerprint: Sha256) -> (Self, HashMap<usize, Stored>) {
        let mut done = HashMap::new();
        let journal = Journal::open(input, fingerprint, Foreign::Replace, |line| {
            done.extend(parse(line));
        });
        if let Err(error) = &journal {
            eprintln!(
                "no journal can be written beside {} ({error}): if this run is interrupted, the next starts from the beginning",
                input.display()
            );
        }
        let journal = journal.ok();
        (Self { journal }, done)
    }

    /// Adds answers.
    pub(crate) fn add(&mut self, answered: &[(usize, Stored)]) {
        let lines: String = answered
            .iter()
            .map(|(index, stored)| line(*index, stored))
            .collect();
        // On a full disk the run continues, without a journal.
        self.journal.take_if(|journal| journal.add(&lines).is_err());
    }

    /// Removes the journal, once every pair is answered.
    pub(crate) fn finish(self) {
        if let Some(journal) = self.journal {
            journal.finish();
        }
    }
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

    #[test]
    fn a_second_run_knows_what_the_first_was_answered() {
        let folder = tempfile::tempdir().unwrap();
        let (input, run) = (folder.path().join("p.csv"), Sha256::digest(b"a"));
        let stored = |id: &str, duplicate, holdout| Stored {
            id: id.to_owned(),
            duplicate,
            holdout,
        };
        let answered = [(3, stored("x", true, false)), (0, stored("y", false, true))];
        let (mut pairs, done) = StoredPairs::open(&input, run);
        assert!(done.is_empty());
        pairs.add(&answered);
        drop(pairs);
        let (_, done) = StoredPairs::open(&input, run);
        assert_eq!(done, answered.into());
    }
}
