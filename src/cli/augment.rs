//! `kith augment`: what training's alterations make of images, on a sheet to look at.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, builder::PossibleValuesParser};

use super::{
    file::{read_image, refuse_inputs},
    image_files::image_files,
    settings_args::SettingsArgs,
};
use crate::config::Settings;
use kith_pixels::{DecodedImage, Preset, Sheet, augment, decode_keeping_alpha, encode_png, fit};
use kith_seed::mix;

/// Most pixels of a sheet: 96 MiB in memory.
const MAX_PIXELS: usize = 1 << 25;

#[derive(Args, Debug)]
pub(crate) struct AugmentArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a sheet with a row an image: the image as serving sees it, then views as training sees them
    Preview(PreviewArgs),
}

#[derive(Args, Debug)]
struct PreviewArgs {
    #[arg(required = true, value_name = "IMAGE|FOLDER|LIST")]
    images: Vec<PathBuf>,
    /// The PNG to write: a name that ends with .png
    #[arg(long, alias = "out", value_name = "FILE")]
    output: PathBuf,
    /// The preset, as augment.preset
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Preset::ALL.map(Preset::name)))]
    preset: Option<String>,
    /// Views of each image
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=32))]
    views: u64,
    /// Seed of the views
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(crate) fn run(args: &AugmentArgs) -> anyhow::Result<()> {
    let Action::Preview(args) = &args.action;
    let settings = args.settings.load_with(args.preset_setting())?;
    let files = image_files(&args.images)?;
    let output = &args.output;
    ensure!(
        output
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("png")),
        "{} is no name of a PNG, which is what is written: let --output end with .png",
        output.display()
    );
    refuse_inputs(output, &files)?;
    let image = args.sheet(&settings, &files)?;
    fs::write(output, encode_png(&image))
        .with_context(|| format!("{} cannot be written", output.display()))?;
    println!(
        "{}: {} views of {} images, {} x {} pixels",
        output.display(),
        args.views,
        files.len(),
        image.width,
        image.height
    );
    Ok(())
}

impl PreviewArgs {
    fn preset_setting(&self) -> Option<String> {
        let preset = self.preset.as_ref();
        preset.map(|name| format!("augment.preset={name}"))
    }

    fn sheet(&self, settings: &Settings, files: &[PathBuf]) -> anyhow::Result<DecodedImage> {
        let side = settings.encoder.side;
        let columns = self.views as usize + 1;
        let [width, height] = Sheet::size(side, columns, files.len());
        ensure!(
            width.saturating_mul(height) <= MAX_PIXELS,
            "a sheet of {width} x {height} pixels is too large: name fewer of the {} images, or a smaller --views or encoder.side",
            files.len()
        );
        let mut sheet = Sheet::new(side, columns, files.len());
        for (row, file) in files.iter().enumerate() {
            let image = decoded(file, settings)?;
            sheet.put(row * columns, &fit(&image, side));
            for view in 1..columns {
                let seed = mix(&[self.seed, row as u64, view as u64]);
                let pixels = augment(&image, side, &settings.augment, seed);
                sheet.put(row * columns + view, &pixels);
            }
        }
        Ok(sheet.into_image())
    }
}

fn decoded(file: &Path, settings: &Settings) -> anyhow::Result<DecodedImage> {
    let cannot = || format!("{} cannot be read", file.display());
    let bytes = read_image(file).with_context(cannot)?;
    decode_keeping_alpha(&bytes, &settings.limits).with_context(cannot)
}
