//! The answer to a body that broke a limit, carried through libraries that pass errors on without knowing them.

use std::{error::Error, fmt};

use super::error::ApiError;

/// An error of a body that is an answer already.
#[derive(Debug)]
pub(super) struct BodyError(ApiError);

impl From<ApiError> for BodyError {
    fn from(answer: ApiError) -> Self {
        Self(answer)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.problem().message)
    }
}

impl Error for BodyError {}

impl BodyError {
    /// The answer inside `error` or its sources; `None` if the body failed for another reason, such as a lost connection.
    pub(super) fn find(error: &(dyn Error + 'static)) -> Option<ApiError> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(Self(answer)) = error.downcast_ref() {
                return Some(answer.clone());
            }
            next = error.source();
        }
        None
    }
}
