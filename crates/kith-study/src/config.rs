//! The configuration of one study.

use std::path::{Path, PathBuf};

use super::{Scale, StudyError, StudyKind};
use kith_nn::Device;
use kith_pixels::Limits;

/// Which study runs, on what and where.
#[derive(Clone, Debug)]
pub struct StudyConfig {
    /// The study.
    pub kind: StudyKind,
    /// The preset of its settings.
    pub scale: Scale,
    /// Folder of images; `stationarity` and `cost` do not use it.
    pub images: Option<PathBuf>,
    /// Output folder for points, plots and the summary.
    pub out: PathBuf,
    /// Every series runs once with each seed.
    pub seeds: Vec<u64>,
    /// Overrides of the preset, each `key=value`.
    pub sets: Vec<String>,
    /// Where the encoder runs.
    pub device: Device,
    /// Limits on the images that are decoded.
    pub limits: Limits,
}

impl StudyConfig {
    /// The folder of images, for a study that needs one.
    pub(super) fn images(&self) -> Result<&Path, StudyError> {
        let name = self.kind.name();
        self.images.as_deref().ok_or_else(|| {
            StudyError::config(format!(
                "{name} needs images: name their folder with --images"
            ))
        })
    }
}
