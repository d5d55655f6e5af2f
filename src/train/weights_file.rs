//! A file of weights that was read and tried: it has the width of the settings, and its features are finite.

use std::path::Path;

use super::error::TrainError;
use crate::checkpoint::{CheckpointError, probe};
use kith_nn::{Device, EncoderConfig, NamedArray, NnError, Towers, arrays_of_towers};
use kith_weights::{Projection, Weights, printable};

/// The weights of a file, for a first checkpoint or an import.
pub struct WeightsFile {
    pub(super) weights: Weights,
    /// The file's name without its folder, printable.
    pub(super) name: String,
}

impl WeightsFile {
    /// Reads a file for an encoder of that shape, and tries its network on `device`.
    ///
    /// # Errors
    /// [`TrainError::Invalid`] says what is wrong with the file; or a failure of the device.
    pub async fn open(
        path: &Path,
        encoder: &EncoderConfig,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let (path, encoder, device) = (path.to_owned(), encoder.clone(), device.clone());
        blocking(move || Self::read(&path, &encoder, &device)).await?
    }

    /// [`WeightsFile::open`] on this thread.
    pub(super) fn read(
        path: &Path,
        encoder: &EncoderConfig,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let shown = printable(&path.to_string_lossy());
        let weights = Weights::read_width(path, encoder.width);
        let weights = weights.map_err(|error| invalid(&format_args!("{shown}: {error}")))?;
        if weights.holds_two() && encoder.towers == 1 {
            return Err(invalid(&format_args!(
                "{shown}: it holds an encoder for each side: set encoder.towers to 2"
            )));
        }
        let projection = weights.projection(encoder.dim);
        let arrays = arrays_of_each(weights.clone(), projection, encoder);
        let finite = has_finite_features(encoder, &arrays, device);
        if !finite.map_err(CheckpointError::from)? {
            return Err(invalid(&format_args!("{shown}: {NOT_FINITE}")));
        }
        Ok(Self {
            weights,
            name: name(path),
        })
    }
}

/// What is said of weights that [`has_finite_features`] denies.
pub(super) const NOT_FINITE: &str =
    "its weights are finite, but the features that they give are not";

/// The arrays of all encoders that `config` asks for, as [`Towers::to_arrays`] names them. Two have the same weights, unless the file holds two networks.
pub(super) fn arrays_of_each(
    mut weights: Weights,
    projection: Projection,
    config: &EncoderConfig,
) -> Vec<NamedArray> {
    let positive = weights.take_positive();
    let anchor = weights.into_arrays(projection);
    let second = (config.towers > 1).then(|| match positive {
        Some(weights) => {
            let projection = weights.projection(config.dim);
            weights.into_arrays(projection)
        }
        None => anchor.clone(),
    });
    arrays_of_towers([Some(anchor), second].into_iter().flatten())
}

/// Whether encoders with `arrays` give finite features and a finite embedding for a probe image: finite weights may still overflow on the way.
pub(super) fn has_finite_features(
    config: &EncoderConfig,
    arrays: &[NamedArray],
    device: &Device,
) -> Result<bool, NnError> {
    let towers = Towers::from_arrays(config, arrays, device)?;
    for (_, encoder) in towers.each() {
        let found = encoder.forward(&probe(config.side))?;
        let mut values = found.hidden.data.iter().chain(&found.embedding.data);
        if !values.all(|value| value.is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    printable(&name.to_string_lossy())
}

/// Why first weights cannot be used.
pub(super) fn invalid(what: &dyn std::fmt::Display) -> TrainError {
    TrainError::Invalid(format!("the first weights: {what}"))
}

/// Runs `work` off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TrainError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(TrainError::Stopped),
    }
}
