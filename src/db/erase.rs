//! Runs erasures so that they succeed on a full disk.

use super::{error::DbError, handle::Db};

impl Db {
    /// Runs an erasure. If the disk is full it is tried again with the space that is kept for erasures.
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

    /// Moves the content of the write-ahead log into the file, so that the next write has space in the log.
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
    use std::{cell::Cell, fs};

    use super::*;
    use crate::db::reserve::BYTES;

    #[tokio::test]
    async fn an_erasure_on_a_full_disk_is_tried_again_with_the_space_kept_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
        let file = folder.path().join("reserve");
        assert_eq!(fs::metadata(&file).unwrap().len(), BYTES as u64);
        let (tries, reserve) = (Cell::new(0), file.clone());
        // As on a disk that is full but for that file.
        let erasure = || async {
            tries.set(tries.get() + 1);
            if reserve.exists() {
                return Err(DbError::Full);
            }
            Ok(())
        };
        db.erase(erasure).await.unwrap();
        assert_eq!(tries.get(), 2);
        db.probe_write().await.unwrap();
        assert!(file.exists(), "the space is taken again");
    }
}
