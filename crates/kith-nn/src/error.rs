//! The errors of this crate.

/// What can go wrong in the encoder.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// A setting or an argument is not valid. The text names it and the valid values.
    #[error("{0}")]
    Config(String),
    /// The device is not there or cannot be used. The text says what to do.
    #[error("{0}")]
    Device(String),
    /// Weights do not fit the network. The text names the array.
    #[error("{0}")]
    Weights(String),
    /// The device's memory does not hold this batch; nothing has changed. The text says what to do.
    #[error("{0}")]
    Memory(String),
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(candle_core::Error),
}

impl From<candle_core::Error> for NnError {
    fn from(error: candle_core::Error) -> Self {
        match &error {
            candle_core::Error::Cuda(cause) if cause.is::<OutOfMemory>() => {
                Self::Memory(cause.to_string())
            }
            _ => Self::Tensor(error),
        }
    }
}

impl NnError {
    /// An error that names the first of the settings that are out of range, if there is one.
    pub(super) fn check_problems(problems: &[(&str, &str)]) -> Result<(), Self> {
        match problems.first() {
            Some((key, must_be)) => Err(Self::Config(format!("{key} must be {must_be}"))),
            None => Ok(()),
        }
    }
}

/// A device has no memory left. Travels through the tensor library's errors.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct OutOfMemory(pub(super) String);
