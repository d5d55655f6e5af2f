//! Why an encoder could not be evaluated.

use kith_nn::NnError;

/// Why an encoder could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// An embedding holds NaN or an infinity.
    #[error("its embeddings are not finite")]
    NotFinite,
    /// The encoder failed.
    #[error(transparent)]
    Nn(#[from] NnError),
}
