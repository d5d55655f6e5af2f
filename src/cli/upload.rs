//! Uploads pairs: reads files into lines of NDJSON, posts them, and turns the answers into outcomes.

use std::{
    collections::HashMap,
    fmt::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread::sleep,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    client::{Client, back_off},
    client_error::{ClientError, problem},
    file::read_image,
    pair_list::PairFiles,
    stored::Stored,
};
use crate::types::Sha256;

const UNKNOWN_IMAGE: &str = "unknown_image";

/// The outcome of one pair.
#[derive(Debug)]
pub(crate) enum Outcome {
    Stored(Stored),
    /// The pair was not stored; says why in one sentence.
    Failed(String),
}

/// One pair as a line of NDJSON.
pub(crate) struct Line {
    index: usize,
    text: String,
    /// Files whose bytes it contains.
    sent: Vec<(PathBuf, Sha256)>,
    /// Files that it names by their id.
    named: Vec<PathBuf>,
}

impl Line {
    /// Its bytes in a request.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// Uploads pairs, from several threads.
pub(crate) struct Uploader<'a> {
    client: &'a Client,
    pairs: &'a [PairFiles],
    retries: u32,
    /// Ids of files that the server has, whose bytes are not sent again.
    stored: Mutex<HashMap<PathBuf, Sha256>>,
}

impl<'a> Uploader<'a> {
    pub(crate) fn new(client: &'a Client, pairs: &'a [PairFiles], retries: u32) -> Self {
        let stored = Mutex::default();
        Self {
            client,
            pairs,
            retries,
            stored,
        }
    }

    /// Reads the files of a pair that the server does not have; the error names the file.
    pub(crate) fn line(&self, index: usize) -> Result<Line, String> {
        let pair = &self.pairs[index];
        let mut line = Line {
            index,
            text: String::new(),
            sent: Vec::new(),
            named: Vec::new(),
        };
        let mut document = json!({"anchor": self.side(&pair.anchor, &mut line)?});
        if let Some(positive) = &pair.positive {
            document["positive"] = self.side(positive, &mut line)?;
        }
        if let Some(group) = &pair.group {
            document["group"] = json!(group);
        }
        if let Some(weight) = pair.weight {
            document["weight"] = json!(weight.value());
        }
        writeln!(line.text, "{document}").map_err(|error| error.to_string())?;
        Ok(line)
    }

    fn side(&self, path: &Path, line: &mut Line) -> Result<Value, String> {
        if let Some(id) = self.stored().get(path) {
            line.named.push(path.to_owned());
            return Ok(json!({"id": id.to_string()}));
        }
        let bytes = read_image(path).map_err(|error| format!("{}: {error}", path.display()))?;
        line.sent.push((path.to_owned(), Sha256::digest(&bytes)));
        Ok(json!({"image": STANDARD.encode(bytes)}))
    }

    /// Sends lines until each has its outcome. An error means that the server does not answer.
    pub(crate) fn post(&self, mut open: Vec<Line>) -> Result<Vec<(usize, Outcome)>, ClientError> {
        let mut outcomes = Vec::with_capacity(open.len());
        let mut attempt = 0;
        while !open.is_empty() {
            let body: String = open.iter().map(|line| line.text.as_str()).collect();
            let answers = self.client.stream("/v1/pairs", &body)?;
            let before = open.len();
            // A stream that ended early has lines without an answer.
            let mut again = open.split_off(answers.len().min(before));
            for (line, answer) in open.into_iter().zip(&answers) {
                let index = line.index;
                match self.outcome(line, answer) {
                    Ok(outcome) => outcomes.push((index, outcome)),
                    Err(line) => again.push(line),
                }
            }
            open = again;
            if open.len() == before {
                if attempt >= self.retries {
                    outcomes.extend(self.give_up(open, &answers)?);
                    break;
                }
                sleep(back_off(attempt));
                attempt += 1;
            }
        }
        Ok(outcomes)
    }

    /// The outcomes of lines that failed at every attempt; an error if the server gave no reason.
    fn give_up(
        &self,
        open: Vec<Line>,
        answers: &[Value],
    ) -> Result<Vec<(usize, Outcome)>, ClientError> {
        let Some(problem) = answers.first().and_then(problem) else {
            return Err(ClientError::Unreachable {
                url: self.client.base().to_owned(),
                cause: "its answers are incomplete".to_owned(),
            });
        };
        let failed = open
            .into_iter()
            .map(|line| (line.index, Outcome::Failed(problem.message.clone())));
        Ok(failed.collect())
    }

    /// The outcome in an answer; an error with the line if it should be sent again.
    fn outcome(&self, line: Line, answer: &Value) -> Result<Outcome, Line> {
        let Some(problem) = problem(answer) else {
            self.stored().extend(line.sent);
            let flag = |name: &str| answer[name].as_bool().unwrap_or_default();
            return Ok(Outcome::Stored(Stored {
                id: answer["id"].as_str().unwrap_or_default().to_owned(),
                duplicate: flag("duplicate"),
                holdout: flag("holdout"),
            }));
        };
        if problem.is_temporary() {
            return Err(line);
        }
        if problem.code == UNKNOWN_IMAGE && !line.named.is_empty() {
            // The image was deleted meanwhile: its bytes are sent again.
            self.stored().retain(|path, _| !line.named.contains(path));
            return self
                .line(line.index)
                .map_or_else(|cause| Ok(Outcome::Failed(cause)), Err);
        }
        let pair = &self.pairs[line.index];
        let file = match problem.param.as_deref() {
            Some(param) if param.starts_with("positive") => pair.positive.as_ref(),
            Some(param) if param.starts_with("anchor") => Some(&pair.anchor),
            _ => None,
        };
        let file = file.map(|path| format!("{}: ", path.display()));
        Ok(Outcome::Failed(format!(
            "{}{}",
            file.unwrap_or_default(),
            problem.message
        )))
    }

    fn stored(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Sha256>> {
        // Entries are whole whatever happened to the thread that held it.
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
