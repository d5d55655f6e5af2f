//! Finds image files in folders, with the reason for each file that is left out.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt,
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
    let mut walk = Walk::default();
    walk.descend(folder, 0)?;
    Ok((walk.images, walk.rest))
}

#[derive(Default)]
struct Walk {
    images: Vec<PathBuf>,
    rest: Vec<String>,
    /// Device and inode of each folder: links may lead to one again.
    seen: HashSet<(u64, u64)>,
}

impl Walk {
    fn descend(&mut self, folder: &Path, depth: usize) -> anyhow::Result<()> {
        let name = folder.display();
        let found = fs::metadata(folder).with_context(|| format!("{name} cannot be listed"))?;
        if !self.seen.insert((found.dev(), found.ino())) {
            self.rest
                .push(format!("{name}: a link to a folder that was searched"));
            return Ok(());
        }
        for path in entries(folder)? {
            if !path.is_dir() {
                match left_out(&path) {
                    None => self.images.push(path),
                    Some(reason) => self.rest.push(reason),
                }
            } else if depth + 1 < MAX_DEPTH {
                self.descend(&path, depth + 1)?;
            } else {
                self.rest
                    .push(format!("{}: too many folders deep", path.display()));
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_to_a_folder_above_are_not_followed_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.png"), "").unwrap();
        for name in ["one", "two"] {
            symlink(".", folder.path().join(name)).unwrap();
        }
        let (images, rest) = walk(folder.path()).unwrap();
        assert_eq!((images.len(), rest.len()), (1, 2), "{rest:?}");
    }
}
