//! Walks over the folders of a store: its blobs, and the files that unfinished writes left. Symbolic links are never followed.

use std::{fs, io, path::Path, time::Duration};

use super::key::{CHECKPOINTS, IMAGES};
use crate::types::{CheckpointId, Sha256};

/// Whether anything is stored below `root`.
pub(super) fn holds_any(root: &Path) -> io::Result<bool> {
    for kind in [IMAGES, CHECKPOINTS] {
        for folder in folders(&root.join(kind))? {
            if entries(&folder)?.next().is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Removes what cut-off writes left below `root`, and says how many.
pub(super) fn sweep(root: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for kind in [IMAGES, CHECKPOINTS] {
        for folder in folders(&root.join(kind))? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            let ours = |file: &str| match kind {
                IMAGES => is_image(&name, file),
                _ => name.parse::<CheckpointId>().is_ok(),
            };
            swept += sweep_folder(&folder, ours)?;
            if kind == CHECKPOINTS && ours("") {
                // Only an empty folder goes: what a checkpoint leaves whose first part could not be written.
                let _ = fs::remove_dir(&folder);
            }
        }
    }
    Ok(swept)
}

/// The ids of the images in one of the folders of images, files younger than `min_age` left out.
pub(super) fn images(folder: &Path, min_age: Duration) -> io::Result<Vec<Sha256>> {
    let prefix = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut ids = Vec::new();
    for name in files(folder)? {
        let old = || is_older(&folder.join(&name), min_age);
        if is_image(&prefix, &name) && old()? {
            ids.extend(name.parse::<Sha256>());
        }
    }
    Ok(ids)
}

/// One that is gone meanwhile is not.
fn is_older(file: &Path, min_age: Duration) -> io::Result<bool> {
    if min_age.is_zero() {
        return Ok(true);
    }
    match fs::symlink_metadata(file) {
        // A file from the future has no age, and is as good as old.
        Ok(found) => Ok(found
            .modified()?
            .elapsed()
            .map_or(true, |age| age >= min_age)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The names of the files of a folder, ascending; none where there is no such folder.
pub(super) fn files(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in entries(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

/// The folders in `folder`.
pub(super) fn folders(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in entries(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// What a folder holds; nothing where it is missing, or a link to elsewhere.
fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    let is_folder = match fs::symlink_metadata(folder) {
        Ok(found) => found.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    let listed = is_folder.then(|| fs::read_dir(folder)).transpose()?;
    Ok(listed.into_iter().flatten())
}

fn sweep_folder(folder: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut swept = 0;
    for name in files(folder)? {
        if unfinished(&name).is_some_and(&is_ours) {
            fs::remove_file(folder.join(name))?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// The blob's name in the name of an unfinished write, which has a `#` and a number behind it. No blob's own name can hold a `#`.
pub(super) fn unfinished(name: &str) -> Option<&str> {
    let (blob, number) = name.split_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !blob.is_empty()).then_some(blob)
}

/// Whether `name` is that of an image that belongs into `folder`.
fn is_image(folder: &str, name: &str) -> bool {
    name.parse::<Sha256>()
        .is_ok_and(|id| id.to_string() == name && name.get(..2) == Some(folder))
}
