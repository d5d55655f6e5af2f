//! The client of a running server: answers are JSON, and requests are retried while the server is busy or restarting.

use std::{io::Read, thread::sleep, time::Duration};

use serde_json::Value;
use ureq::{Agent, Body, RequestBuilder, http::Response};

use super::{
    client_error::{ClientError, is_used_up, refusal},
    server_args::ServerArgs,
};

/// Most bytes of an answer; 64 embeddings are far below it.
const MAX_BYTES: u64 = 256 << 20;
/// For a whole request: waiting for a snapshot may take long.
const TIMEOUT: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a probe, which an orchestrator repeats anyway.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The body of a request.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    Json(&'a Value),
    /// JSON documents, one a line.
    Lines(&'a str),
    /// A file, whose type the server finds out.
    Bytes(&'a [u8]),
}

/// A client of one server, for use from several threads.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    retries: u32,
    /// `Bearer KEY`.
    authorization: Option<String>,
}

#[derive(Clone, Copy)]
enum Call<'a> {
    Get,
    Delete,
    Patch(&'a Value),
    Post(Payload<'a>),
    Put(&'a Value),
}

/// Why an attempt failed.
enum AttemptError {
    /// A retry may succeed, after the server's `retry-after` if it sent one.
    Retry {
        cause: String,
        after: Option<Duration>,
    },
    Final(ClientError),
}

impl Client {
    pub(crate) fn new(args: &ServerArgs) -> Self {
        Self::with_timeout(args, args.retries(), TIMEOUT)
    }

    /// A client with a short timeout that does not retry by default.
    pub(crate) fn probe(args: &ServerArgs) -> Self {
        Self::with_timeout(args, args.retries_of_probe(), PROBE_TIMEOUT)
    }

    fn with_timeout(args: &ServerArgs, retries: u32, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT.min(timeout)))
            .timeout_global(Some(timeout));
        Self {
            agent: config.build().new_agent(),
            base: args.base().to_owned(),
            retries,
            authorization: args.authorization(),
        }
    }

    /// The server's address, without a slash at its end.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(path, Call::Get)
    }

    pub(crate) fn post(&self, path: &str, document: &Value) -> Result<Value, ClientError> {
        self.json(path, Call::Post(Payload::Json(document)))
    }

    pub(crate) fn patch(&self, path: &str, document: &Value) -> Result<Value, ClientError> {
        self.json(path, Call::Patch(document))
    }

    pub(crate) fn put(&self, path: &str, document: &Value) -> Result<Value, ClientError> {
        self.json(path, Call::Put(document))
    }

    /// Posts a file.
    pub(crate) fn post_bytes(&self, path: &str, bytes: &[u8]) -> Result<Value, ClientError> {
        self.json(path, Call::Post(Payload::Bytes(bytes)))
    }

    /// An answer that is no JSON.
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        self.answer(path, Call::Get)
    }

    /// Opens a stream of events, after the one with the id `last`. It lasts until the server or the network ends it, or until nothing came for
    /// `silence`, which also bounds the wait for the answer to begin.
    pub(crate) fn follow(
        &self,
        path: &str,
        last: Option<&str>,
        silence: Duration,
    ) -> Result<impl Read + use<>, ClientError> {
        let request = self.with_key(self.agent.get(format!("{}{path}", self.base)));
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        let limits = request.config().timeout_global(None);
        let limits = limits.timeout_recv_response(Some(silence));
        let answer = limits.timeout_per_read(Some(silence)).build().call();
        let mut answer = answer.map_err(|error| match self.attempt_error(error) {
            AttemptError::Final(error) => error,
            AttemptError::Retry { cause, .. } => self.unreachable(cause),
        })?;
        match answer.status().as_u16() {
            200 if is_stream(&answer) => Ok(answer.into_body().into_reader()),
            200 => Err(ClientError::NotKith {
                url: self.base.clone(),
                cause: "the answer is no stream of events".to_owned(),
            }),
            status => {
                let body = read(&mut answer).unwrap_or_default();
                let refused = refusal(status, &body);
                Err(match status {
                    429 | 502..=504 => self.unreachable(refused.to_string()),
                    _ => refused,
                })
            }
        }
    }

    fn unreachable(&self, cause: String) -> ClientError {
        ClientError::Unreachable {
            url: self.base.clone(),
            cause,
        }
    }

    pub(crate) fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.answer(path, Call::Delete).map(drop)
    }

    /// Posts lines, and returns one document for each line of the answer.
    pub(crate) fn stream(&self, path: &str, lines: &str) -> Result<Vec<Value>, ClientError> {
        let body = self.answer(path, Call::Post(Payload::Lines(lines)))?;
        let lines = body.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let documents = lines.map(serde_json::from_slice);
        // An incomplete last line counts as missing.
        Ok(documents.map_while(Result::ok).collect())
    }

    fn json(&self, path: &str, call: Call) -> Result<Value, ClientError> {
        let body = self.answer(path, call)?;
        serde_json::from_slice(&body).map_err(|error| ClientError::NotKith {
            url: self.base.clone(),
            cause: error.to_string(),
        })
    }

    fn answer(&self, path: &str, call: Call) -> Result<Vec<u8>, ClientError> {
        let mut attempt = 0;
        loop {
            match self.attempt(path, call) {
                Ok(body) => return Ok(body),
                Err(AttemptError::Final(error)) => return Err(error),
                Err(AttemptError::Retry { cause, .. }) if attempt >= self.retries => {
                    return Err(self.unreachable(cause));
                }
                Err(AttemptError::Retry { after, .. }) => {
                    sleep(after.unwrap_or_else(|| back_off(attempt)));
                }
            }
            attempt += 1;
        }
    }

    fn attempt(&self, path: &str, call: Call) -> Result<Vec<u8>, AttemptError> {
        let url = format!("{}{path}", self.base);
        let agent = &self.agent;
        let answer = match call {
            Call::Get => self.with_key(agent.get(&url)).call(),
            Call::Delete => self.with_key(agent.delete(&url)).call(),
            Call::Patch(document) => self.with_key(agent.patch(&url)).send_json(document),
            Call::Put(document) => self.with_key(agent.put(&url)).send_json(document),
            Call::Post(payload) => {
                let request = self.with_key(agent.post(&url));
                match payload {
                    Payload::Json(document) => request.send_json(document),
                    Payload::Lines(lines) => {
                        request.content_type("application/x-ndjson").send(lines)
                    }
                    Payload::Bytes(bytes) => {
                        request.content_type("application/octet-stream").send(bytes)
                    }
                }
            }
        };
        let mut answer = answer.map_err(|error| self.attempt_error(error))?;
        let body = read(&mut answer).map_err(|error| AttemptError::Retry {
            cause: error.to_string(),
            after: None,
        })?;
        match answer.status().as_u16() {
            200..300 => Ok(body),
            // Hours may pass until it is refilled.
            429 if is_used_up(&body) => Err(AttemptError::Final(refusal(429, &body))),
            status @ (429 | 502..=504) => Err(AttemptError::Retry {
                cause: refusal(status, &body).to_string(),
                after: retry_after(&answer),
            }),
            status => Err(AttemptError::Final(refusal(status, &body))),
        }
    }

    fn with_key<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(bearer) => request.header("authorization", bearer),
            None => request,
        }
    }

    fn attempt_error(&self, error: ureq::Error) -> AttemptError {
        use ureq::Error::{BadUri, Http, RequireHttpsOnly};
        let cause = error.to_string();
        match error {
            BadUri(_) | Http(_) | RequireHttpsOnly(_) => {
                AttemptError::Final(ClientError::NotKith {
                    url: self.base.clone(),
                    cause,
                })
            }
            _ => AttemptError::Retry { cause, after: None },
        }
    }
}

/// The wait before retry `attempt`, counted from 0: doubles from a quarter of a second to ten seconds.
pub(crate) fn back_off(attempt: u32) -> Duration {
    (FIRST_WAIT * (1 << attempt.min(10))).min(MAX_WAIT)
}

/// Reads the whole body, so that the connection can be reused.
fn read(answer: &mut Response<Body>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let config = answer.body_mut().with_config();
    config.limit(MAX_BYTES).reader().read_to_end(&mut body)?;
    Ok(body)
}

fn is_stream(answer: &Response<Body>) -> bool {
    let media = answer.headers().get("content-type");
    media.is_some_and(|media| media.as_bytes().starts_with(b"text/event-stream"))
}

/// The wait that the server asks for.
fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let text = answer.headers().get("retry-after")?.to_str().ok()?;
    let wait = Duration::from_secs(text.trim().parse().ok()?);
    Some(wait.clamp(FIRST_WAIT, MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_stay_there() {
        let waits: Vec<_> = (0..8)
            .map(|attempt| back_off(attempt).as_millis())
            .collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(back_off(u32::MAX), MAX_WAIT);
    }
}
