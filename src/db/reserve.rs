//! Disk space that is kept for erasures: they must be possible on a full disk, since they free space.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Bytes kept: the pages that the erasure of an image with many pairs changes.
pub(super) const BYTES: usize = 1 << 20;

/// The file that takes up the space.
#[derive(Clone, Debug)]
pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// The file beside that of the database.
    pub(super) fn new(database: &Path) -> Self {
        Self(database.with_file_name("reserve"))
    }

    /// Whether something else has the file's name.
    pub(super) fn is_misplaced(&self) -> bool {
        self.0.exists() && !self.0.is_file()
    }

    /// Takes the space again if it was released. A disk that is too full for it is no failure: the next call tries again.
    pub(super) async fn refill(&self) {
        if self.0.exists() {
            return;
        }
        let path = self.0.clone();
        let filled = tokio::task::spawn_blocking(move || {
            fill(&path).inspect_err(|_| {
                let _ = fs::remove_file(&path);
            })
        });
        if let Ok(Err(error)) = filled.await {
            tracing::debug!(%error, "no room is kept for erasures");
        }
    }

    /// Frees the space. `false`: there was none.
    pub(super) fn release(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }
}

fn fill(path: &Path) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(&vec![0; BYTES])?;
    file.sync_all()
}
