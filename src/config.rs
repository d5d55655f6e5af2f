//! Settings in layers: `config/default.toml` and a preset (both in the binary), a file, `KITH_SECTION__KEY` variables, flags.
//! Unknown keys are errors.

mod error;
mod kinds;
mod layers;
mod presets;
mod settings;
mod tables;
mod validate;

use std::{ffi::OsString, path::Path};

pub use self::{
    error::ConfigError,
    settings::{
        EncoderSection, LogConfig, LogFormat, PairsConfig, ServerConfig, Settings, StorageConfig,
    },
};

impl Settings {
    /// Merges the layers and validates the result. `sets`: `section.key=value` flags, the strongest layer.
    pub fn load(file: Option<&Path>, sets: &[String]) -> Result<Self, ConfigError> {
        Self::from_layers(file, std::env::vars_os(), sets)
    }

    /// [`Settings::load`] with the environment given by the caller.
    pub fn from_layers(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        sets: &[String],
    ) -> Result<Self, ConfigError> {
        let settings = layers::merge(file, environment, sets)?;
        validate::check(&settings)?;
        Ok(settings)
    }
}
