//! Durable storage of bytes by key: content-addressed images and the parts of checkpoints.

mod error;
mod folders;
mod key;
mod stream;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use object_store::{ObjectStoreExt, local::LocalFileSystem, path};

use self::key::{CHECKPOINTS, IMAGES};
pub use self::{error::BlobError, key::BlobKey, stream::Chunks};
use crate::{
    disk::Place,
    types::{CheckpointId, Sha256},
};

/// A handle to the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<LocalFileSystem>,
    root: Arc<Place>,
}

impl Blobs {
    /// Opens the store in the folder `root`, which is created if it is missing. A write is atomic, and returns after its file and folders are
    /// synced.
    ///
    /// # Errors
    /// The folder cannot be created, synced or opened.
    pub fn local(root: &Path) -> Result<Self, BlobError> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        root.parent().map_or(Ok(()), sync_folder)?;
        Self::open(&root)
    }

    /// Opens an existing store for reading. It creates and syncs nothing.
    ///
    /// # Errors
    /// The folder is missing or cannot be opened.
    pub fn look(root: &Path) -> Result<Self, BlobError> {
        Self::open(&root.canonicalize()?)
    }

    fn open(root: &Path) -> Result<Self, BlobError> {
        let store = LocalFileSystem::new_with_prefix(root)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            root: Arc::new(Place::new(root)?),
        })
    }

    /// Whether anything is stored in the folder `root`, which may be missing.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub fn holds_any(root: &Path) -> Result<bool, BlobError> {
        Ok(folders::holds_any(root)?)
    }

    /// Writes a blob, replacing the one of this key.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Replaced`], or another failure of the store. Nothing of the new blob is visible then.
    pub async fn put(&self, key: &BlobKey, bytes: Bytes) -> Result<(), BlobError> {
        let path = key.path();
        self.check_root()?;
        if let Err(error) = self.store.put(&path, bytes.into()).await {
            self.drop_empty_folder(key).await;
            return Err(error.into());
        }
        // The library syncs the folders that it creates, but not those that exist. A folder that exists may have been created a moment ago by
        // a concurrent put that has not synced it yet. So the folders are synced here as well.
        self.on_disk(&path, |file, root| {
            let folders = file.ancestors().skip(2);
            folders
                .take_while(|folder| folder.starts_with(root))
                .try_for_each(sync_folder)
        })
        .await
    }

    /// Whether the blob is there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn exists(&self, key: &BlobKey) -> Result<bool, BlobError> {
        match self.store.head(&key.path()).await.map_err(BlobError::from) {
            Ok(_) => Ok(true),
            Err(BlobError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All bytes of a blob.
    ///
    /// # Errors
    /// [`BlobError::NotFound`] if it is not there, or a failure of the store.
    pub async fn get(&self, key: &BlobKey) -> Result<Bytes, BlobError> {
        Ok(self.store.get(&key.path()).await?.bytes().await?)
    }

    /// The bytes of a stored image, verified against its hash.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Damaged`] if the hash differs, [`BlobError::Replaced`], or a failure of the store.
    pub async fn image(&self, id: Sha256) -> Result<Bytes, BlobError> {
        self.check_root()?;
        let bytes = self.get(&BlobKey::Image(id)).await?;
        let whole = bytes.clone();
        let found = self.listed(move |_| Ok(Sha256::digest(&whole))).await?;
        if found == id {
            return Ok(bytes);
        }
        let length = bytes.len();
        Err(BlobError::Damaged(format!(
            "the file has {length} bytes and SHA-256 {found}"
        )))
    }

    /// Calls `take` with the ids of all images that have a file, at most `page` at a time. Files younger than `min_age` are left out, since
    /// the addition that wrote them may not have written its rows yet. Blocks.
    ///
    /// # Errors
    /// A folder cannot be read, or `take` fails.
    pub fn each_image(
        &self,
        page: usize,
        min_age: Duration,
        mut take: impl FnMut(Vec<Sha256>) -> Result<(), BlobError>,
    ) -> Result<(), BlobError> {
        let root = self.root.path();
        for folder in folders::folders(&root.join(IMAGES))? {
            let ids = folders::images(&folder, min_age)?;
            ids.chunks(page).try_for_each(|page| take(page.to_vec()))?;
        }
        Ok(())
    }

    /// Writes a small file durably and removes it, to find out whether the store takes writes.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn probe_write(&self) -> Result<(), BlobError> {
        self.check_root()?;
        let probe = |root: &Path| {
            let path = root.join("probe");
            let mut file = fs::File::create(&path)?;
            file.write_all(&[0; 4096])?;
            file.sync_all()?;
            match fs::remove_file(&path) {
                // A probe that nobody waits for any more ends beside the next one, and both write the same file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        };
        self.listed(probe).await
    }

    /// Removes a blob. A missing one is no error. The removal is durable when this returns: the blob does not come back after a power cut.
    ///
    /// # Errors
    /// The store failed.
    pub async fn delete(&self, key: &BlobKey) -> Result<(), BlobError> {
        let path = key.path();
        match self.store.delete(&path).await.map_err(BlobError::from) {
            Err(BlobError::NotFound(_)) => return Ok(()),
            outcome => outcome?,
        }
        let is_part = matches!(key, BlobKey::CheckpointPart(..));
        self.on_disk(&path, move |file, _| {
            let mut folders = file.ancestors().skip(1);
            let folder = folders.next().map_or(Ok(()), sync_folder);
            // A checkpoint's folder goes with its last part. While other parts are left, `remove_dir` refuses, as it should.
            if is_part
                && file
                    .parent()
                    .is_some_and(|folder| fs::remove_dir(folder).is_ok())
            {
                return folders.next().map_or(Ok(()), sync_folder);
            }
            folder
        })
        .await
    }

    /// Ids of all checkpoints that have a part, complete or not, ascending.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub async fn checkpoint_ids(&self) -> Result<Vec<CheckpointId>, BlobError> {
        let listed = self.listed(|root| {
            let mut ids = Vec::new();
            for folder in folders::folders(&root.join(CHECKPOINTS))? {
                let name = folder.file_name().unwrap_or_default().to_string_lossy();
                if let Ok(id) = name.parse()
                    && !part_names(&folder)?.is_empty()
                {
                    ids.push(id);
                }
            }
            ids.sort();
            Ok(ids)
        });
        listed.await
    }

    /// Names of the parts that a checkpoint has.
    ///
    /// # Errors
    /// Its folder cannot be read.
    pub async fn checkpoint_parts(&self, id: CheckpointId) -> Result<Vec<String>, BlobError> {
        let folder = id.to_string();
        self.listed(move |root| part_names(&root.join(CHECKPOINTS).join(folder)))
            .await
    }

    /// Removes the temporary files of writes that were cut off, which are never visible as blobs; returns their number. Only for the process
    /// that owns the folder, before its first write: the temporary file of a write in progress would be removed too.
    ///
    /// # Errors
    /// A folder cannot be read, or a file cannot be removed.
    pub fn sweep(&self) -> Result<usize, BlobError> {
        Ok(folders::sweep(self.root.path())?)
    }

    /// Removes the folder of a checkpoint whose first part could not be written.
    async fn drop_empty_folder(&self, key: &BlobKey) {
        if let BlobKey::CheckpointPart(id, _) = key {
            let folder = id.to_string();
            let dropped = self.listed(move |root| {
                let _ = fs::remove_dir(root.join(CHECKPOINTS).join(folder));
                Ok(())
            });
            let _ = dropped.await;
        }
    }

    /// Fails if the root folder was removed or replaced: what is written to the old one is lost.
    fn check_root(&self) -> Result<(), BlobError> {
        if self.root.holds() {
            return Ok(());
        }
        Err(BlobError::Replaced(self.root.path().display().to_string()))
    }

    /// Runs `list` on the root folder, on a thread that may block.
    async fn listed<T: Send + 'static>(
        &self,
        list: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        let root = self.root.clone();
        let done = tokio::task::spawn_blocking(move || list(root.path())).await;
        Ok(done.map_err(|panic| BlobError::Store(panic.to_string()))??)
    }

    /// Runs `act` on the file of a blob and the root folder, on a thread that may block.
    async fn on_disk(
        &self,
        path: &path::Path,
        act: impl FnOnce(&Path, &Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), BlobError> {
        let file = self.store.path_to_filesystem(path)?;
        self.listed(move |root| act(&file, root)).await
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Names of the parts in a checkpoint's folder. Files of unfinished writes are no parts.
fn part_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = folders::files(folder)?;
    names.retain(|name| folders::unfinished(name).is_none());
    Ok(names)
}
