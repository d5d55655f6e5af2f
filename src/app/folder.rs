//! Opens the stores of a data folder: for a server, read-only, or for small changes beside a server.

use std::{fs, path::Path};

use super::{
    error::{StartError, because},
    lock::FolderLock,
};
use crate::{blobs::Blobs, db::Db};

const DATABASE: &str = "kith.db";
const BLOBS: &str = "blobs";

/// The database of a folder, opened for changes.
pub struct ChangedFolder {
    /// The database.
    pub db: Db,
    /// `None` while a server holds it.
    lock: Option<FolderLock>,
}

impl ChangedFolder {
    /// Closes the database and unlocks the folder.
    pub async fn close(self) -> Result<(), StartError> {
        self.db.close().await;
        let unlocked = self.lock.map_or(Ok(()), |lock| lock.release());
        unlocked.map_err(because("the data folder's lock"))
    }
}

/// Opens the database of a data folder for small changes. While a server uses the folder, the database is neither created nor migrated:
/// that is the server's to do.
pub async fn open_for_changes(folder: &Path, create: bool) -> Result<ChangedFolder, StartError> {
    if !create && !has_database(folder) {
        refuse_lost_database(folder).await?;
        return Err(not_a_folder(folder));
    }
    let path = folder.join(DATABASE);
    let lock = FolderLock::take_if_free(folder)?;
    let db = if lock.is_some() {
        refuse_lost_database(folder).await?;
        Db::open(&path).await
    } else if has_database(folder) {
        Db::open_beside(&path).await
    } else {
        return Err(StartError(format!(
            "a server is starting on the data folder {}: try again in a moment",
            folder.display()
        )));
    };
    Ok(ChangedFolder {
        db: db.map_err(because("the database"))?,
        lock,
    })
}

/// Whether the database of a folder, if there is one, ever had an API key.
pub(super) async fn had_keys(folder: &Path) -> Result<bool, StartError> {
    let had = Db::had_keys_at(&folder.join(DATABASE)).await;
    had.map_err(because("the database"))
}

/// Opens the database and the blob store of an existing data folder read-only. The lock is not taken, so that a server may use the folder
/// meanwhile.
pub async fn open_read_only(folder: &Path) -> Result<(Db, Blobs), StartError> {
    let db = open_database_read_only(folder).await?;
    let blobs = Blobs::look(&folder.join(BLOBS));
    Ok((db, blobs.map_err(because("the blob store"))?))
}

/// As [`open_read_only`], for a folder that may have no blobs yet.
pub async fn open_database_read_only(folder: &Path) -> Result<Db, StartError> {
    if !has_database(folder) {
        refuse_lost_database(folder).await?;
        return Err(not_a_folder(folder));
    }
    let db = Db::look(&folder.join(DATABASE)).await;
    db.map_err(because("the database"))
}

fn has_database(folder: &Path) -> bool {
    let database = fs::metadata(folder.join(DATABASE));
    database.is_ok_and(|file| file.is_file() && file.len() > 0)
}

fn not_a_folder(folder: &Path) -> StartError {
    StartError(format!(
        "{} is not a data folder of kith: name one with --data-dir",
        folder.display()
    ))
}

/// An error if the database is missing although images or checkpoints are stored: it was lost, and a new one would hide that.
pub(super) async fn refuse_lost_database(folder: &Path) -> Result<(), StartError> {
    let missing = Db::is_missing(&folder.join(DATABASE)).await;
    if !missing.map_err(because("the database"))? {
        return Ok(());
    }
    let stored = Blobs::holds_any(&folder.join(BLOBS));
    if !stored.map_err(because("the blob store"))? {
        return Ok(());
    }
    Err(StartError(format!(
        "the data folder {} holds images or checkpoints, but its database {DATABASE} is missing or empty: put {DATABASE} back from a \
         backup, or choose another folder with --data-dir. To start without what it knew, pass --set storage.accept_loss=true: \
         pairs are then lost, and stored images are removed for good",
        folder.display()
    )))
}

pub(super) async fn open_stores(folder: &Path) -> Result<(Db, Blobs), StartError> {
    let db = Db::open(&folder.join(DATABASE)).await;
    let blobs = Blobs::local(&folder.join(BLOBS));
    Ok((
        db.map_err(because("the database"))?,
        blobs.map_err(because("the blob store"))?,
    ))
}
