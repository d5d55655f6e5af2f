//! The text of a key: `kith_` and 256 random bits.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::types::Sha256;

/// What every key begins with, so that people and scanners for leaked secrets recognise one.
const PREFIX: &str = "kith_";
const BYTES: usize = 32;

/// A key's text. It is shown once, and never in a log: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new key, from the operating system's random numbers.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The text, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it. Nobody guesses 256 random bits, so the hash needs neither salt nor rounds.
    pub(super) fn sha256(&self) -> Sha256 {
        Sha256::digest(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_recognisable_long_and_hidden_from_logs() {
        let (a, b) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert!(a.reveal().starts_with(PREFIX) && a != b);
        let bits = URL_SAFE_NO_PAD.decode(&a.reveal()[PREFIX.len()..]).unwrap();
        assert_eq!(bits.len(), BYTES);
        assert_eq!(format!("{a:?}"), "kith_…");
    }
}
