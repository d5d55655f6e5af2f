//! Bytes by key, durable: content-addressed images and the parts of checkpoints.
//! Must never know: what the bytes mean. Only room that uses `object_store`; all keys come from [`BlobKey`].

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path};

use crate::types::{CheckpointId, Sha256};

const IMAGES: &str = "images";
const CHECKPOINTS: &str = "checkpoints";

/// Everything that is stored, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobKey {
    /// An uploaded image: `images/ab/abcdef….`
    Image(Sha256),
    /// One part of a checkpoint: `checkpoints/ID/model.safetensors`.
    CheckpointPart(CheckpointId, String),
}

impl BlobKey {
    /// Where the blob lies. Each part is escaped on its own, so that no name, whoever chose it, leads out of its folder.
    fn path(&self) -> path::Path {
        match self {
            Self::Image(sha256) => {
                let hex = sha256.to_string();
                path::Path::from_iter([IMAGES, &hex[..2], &hex])
            }
            Self::CheckpointPart(id, name) => checkpoint_folder(*id).join(name.as_str()),
        }
    }
}

fn checkpoint_folder(id: CheckpointId) -> path::Path {
    path::Path::from_iter([CHECKPOINTS, &id.to_string()])
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No such blob.
    #[error("no blob at {0}")]
    NotFound(String),
    /// The store failed.
    #[error("blob store: {0}")]
    Store(String),
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::NotFound(path),
            error => Self::Store(error.to_string()),
        }
    }
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        Self::Store(error.to_string())
    }
}

/// A handle to the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<LocalFileSystem>,
    root: Arc<PathBuf>,
}

impl Blobs {
    /// A store in a local folder, which is created. Writes are atomic and fsynced (file and folder) before they return.
    pub fn local(root: &Path) -> Result<Self, BlobError> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        root.parent().map_or(Ok(()), sync_folder)?;
        let store = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            root: Arc::new(root),
        })
    }

    /// Puts bytes; replaces what was there.
    pub async fn put(&self, key: &BlobKey, bytes: Bytes) -> Result<(), BlobError> {
        let path = key.path();
        self.store.put(&path, bytes.into()).await?;
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
        let folder = path::Path::from(CHECKPOINTS);
        let blobs: Vec<_> = self.store.list(Some(&folder)).try_collect().await?;
        let ids: BTreeSet<CheckpointId> = blobs
            .iter()
            .filter_map(|blob| blob.location.parts().nth(1)?.as_ref().parse().ok())
            .collect();
        Ok(ids.into_iter().collect())
    }

    /// Names of a checkpoint's parts that are there.
    pub async fn checkpoint_parts(&self, id: CheckpointId) -> Result<Vec<String>, BlobError> {
        let folder = checkpoint_folder(id);
        let blobs: Vec<_> = self.store.list(Some(&folder)).try_collect().await?;
        let mut names: Vec<String> = blobs
            .iter()
            .filter_map(|blob| blob.location.filename().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Removes what writes that were cut off left behind (never visible as blobs), and says how many. Only for the one process that owns
    /// the folder, before it writes: it would tear another's writes.
    pub fn sweep(&self) -> Result<usize, BlobError> {
        Ok(sweep(&self.root.join(IMAGES))? + sweep(&self.root.join(CHECKPOINTS))?)
    }

    /// Runs `act` on (file of the blob, root folder) where blocking is allowed.
    async fn on_disk(
        &self,
        path: &path::Path,
        act: impl FnOnce(&Path, &Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), BlobError> {
        let file = self.store.path_to_filesystem(path)?;
        let root = self.root.clone();
        let done = tokio::task::spawn_blocking(move || act(&file, &root)).await;
        Ok(done.map_err(|panic| BlobError::Store(panic.to_string()))??)
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Unfinished writes carry a `#` and a number behind the blob's name; no blob's own name can hold a `#`.
fn sweep(folder: &Path) -> io::Result<usize> {
    let mut swept = 0;
    if !folder.exists() {
        return Ok(swept);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            swept += sweep(&entry.path())?;
        } else if entry.file_name().as_encoded_bytes().contains(&b'#') {
            fs::remove_file(entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}
