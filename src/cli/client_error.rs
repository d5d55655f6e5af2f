//! Why a request to a server has no usable answer, from its error document where there is one.

use serde::Deserialize;
use serde_json::Value;

/// The code of a 429 that lasts: the key's bytes of the day.
const QUOTA_EXCEEDED: &str = "quota_exceeded";

/// Why a request has no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The server refused the request; a retry would not help.
    #[error("{message} (status {status}, {code})")]
    Refused {
        status: u16,
        code: String,
        message: String,
        /// The field that was wrong.
        param: Option<String>,
    },
    /// Still no answer after all retries.
    #[error("{url} gives no answer ({cause}): is the server running there?")]
    Unreachable { url: String, cause: String },
    /// The answer is not one of kith's.
    #[error("{url} does not answer as kith does ({cause})")]
    NotKith { url: String, cause: String },
}

impl ClientError {
    /// Whether a request of fewer or smaller images might be answered.
    pub(crate) fn is_too_large(&self) -> bool {
        self.has_code(&["body_too_large", "too_many_images"])
    }

    /// Whether the checkpoint that was asked for is not there any more.
    pub(crate) fn is_unknown_checkpoint(&self) -> bool {
        self.has_code(&["unknown_checkpoint"])
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Refused { code, .. } if codes.contains(&&**code))
    }
}

/// Whether the key has sent all that it may for today.
pub(super) fn is_used_up(body: &[u8]) -> bool {
    let document = serde_json::from_slice(body).ok();
    let problem = document.as_ref().and_then(problem);
    problem.is_some_and(|problem| problem.code == QUOTA_EXCEEDED)
}

/// The error of a refused request, from the server's error document if there is one.
pub(super) fn refusal(status: u16, body: &[u8]) -> ClientError {
    let document = serde_json::from_slice(body).ok();
    let problem = document.as_ref().and_then(problem);
    let (code, mut message, param) = match problem {
        Some(problem) => (problem.code, problem.message, problem.param),
        None => (
            "no code".to_owned(),
            String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
            None,
        ),
    };
    if status == 401 {
        message += ". Give a key with --key or the variable KITH_KEY";
    }
    ClientError::Refused {
        status,
        code,
        message,
        param,
    }
}

/// The error of an error document.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Problem {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    r#type: String,
}

impl Problem {
    /// Whether the same request may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        let types = ["rate_limit_error", "server_error", "timeout_error"];
        let temporary = types.contains(&self.r#type.as_str()) || self.code == "invalid_body";
        temporary && self.code != QUOTA_EXCEEDED
    }
}

/// The problem of an `{"error": …}` document.
pub(crate) fn problem(document: &Value) -> Option<Problem> {
    Problem::deserialize(document.get("error")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_that_is_used_up_for_the_day_is_not_tried_again() {
        let body = |code: &str| json!({"error": {"message": "m", "type": "rate_limit_error", "param": null, "code": code}});
        for (code, lasts) in [(QUOTA_EXCEEDED, true), ("rate_limited", false)] {
            assert_eq!(is_used_up(body(code).to_string().as_bytes()), lasts);
            assert_eq!(problem(&body(code)).unwrap().is_temporary(), !lasts);
        }
    }

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let body =
            json!({"error": {"message": "too many", "type": "x", "param": null, "code": "c"}});
        let shown = refusal(413, body.to_string().as_bytes()).to_string();
        assert_eq!(shown, "too many (status 413, c)");
        assert!(refusal(500, b"<html>").to_string().contains("<html>"));
    }
}
