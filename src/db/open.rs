//! Opens the database file: for a server, which migrates it, or read-only.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{error::DbError, handle::Db, reserve::Reserve};
use crate::disk::Place;

/// Connections that read side by side.
const READERS: u32 = 4;
/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

impl Db {
    /// Opens the database file for a server: creates it where it is missing, refuses damaged pages, runs the migrations.
    pub async fn open(path: &Path) -> Result<Self, DbError> {
        let options = options(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        // Later connections never create the file: an empty one in place of one that was removed would hide the loss.
        let mut first = options.clone().create_if_missing(true).connect().await?;
        quick_check(&mut first).await?;
        migrate(&mut first).await?;
        let writer = pool_options(1)
            .after_release(|connection, _| Box::pin(is_reusable(connection)))
            .connect_with(options.clone())
            .await?;
        let readers = pool(READERS, options.pragma("query_only", "ON")).await?;
        first.close().await?;
        let db = Self::new(path, writer, readers)?;
        db.reserve.refill().await;
        Ok(db)
    }

    /// Opens the database of a folder that a server is using, for small writes beside it. It is neither created nor migrated: one of an older
    /// or newer schema is refused.
    pub async fn open_beside(path: &Path) -> Result<Self, DbError> {
        let options = options(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let writer = known(pool(1, options.clone()).await?).await?;
        let readers = pool(1, options.pragma("query_only", "ON")).await?;
        Self::new(path, writer, readers)
    }

    /// Whether the database at `path` ever had an API key; one of an older schema, or none at all, did not.
    pub async fn had_keys_at(path: &Path) -> Result<bool, DbError> {
        if Self::is_missing(path).await? {
            return Ok(false);
        }
        let mut connection = peek(path).await?;
        let table: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'api_keys')",
        )
        .fetch_one(&mut connection)
        .await?;
        let any = table
            && sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys)")
                .fetch_one(&mut connection)
                .await?;
        connection.close().await?;
        Ok(any)
    }

    /// Opens the database of a folder that a server may be using, for reading only. One of an older or newer schema is refused.
    pub async fn look(path: &Path) -> Result<Self, DbError> {
        let options = options(path).read_only(true);
        let readers = match known(pool(READERS, options.clone()).await?).await {
            Err(DbError::Sql(_)) if is_closed_cleanly(path) => {
                // No index of the WAL can be made on a read-only disk, nor is one needed.
                known(pool(READERS, options.immutable(true)).await?).await?
            }
            opened => opened?,
        };
        Self::new(path, readers.clone(), readers)
    }

    /// Whether there is no database at `path`: no file, or one without tables.
    pub async fn is_missing(path: &Path) -> Result<bool, DbError> {
        // An empty file is not opened: SQLite would remove the WAL beside it.
        if std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
            return Ok(true);
        }
        let mut connection = peek(path).await?;
        let tables = count_tables(&mut connection).await?;
        connection.close().await?;
        Ok(tables == 0)
    }

    fn new(path: &Path, writer: SqlitePool, readers: SqlitePool) -> Result<Self, DbError> {
        let file = Place::new(path).map_err(|error| DbError::Sql(error.to_string()))?;
        Ok(Self {
            writer,
            readers,
            reserve: Reserve::new(path),
            file: Arc::new(file),
            fresh_metrics: Arc::default(),
        })
    }
}

/// Opens a database to read a little from it: nothing is written, neither a WAL into it nor anything beside it that is not there.
async fn peek(path: &Path) -> Result<SqliteConnection, DbError> {
    let options = options(path).read_only(true);
    // Without a WAL no process has it open, and one must not be made.
    let unused = !wal(path).exists();
    Ok(options.immutable(unused).connect().await?)
}

async fn count_tables(connection: &mut SqliteConnection) -> Result<i64, DbError> {
    let count = sqlx::query_scalar("SELECT count(*) FROM sqlite_master");
    Ok(count.fetch_one(connection).await?)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(BUSY)
}

async fn pool(connections: u32, options: SqliteConnectOptions) -> Result<SqlitePool, DbError> {
    Ok(pool_options(connections).connect_with(options).await?)
}

fn pool_options(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .max_lifetime(None)
        .idle_timeout(None)
}

/// Whether a connection that was given back can begin a transaction. SQLite ends one by itself when the disk is full, a file cannot be
/// read or memory runs out; the driver goes on counting it, and every later `BEGIN` fails. Such a connection is closed.
async fn is_reusable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // Deferred: it takes no lock and writes nothing.
    let tried = match connection.begin_with("BEGIN DEFERRED").await {
        Ok(transaction) => transaction.rollback().await,
        Err(error) => Err(error),
    };
    if let Err(error) = &tried {
        tracing::warn!(%error, "a database connection that lost its transaction is replaced");
    }
    Ok(tried.is_ok())
}

/// Reads every page: one that is damaged is found here, not hours later in the middle of a request.
async fn quick_check(connection: &mut SqliteConnection) -> Result<(), DbError> {
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(DbError::Damaged(found)),
    }
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), DbError> {
    match sqlx::migrate!().run(connection).await {
        Err(MigrateError::VersionMissing(version)) => Err(DbError::Newer(version)),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(error.into())
        }
        done => done.map_err(|error| DbError::Sql(error.to_string())),
    }
}

/// The pool if the newest migration of its file is the newest of this program.
async fn known(readers: SqlitePool) -> Result<SqlitePool, DbError> {
    let known = sqlx::migrate!().iter().map(|migration| migration.version);
    let known = known.max().unwrap_or_default();
    let newest = sqlx::query_scalar::<_, Option<i64>>("SELECT max(version) FROM _sqlx_migrations");
    match newest.fetch_one(&readers).await?.unwrap_or_default() {
        newest if newest > known => Err(DbError::Newer(newest)),
        newest if newest < known => Err(DbError::Older),
        _ => Ok(readers),
    }
}

/// Whether all that was committed is in the file itself.
fn is_closed_cleanly(path: &Path) -> bool {
    std::fs::metadata(wal(path)).map_or(true, |wal| wal.len() == 0)
}

fn wal(path: &Path) -> PathBuf {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    PathBuf::from(wal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{db::NewImage, types::Sha256};

    fn images(numbers: std::ops::Range<u32>) -> Vec<NewImage> {
        let image = |n: u32| NewImage {
            sha256: Sha256::digest(&n.to_le_bytes()),
            bytes: 1,
            width: 1,
            height: 1,
            format: "png".into(),
        };
        numbers.map(image).collect()
    }

    /// Lets the connection that writes find the disk full at once.
    async fn fill_disk(db: &Db) {
        let mut writer = db.writer().await.unwrap();
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(&mut *writer)
            .await
            .unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_fails_one_write_and_not_those_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
        for round in 0..3 {
            fill_disk(&db).await;
            let many = images(1000 * round..1000 * (round + 1));
            let full = db.insert_images(&many).await.unwrap_err();
            assert!(matches!(full, DbError::Full), "{full}");
            // There is room again: a new connection has no limit.
            db.insert_images(&images(round..round + 1)).await.unwrap();
        }
        assert_eq!(db.count_images().await.unwrap(), 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_that_sqlite_itself_rolled_back_does_not_spoil_those_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
        let mut writer = db.writer().await.unwrap();
        // What a full disk, a read that fails or a lack of memory do to a transaction.
        let trigger = "CREATE TEMP TRIGGER full BEFORE INSERT ON main.images WHEN NEW.bytes = 13
                       BEGIN SELECT RAISE(ROLLBACK, 'rolled back'); END";
        sqlx::query(trigger).execute(&mut *writer).await.unwrap();
        drop(writer);
        let mut unlucky = images(0..2);
        unlucky[1].bytes = 13;
        db.insert_images(&unlucky).await.unwrap_err();
        assert_eq!(db.count_images().await.unwrap(), 0);
        db.insert_images(&images(0..2)).await.unwrap();
        assert_eq!(db.count_images().await.unwrap(), 2);
    }
}
