//! The lock of the data folder, which one process holds. Both the folder and a file in it are locked: when somebody deletes the file, its
//! lock is lost and a second server could start.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use super::error::StartError;

/// A lock that the operating system releases when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    /// The lock file, which older versions lock alone.
    file: File,
    /// `None` where the file system cannot lock folders.
    folder: Option<File>,
}

impl FolderLock {
    /// Creates the data folder if it is missing, and locks it.
    pub(super) fn take(folder: &Path) -> Result<Self, StartError> {
        Self::take_if_free(folder)?.ok_or_else(|| {
            StartError(format!(
                "another kith process uses the data folder {}: stop it, or choose another with --data-dir",
                folder.display()
            ))
        })
    }

    /// As [`Self::take`]; `None` while another process holds the lock.
    pub(super) fn take_if_free(folder: &Path) -> Result<Option<Self>, StartError> {
        let name = folder.display();
        let unusable = |error: io::Error| {
            StartError(format!(
                "the data folder {name} cannot be used ({error}): choose another with --data-dir"
            ))
        };
        let (file, folder) = open(folder).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(StartError(format!(
                    "the data folder {name} cannot be locked ({error}): choose one on a disk that supports file locks"
                )));
            }
        }
        let folder = match folder.try_lock() {
            Ok(()) => Some(folder),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "the data folder cannot be locked, its lock file is: do not delete that");
                None
            }
        };
        Ok(Some(Self { file, folder }))
    }

    /// Unlocks the folder, although handles may stay open.
    pub(super) fn release(&self) -> io::Result<()> {
        let folder = self.folder.as_ref().map_or(Ok(()), File::unlock);
        self.file.unlock().and(folder)
    }
}

fn open(folder: &Path) -> io::Result<(File, File)> {
    std::fs::create_dir_all(folder)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("lock"))?;
    Ok((file, File::open(folder)?))
}
