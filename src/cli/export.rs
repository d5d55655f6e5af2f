//! `kith checkpoint export`: a checkpoint as files of other programs, with a README beside them. A server may use the data folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;

use super::{
    data_folder::DataFolder, export_format::Format, export_readme, settings_args::SettingsArgs,
};
use crate::checkpoint::{MANIFEST, MODEL, Manifest};
use kith_weights::{TorchvisionFiles, onnx};

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// live, latest, or an id
    #[arg(value_name = "NAME")]
    name: String,
    /// The form of the files
    #[arg(long, value_enum)]
    format: Format,
    /// A folder that does not exist yet (default: kith-ID-FORMAT here)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// The files of an export: names and bytes.
type Files = Vec<(&'static str, Vec<u8>)>;

/// Writes the files, and prints the folder's name.
pub(crate) async fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let folder = DataFolder::open(&args.settings.load()?).await?;
    let id = folder.find(&args.name).await?;
    let manifest = folder.checkpoints.manifest(id).await?;
    let mut files = files(&folder, &manifest, args.format).await?;
    folder.db.close().await;
    let readme = export_readme::text(&manifest, args.format)?;
    files.push(("README.md", readme.into_bytes()));
    let name = format!("kith-{id}-{}", args.format.name());
    let out = args.out.clone().unwrap_or_else(|| name.into());
    write(&out, &files)?;
    println!("{}", out.display());
    Ok(())
}

async fn files(folder: &DataFolder, manifest: &Manifest, format: Format) -> anyhow::Result<Files> {
    // Verified against its hash, whatever becomes of it.
    let model = folder.checkpoints.load_model(manifest.id).await?;
    Ok(match format {
        Format::Torchvision => {
            let TorchvisionFiles { network, head } =
                TorchvisionFiles::new(&model.encoder, &model.arrays)?;
            vec![
                ("resnet18.safetensors", network),
                ("head.safetensors", head),
            ]
        }
        Format::Onnx => {
            let metadata = export_readme::metadata(manifest)?;
            let graph = onnx(&model.encoder, &model.arrays, &metadata)?;
            vec![("model.onnx", graph)]
        }
        Format::Kith => {
            let part = async |name| {
                let bytes = folder.checkpoints.part(manifest.id, name).await?;
                anyhow::Ok(bytes.to_vec())
            };
            vec![
                (MODEL, part(MODEL).await?),
                (MANIFEST, part(MANIFEST).await?),
            ]
        }
    })
}

/// Writes all files into a new folder, which appears when it is complete.
fn write(out: &Path, files: &Files) -> anyhow::Result<()> {
    if out.exists() {
        bail!(
            "{} is there already: name another folder with --out",
            out.display()
        );
    }
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = || {
        fs::create_dir_all(&partial)?;
        for (name, bytes) in files {
            fs::write(partial.join(name), bytes)?;
        }
        fs::rename(&partial, out)
    };
    written().with_context(|| format!("{} cannot be written", out.display()))
}
