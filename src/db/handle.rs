//! The handle to the database, and the two ways to write through it.

use std::sync::{Arc, atomic::AtomicU64};

use sqlx::{Sqlite, SqlitePool, Transaction, pool::PoolConnection};

use super::{error::DbError, reserve::Reserve};
use crate::disk::Place;

/// A handle to the database; cheap to clone.
///
/// One connection writes and several read. Writers wait for that connection in order of arrival, so within the process nothing is ever
/// refused as busy, and a batch of rows is one transaction with one fsync. Readers see the last commit and never wait for a writer.
#[derive(Clone, Debug)]
pub struct Db {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    /// The file that was opened.
    pub(super) file: Arc<Place>,
    /// Disk space kept for erasures.
    pub(super) reserve: Reserve,
    /// Rows of the training series written since it was last thinned.
    pub(super) fresh_metrics: Arc<AtomicU64>,
}

impl Db {
    /// Returns once the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// Waits for running statements, then closes all connections.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// A transaction that holds the write lock from its start, so that what it reads stays true until it commits.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Sqlite>, DbError> {
        self.check_file()?;
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// The connection that writes, for a single statement.
    pub(super) async fn writer(&self) -> Result<PoolConnection<Sqlite>, DbError> {
        self.check_file()?;
        Ok(self.writer.acquire().await?)
    }

    /// Refuses to write into a file that was removed: what is written there is lost.
    fn check_file(&self) -> Result<(), DbError> {
        if self.file.holds() {
            return Ok(());
        }
        Err(DbError::Replaced(self.file.path().display().to_string()))
    }
}
