//! A little room on the disk that is kept for erasures: they must be possible when the disk is full, for they make room.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{Db, DbError};

/// Bytes kept: the pages that the erasure of an image with many pairs changes.
const BYTES: usize = 1 << 20;

/// The file that takes up the room.
#[derive(Clone, Debug)]
pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// Beside the database file.
    pub(super) fn beside(database: &Path) -> Self {
        Self(database.with_file_name("reserve"))
    }

    /// Takes the room up again if it was given back. A disk that is too full for it is no failure: the next call tries again.
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

    /// Gives the room back. `false`: there was none.
    fn release(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }
}

fn fill(path: &Path) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(&vec![0; BYTES])?;
    file.sync_all()
}

impl Db {
    /// Runs an erasure; one that finds the disk full is tried again with the room that is kept for it.
    pub(super) async fn erase<T, F>(&self, work: impl Fn() -> F) -> Result<T, DbError>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        match work().await {
            Err(DbError::Full) if self.reserve.release() => {
                tracing::warn!("the disk is full: an erasure uses the room that is kept for it");
                self.empty_log().await;
                work().await
            }
            done => done,
        }
    }

    /// Moves what the write-ahead log holds into the file, so that the next write finds room in the log.
    async fn empty_log(&self) {
        let Ok(mut writer) = self.writer().await else {
            return;
        };
        let emptied = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&mut *writer)
            .await;
        if let Err(error) = emptied {
            tracing::debug!(%error, "the write-ahead log stays as it is");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn an_erasure_on_a_full_disk_is_tried_again_with_the_room_kept_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
        let file = folder.path().join("reserve");
        assert_eq!(fs::metadata(&file).unwrap().len(), BYTES as u64);
        let (tries, room) = (Cell::new(0), file.clone());
        // As on a disk that is full but for that file.
        let erasure = || async {
            tries.set(tries.get() + 1);
            if room.exists() {
                return Err(DbError::Full);
            }
            Ok(())
        };
        db.erase(erasure).await.unwrap();
        assert_eq!(tries.get(), 2);
        db.probe_write().await.unwrap();
        assert!(file.exists(), "the room is taken up again");
    }
}
