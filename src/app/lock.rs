//! The data folder taken for one process. The folder itself is locked, besides a file in it: a lock on a file alone is lost when somebody
//! deletes the file, and a second server would come in.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use super::StartError;

/// A lock that the operating system lets go of when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    /// The lock file, which older versions look at, too.
    file: File,
    /// `None` where the file system locks files only.
    folder: Option<File>,
}

impl FolderLock {
    /// Creates the data folder and takes it.
    pub fn take(folder: &Path) -> Result<Self, StartError> {
        let name = folder.display();
        let unusable = |error: io::Error| {
            StartError(format!(
                "the data folder {name} cannot be used ({error}): choose another with --data-dir"
            ))
        };
        let (file, whole) = open(folder).map_err(unusable)?;
        let taken = || {
            StartError(format!(
                "another kith process uses the data folder {name}: stop it, or choose another with --data-dir"
            ))
        };
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(taken()),
            Err(TryLockError::Error(error)) => {
                return Err(StartError(format!(
                    "the data folder {name} cannot be locked ({error}): choose one on a disk that supports file locks"
                )));
            }
        }
        let whole = match whole.try_lock() {
            Ok(()) => Some(whole),
            Err(TryLockError::WouldBlock) => return Err(taken()),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "only the lock file guards the data folder: do not delete it");
                None
            }
        };
        Ok(Self {
            file,
            folder: whole,
        })
    }

    /// Gives the folder to others, although handles may live on.
    pub fn release(&self) -> io::Result<()> {
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
