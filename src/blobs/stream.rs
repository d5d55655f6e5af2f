//! Reads a blob in chunks from an open file, so that a slow reader holds one chunk in memory. A blob that is deleted meanwhile is still read
//! to its end.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore};

use super::{BlobError, BlobKey, Blobs};

/// Bytes read at a time.
const CHUNK: u64 = 64 * 1024;

/// Part of a blob as it is read.
pub type Chunks = BoxStream<'static, Result<Bytes, BlobError>>;

impl Blobs {
    /// Bytes of a blob without reading it.
    pub async fn size(&self, key: &BlobKey) -> Result<u64, BlobError> {
        let options = GetOptions::new().with_head(true);
        let found = self.store.get_opts(&key.path(), options).await?;
        Ok(found.meta.size)
    }

    /// The bytes of `range`, which must lie in the blob and hold at least one.
    pub async fn stream(&self, key: &BlobKey, range: Range<u64>) -> Result<Chunks, BlobError> {
        let wanted = GetRange::Bounded(range.clone());
        let options = GetOptions::new().with_range(Some(wanted));
        let found = self.store.get_opts(&key.path(), options).await?;
        Ok(match found.payload {
            GetResultPayload::File(file, _) => from_file(file, range),
            GetResultPayload::Stream(chunks) => chunks.map(|chunk| Ok(chunk?)).boxed(),
        })
    }
}

fn from_file(file: File, range: Range<u64>) -> Chunks {
    let chunks = stream::try_unfold((Arc::new(file), range), |(file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + CHUNK);
        let chunk = read(file.clone(), range.start..end).await?;
        Ok(Some((chunk, (file, end..range.end))))
    });
    chunks.boxed()
}

async fn read(file: Arc<File>, range: Range<u64>) -> Result<Bytes, BlobError> {
    let work = move || -> io::Result<Bytes> {
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut chunk = vec![0; length];
        file.read_exact_at(&mut chunk, range.start)?;
        Ok(chunk.into())
    };
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|panic| BlobError::Store(panic.to_string()))??)
}
