//! Finds image files in folders, and says which files are left out and why.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use kith_pixels::EXTENSIONS;

/// Reasons that one message shows; the rest is only counted.
const MAX_SHOWN: usize = 10;
/// Folders within folders that a walk goes down.
const MAX_DEPTH: usize = 32;

/// What a folder holds, by name; hidden entries are left out.
pub(crate) fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed =
        fs::read_dir(folder).and_then(|listed| listed.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> =
        listed.with_context(|| format!("{} cannot be listed", folder.display()))?;
    paths.retain(|path| {
        !path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'))
    });
    paths.sort();
    Ok(paths)
}

/// Why a path is not taken for an image by its name; `None`: it is. The server looks at the content.
pub(crate) fn left_out(path: &Path) -> Option<String> {
    let name = path.display();
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    if path.is_dir() {
        return Some(format!("{name}: a folder within a thing's folder"));
    }
    if !path.is_file() {
        return Some(format!("{name}: not a file that can be read"));
    }
    let known = EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str());
    (!known).then(|| format!("{name}: its name does not end in {}", EXTENSIONS.join(", ")))
}

/// All image files below a folder, in the order of their paths, and what was left out.
pub(crate) fn walk(folder: &Path) -> anyhow::Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut images, mut rest) = (Vec::new(), Vec::new());
    descend(folder, 0, &mut images, &mut rest)?;
    Ok((images, rest))
}

fn descend(
    folder: &Path,
    depth: usize,
    images: &mut Vec<PathBuf>,
    rest: &mut Vec<String>,
) -> anyhow::Result<()> {
    for path in entries(folder)? {
        if !path.is_dir() {
            match left_out(&path) {
                None => images.push(path),
                Some(reason) => rest.push(reason),
            }
        } else if depth + 1 < MAX_DEPTH {
            descend(&path, depth + 1, images, rest)?;
        } else {
            rest.push(format!("{}: too many folders deep", path.display()));
        }
    }
    Ok(())
}

/// The first reasons of a list, and how many more there are.
pub(crate) fn summary(reasons: &[String]) -> String {
    let mut text = reasons[..reasons.len().min(MAX_SHOWN)].join("; ");
    if reasons.is_empty() {
        text.push_str("nothing");
    }
    if reasons.len() > MAX_SHOWN {
        text.push_str(&format!("; and {} more", reasons.len() - MAX_SHOWN));
    }
    text
}

/// Says on standard error which files of an input are not used.
pub(crate) fn report(reasons: &[String]) {
    if !reasons.is_empty() {
        eprintln!("{} files are left out:", reasons.len());
    }
    for reason in reasons.iter().take(MAX_SHOWN) {
        eprintln!("  {reason}");
    }
    if reasons.len() > MAX_SHOWN {
        eprintln!("  and {} more", reasons.len() - MAX_SHOWN);
    }
}
