//! `kith checkpoint export`: a checkpoint as files of other programs, with a README beside them. A server may use the data folder.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;

use super::{
    data_folder::DataFolder, export_format::Format, export_readme, settings_args::SettingsArgs,
};
use crate::checkpoint::{MANIFEST, MODEL, Manifest, Model};
use kith_mcmc::Side;
use kith_nn::{NamedArray, arrays_of_side};
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
type Files = Vec<(String, Vec<u8>)>;

/// Writes the files, and prints the folder's name.
pub(crate) async fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let folder = DataFolder::open(&args.settings.load()?).await?;
    let id = folder.find(&args.name).await?;
    let manifest = folder.checkpoints.manifest(id).await?;
    let mut files = files(&folder, &manifest, args.format).await?;
    folder.db.close().await;
    let readme = export_readme::text(&manifest, args.format)?;
    files.push(("README.md".to_owned(), readme.into_bytes()));
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
            let mut files = Files::new();
            for (folder, arrays) in towers(&model) {
                let TorchvisionFiles { network, head } =
                    TorchvisionFiles::new(&model.encoder, &arrays)?;
                files.push((format!("{folder}resnet18.safetensors"), network));
                files.push((format!("{folder}head.safetensors"), head));
            }
            files
        }
        Format::Onnx => {
            let metadata = export_readme::metadata(manifest)?;
            let mut files = Files::new();
            for (folder, arrays) in towers(&model) {
                let graph = onnx(&model.encoder, &arrays, &metadata)?;
                files.push((format!("{folder}model.onnx"), graph));
            }
            files
        }
        Format::Kith => {
            let part = async |name| {
                let bytes = folder.checkpoints.part(manifest.id, name).await?;
                anyhow::Ok((name.to_owned(), bytes.to_vec()))
            };
            vec![part(MODEL).await?, part(MANIFEST).await?]
        }
    })
}

/// The arrays of each encoder, with the folder of its files: none where both sides share one.
fn towers(model: &Model) -> Vec<(&'static str, Vec<NamedArray>)> {
    let own = |side| arrays_of_side(&model.encoder, &model.arrays, side);
    if model.encoder.towers == 1 {
        return vec![("", own(Side::Anchor))];
    }
    vec![
        ("anchor/", own(Side::Anchor)),
        ("positive/", own(Side::Positive)),
    ]
}

/// Writes all files into a new folder, which appears when they are on the disk. What an export that was killed left behind has another name.
fn write(out: &Path, files: &Files) -> anyhow::Result<()> {
    // Without the slash at its end, a name can be extended.
    let out: PathBuf = out.components().collect();
    let Some(name) = out.file_name() else {
        bail!("{} names no new folder", out.display());
    };
    if fs::symlink_metadata(&out).is_ok() {
        bail!(
            "{} is there already: name another folder with --out",
            out.display()
        );
    }
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let written = || {
        fs::create_dir_all(parent)?;
        let partial = new_folder(parent, name)?;
        let filled = fill(&partial, files).and_then(|()| fs::rename(&partial, &out));
        if filled.is_err() {
            // The first error is the one to tell of.
            let _ = fs::remove_dir_all(&partial);
        }
        filled?;
        sync_folder(parent)
    };
    written().with_context(|| format!("{} cannot be written", out.display()))
}

/// A new folder beside the one that is wanted; the first free name.
fn new_folder(parent: &Path, name: &OsStr) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let mut partial = name.to_owned();
        partial.push(format!(".partial-{number}"));
        let partial = parent.join(partial);
        match fs::create_dir(&partial) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            created => return created.map(|()| partial),
        }
    }
}

/// Writes files into a folder and its sub-folders, and all of it to the disk.
fn fill(folder: &Path, files: &Files) -> io::Result<()> {
    for (name, bytes) in files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)?;
        let mut file = File::create(&path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        sync_folder(parent)?;
    }
    sync_folder(folder)
}

/// Writes a folder's entries to the disk, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn readme(text: &[u8]) -> (String, Vec<u8>) {
        ("README.md".to_owned(), text.to_vec())
    }

    #[test]
    fn what_a_killed_export_left_is_not_mixed_in() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        for left in ["out.partial", "out.partial-0"] {
            let left = folder.path().join(left);
            fs::create_dir(&left).unwrap();
            fs::write(left.join("model.onnx"), "half").unwrap();
        }
        write(&out, &vec![readme(b"text")]).unwrap();
        assert_eq!(names(&out), ["README.md"]);
        assert_eq!(fs::read(out.join("README.md")).unwrap(), b"text");
        let left = ["out", "out.partial", "out.partial-0"];
        assert_eq!(names(folder.path()), left);
    }

    #[test]
    fn a_slash_at_the_end_and_missing_parents_are_no_matter() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/b/");
        write(&out, &vec![readme(b"")]).unwrap();
        assert_eq!(names(&folder.path().join("a")), ["b"]);
        let refused = write(&out, &Vec::new()).unwrap_err().to_string();
        assert!(refused.contains("--out"), "{refused}");
        assert!(write(Path::new("/"), &Vec::new()).is_err());
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        // A file is no folder.
        let files = vec![readme(b""), ("README.md/file".to_owned(), Vec::new())];
        write(&out, &files).unwrap_err();
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
