//! The arguments that set settings, which every subcommand that opens a data folder has.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use crate::config::{ConfigError, Settings};

/// A settings file, the data folder, and single settings.
#[derive(Args, Debug, Default)]
pub(crate) struct SettingsArgs {
    /// A settings file over the built-in defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the database, the images and the checkpoints
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Any setting, such as training.batch=16; may be given several times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl SettingsArgs {
    /// The effective settings; named options win over `--set`.
    pub(crate) fn load(&self) -> Result<Settings, ConfigError> {
        self.load_with(None)
    }

    /// As [`SettingsArgs::load`], with one more setting, `section.key=value`, that a subcommand has an option for.
    pub(crate) fn load_with(&self, named: Option<String>) -> Result<Settings, ConfigError> {
        let sets: Vec<String> = self.set.iter().cloned().chain(named).collect();
        let mut settings = Settings::load(self.config.as_deref(), &sets)?;
        if let Some(dir) = &self.data_dir {
            settings.storage.data_dir.clone_from(dir);
        }
        Ok(settings)
    }

    /// The arguments that give another process the same settings.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let paths = [("--config", &self.config), ("--data-dir", &self.data_dir)];
        let paths = paths
            .into_iter()
            .filter_map(|(name, path)| Some([name.into(), path.clone()?.into()]));
        let sets = self.set.iter().map(|set| ["--set".into(), set.into()]);
        paths.chain(sets).flatten().collect()
    }
}
