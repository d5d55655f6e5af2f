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
    /// A store in a local folder, which is created. Writes are atomic and fsynced (file and folder) before they return.
    pub fn local(root: &Path) -> Result<Self, BlobError> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        root.parent().map_or(Ok(()), sync_folder)?;
        Self::open(&root)
    }

    /// An existing store, for reading only.
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
    pub fn holds_any(root: &Path) -> Result<bool, BlobError> {
        Ok(folders::holds_any(root)?)
    }

    /// Puts bytes; replaces what was there.
    pub async fn put(&self, key: &BlobKey, bytes: Bytes) -> Result<(), BlobError> {
        let path = key.path();
        self.check_root()?;
        if let Err(error) = self.store.put(&path, bytes.into()).await {
            self.drop_empty_folder(key).await;
            return Err(error.into());
        }
        // The store syncs the folders that it creates itself. One that another put is creating at this moment it takes for granted,
        // so this put waits for those itself.
        self.on_disk(&path, |file, root| {
            let folders = file.ancestors().skip(2);
            folders
                .take_while(|folder| folder.starts_with(root))
                .try_for_each(sync_folder)
        })
        .await
    }

    /// Whether the blob is there.
    pub async fn exists(&self, key: &BlobKey) -> Result<bool, BlobError> {
        match self.store.head(&key.path()).await.map_err(BlobError::from) {
            Ok(_) => Ok(true),
            Err(BlobError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All bytes of a blob.
    pub async fn get(&self, key: &BlobKey) -> Result<Bytes, BlobError> {
        Ok(self.store.get(&key.path()).await?.bytes().await?)
    }

    /// A stored image, whose bytes have its hash.
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

    /// Hands over the ids of all images that have bytes, at most `page` at once; runs where blocking is allowed. Younger files than
    /// `min_age` are left out: they may be on their way to a row.
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

    /// Writes a small file durably and removes it, to find out whether a write is possible.
    pub async fn probe_write(&self) -> Result<(), BlobError> {
        self.check_root()?;
        let probe = |root: &Path| {
            let path = root.join("probe");
            let mut file = fs::File::create(&path)?;
            file.write_all(&[0; 4096])?;
            file.sync_all()?;
            fs::remove_file(&path)
        };
        self.listed(probe).await
    }

    /// Removes a blob; a missing one is no error. Durable when this returns: a blob does not come back after a power cut.
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
            // A checkpoint's folder goes with its last part; while parts are left, this fails as it should.
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

    /// Names of a checkpoint's parts that are there.
    pub async fn checkpoint_parts(&self, id: CheckpointId) -> Result<Vec<String>, BlobError> {
        let folder = id.to_string();
        self.listed(move |root| part_names(&root.join(CHECKPOINTS).join(folder)))
            .await
    }

    /// Removes what writes that were cut off left behind (never visible as blobs), and says how many. Only for the one process that owns
    /// the folder, before it writes: it would tear another's writes.
    pub fn sweep(&self) -> Result<usize, BlobError> {
        Ok(folders::sweep(self.root.path())?)
    }

    /// A checkpoint whose first part cannot be written leaves no folder.
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

    /// Refuses to write into a folder that was removed: what is written there is lost.
    fn check_root(&self) -> Result<(), BlobError> {
        if self.root.holds() {
            return Ok(());
        }
        Err(BlobError::Replaced(self.root.path().display().to_string()))
    }

    /// Runs `list` on the root folder where blocking is allowed.
    async fn listed<T: Send + 'static>(
        &self,
        list: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        let root = self.root.clone();
        let done = tokio::task::spawn_blocking(move || list(root.path())).await;
        Ok(done.map_err(|panic| BlobError::Store(panic.to_string()))??)
    }

    /// Runs `act` on (file of the blob, root folder) where blocking is allowed.
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

/// The parts in a checkpoint's folder, by the names they were stored under.
fn part_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = folders::files(folder)?;
    names.retain(|name| folders::unfinished(name).is_none());
    Ok(names)
}
