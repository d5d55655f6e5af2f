//! Facts about files from the operating system: which file a path names now, whether an error means a full or a failing disk, and how
//! much space is left.

use std::{
    error::Error,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// `EIO`: the disk cannot give back what lies on it.
const BAD_SECTOR: i32 = 5;

/// A file or folder that was open under a path, to tell whether the path still names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    /// What `path` names now.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Whether the path names the same file as before. One that was removed or replaced lives on for those who have it open, but what
    /// they write is lost when they close it.
    pub(crate) fn holds(&self) -> bool {
        Self::new(&self.path).is_ok_and(|now| now == *self)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Bytes that may still be written to the disk that holds `path`, and the disk's size.
pub(crate) fn space(path: &Path) -> io::Result<(u64, u64)> {
    let found = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok((bytes(found.f_bavail), bytes(found.f_blocks)))
}

/// Whether an error, or what caused it, says that the disk or the quota is full.
pub(crate) fn is_full(error: &(dyn Error + 'static)) -> bool {
    let full = |error: &io::Error| {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(error.kind(), StorageFull | QuotaExceeded)
    };
    causes(error).is_some_and(full)
}

/// Whether an error, or what caused it, says that stored bytes cannot be read back.
pub(crate) fn is_unreadable(error: &(dyn Error + 'static)) -> bool {
    causes(error).is_some_and(|error| error.raw_os_error() == Some(BAD_SECTOR))
}

/// The error of the operating system behind `error`.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>()
            && found.raw_os_error().is_some()
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_full_disk_is_told_from_other_failures_however_deep_it_lies() {
        let of = |code| Outer(io::Error::from_raw_os_error(code));
        let (full, quota, denied) = (28, 122, 13);
        assert!(is_full(&of(full)) && is_full(&of(quota)) && !is_full(&of(denied)));
        assert!(is_unreadable(&of(BAD_SECTOR)) && !is_unreadable(&of(full)));
    }

    #[test]
    fn a_replaced_file_is_another() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("file");
        fs::write(&path, "a").expect("it can be written");
        let place = Place::new(&path).expect("it is there");
        fs::write(&path, "b").expect("it can be written");
        assert!(place.holds());
        fs::rename(&path, folder.path().join("other")).expect("it can be moved");
        assert!(!place.holds());
        fs::write(&path, "b").expect("it can be written");
        assert!(!place.holds());
    }
}
