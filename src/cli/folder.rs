//! Finds image files in folders, with the reason for each file that is left out.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use kith_pixels::EXTENSIONS;

/// Most reasons in a message; the rest is only counted.
const MAX_SHOWN: usize = 10;
/// Most folders within each other that a walk descends.
const MAX_DEPTH: usize = 32;

/// The entries of a folder, sorted by name, without hidden ones.
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

/// Why a path is not an image by its name; `None` if it is. The server decides by the content.
pub(crate) fn left_out(path: &Path) -> Option<String> {
    let name = path.display();
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    if path.is_dir() {
        return Some(format!("{name}: a folder within a sub-folder"));
    }
    if !path.is_file() {
        return Some(format!("{name}: not a file that can be read"));
    }
    let known = EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str());
    (!known).then(|| format!("{name}: its name does not end in {}", EXTENSIONS.join(", ")))
}

/// All image files below a folder, in the order of their paths, and the reasons for the others.
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

/// Prints the files that are left out to standard error.
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
