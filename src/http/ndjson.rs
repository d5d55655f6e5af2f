//! `POST /v1/pairs` as a stream: one pair a line in, one result a line out, in order, whatever the number of lines.
//! What is held at a time is one line more than the lines that have arrived together. A line that fails says so in its place and the stream goes on.

use std::{collections::VecDeque, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use serde_json::Value;

use super::{
    budget::Charge,
    context::Context,
    error::{ApiError, Problem},
    incoming::refusal,
    json::json,
    mapping::stopping,
    pair_request::PairDocument,
    pairs::Pair,
};
use crate::ingest::PairUpload;

/// Whether a request's body is a stream of lines.
pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    text.is_some_and(|text| {
        text.trim_start()
            .to_ascii_lowercase()
            .starts_with("application/x-ndjson")
    })
}

/// Answers at once with 200; the results follow as the lines come.
/// `charge` is what the body is charged to; bytes whose lines are stored are given back.
pub(super) fn answer(context: Context, charge: Charge, body: Body) -> Response {
    let server = &context.app.settings.server;
    let lines = Lines {
        body: body.into_data_stream(),
        charge,
        buffer: BytesMut::new(),
        used: 0,
        scanned: 0,
        ended: false,
        max_line: server.max_body_bytes,
        most: server.max_pairs,
        patience: Duration::from_secs(server.timeout_seconds),
    };
    let results = stream::unfold(Some((context, lines)), |state| async move {
        let (context, mut lines) = state?;
        match lines.next(&context).await {
            Ok(batch) if batch.is_empty() => None,
            Ok(batch) => {
                let results = store(&context, batch).await;
                Some((results, Some((context, lines))))
            }
            // The stream cannot be followed any more: a last line says why.
            Err(error) => Some((line(&error.to_value()), None)),
        }
    });
    let body = Body::from_stream(results.map(Ok::<_, std::convert::Infallible>));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Cuts a body into lines.
struct Lines {
    body: BodyDataStream,
    charge: Charge,
    buffer: BytesMut,
    /// Bytes of the lines that were given last.
    used: usize,
    /// Bytes of the buffer that are known to hold no line break.
    scanned: usize,
    ended: bool,
    /// Most bytes of a line.
    max_line: usize,
    /// Most lines given at once.
    most: usize,
    /// How long the next bytes may take.
    patience: Duration,
}

impl Lines {
    /// Waits for a line, then gives all that are there, at most `most`. Blank ones are skipped. Empty: the stream has ended.
    async fn next(&mut self, context: &Context) -> Result<Vec<Bytes>, ApiError> {
        // Whoever asks for more is done with the lines that were given before.
        self.charge.release(std::mem::take(&mut self.used));
        let mut stopped = context.stopping.clone();
        loop {
            let lines = self.complete();
            if !lines.is_empty() || self.ended {
                return Ok(lines);
            }
            if self.buffer.len() > self.max_line {
                let message = "a line is longer than server.max_body_bytes: send smaller images";
                return Err(ApiError::TooLarge(Problem::new("line_too_large", message)));
            }
            tokio::select! {
                more = self.read() => more?,
                // While nobody can make the server stop, its receiver has no sender: then this branch must not be taken.
                Ok(_) = stopped.wait_for(|stop| *stop) => return Err(stopping()),
            }
        }
    }

    async fn read(&mut self) -> Result<(), ApiError> {
        match tokio::time::timeout(self.patience, self.body.next()).await {
            Ok(Some(Ok(chunk))) => self.buffer.extend_from_slice(&chunk),
            Ok(None) => self.ended = true,
            Ok(Some(Err(error))) => {
                return Err(refusal(&error).unwrap_or_else(|| {
                    let message = "the body broke off: send the lines that have no result again";
                    ApiError::BadRequest(Problem::new("invalid_body", message))
                }));
            }
            Err(_) => {
                let message =
                    "no line came for server.timeout_seconds: send the rest in a new request";
                return Err(ApiError::Timeout(Problem::new("timeout", message)));
            }
        }
        Ok(())
    }

    /// The lines in the buffer; at the end of the body its last one needs no line break.
    fn complete(&mut self) -> Vec<Bytes> {
        let mut lines = Vec::new();
        while lines.len() < self.most {
            let Some(line) = self.cut() else { break };
            self.used += line.len();
            if !line.trim_ascii().is_empty() {
                lines.push(line);
            }
        }
        lines
    }

    fn cut(&mut self) -> Option<Bytes> {
        let found = self.buffer[self.scanned..]
            .iter()
            .position(|byte| *byte == b'\n');
        match found {
            Some(at) => {
                let line = self.buffer.split_to(self.scanned + at + 1).freeze();
                self.scanned = 0;
                Some(line)
            }
            None if self.ended && !self.buffer.is_empty() => {
                self.scanned = 0;
                Some(self.buffer.split().freeze())
            }
            None => {
                self.scanned = self.buffer.len();
                None
            }
        }
    }
}

/// Stores the pairs of some lines together; if that fails, one by one, so that each line has its own result.
async fn store(context: &Context, batch: Vec<Bytes>) -> Bytes {
    let max_bytes = context.app.settings.limits.max_bytes;
    let parsed = tokio::task::spawn_blocking(move || -> Vec<Result<PairUpload, ApiError>> {
        let read = |line: &Bytes| json::<PairDocument>(line)?.upload(max_bytes, "");
        batch.iter().map(read).collect()
    });
    let parsed = match parsed.await {
        Ok(parsed) => parsed,
        Err(panic) => return line(&ApiError::internal(panic).to_value()),
    };
    let good: Vec<PairUpload> = parsed
        .iter()
        .filter_map(|pair| pair.as_ref().ok())
        .cloned()
        .collect();
    let together = context.app.ingest.add_pairs(good).await;
    let mut together: Option<VecDeque<_>> = together.ok().map(VecDeque::from);
    let mut results = BytesMut::new();
    for pair in parsed {
        let result = match (pair, &mut together) {
            (Err(error), _) => Err(error),
            (Ok(_), Some(stored)) => stored
                .pop_front()
                .map(Pair::posted)
                .ok_or_else(|| ApiError::internal("a pair has no row")),
            (Ok(pair), None) => alone(context, pair).await,
        };
        results.extend_from_slice(&match result {
            Ok(pair) => line(&serde_json::json!(pair)),
            Err(error) => line(&error.to_value()),
        });
    }
    results.freeze()
}

async fn alone(context: &Context, pair: PairUpload) -> Result<Pair, ApiError> {
    let stored = context.app.ingest.add_pairs(vec![pair]).await;
    let mut stored = stored.map_err(|error| without_index(error.into()))?;
    stored
        .pop()
        .map(Pair::posted)
        .ok_or_else(|| ApiError::internal("a pair has no row"))
}

/// A line is one pair, so its fields have no `pairs[0].` before them.
fn without_index(error: ApiError) -> ApiError {
    let param = error.problem().param.as_deref();
    match param
        .and_then(|param| param.strip_prefix("pairs[0]."))
        .map(str::to_owned)
    {
        Some(field) => error.at(field),
        None => error,
    }
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}
