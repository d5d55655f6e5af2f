//! The starter encoder that comes with the program (`docs/starter.md`), if it was built with the feature `starter`.

use super::{Weights, WeightsError};
#[cfg(feature = "starter")]
use super::{file::hex, safetensors_file::SafetensorsFile};

/// Width of the starter encoder's network.
pub const STARTER_WIDTH: usize = 64;

/// The starter encoder; `None`: this program was built without it.
///
/// # Errors
/// None is known: the file is part of the program.
#[cfg(feature = "starter")]
pub fn starter() -> Result<Option<Weights>, WeightsError> {
    use sha2::Digest;
    let bytes = include_bytes!("../starter.safetensors");
    let sha256 = hex(&sha2::Sha256::digest(bytes));
    let mut file = SafetensorsFile::new(bytes.to_vec())?;
    Ok(Some(Weights::from_source(&mut file, sha256, None)?))
}

/// The starter encoder; `None`: this program was built without it.
///
/// # Errors
/// None.
#[cfg(not(feature = "starter"))]
pub fn starter() -> Result<Option<Weights>, WeightsError> {
    Ok(None)
}
