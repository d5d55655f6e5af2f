//! The keys of blobs, and the paths that they stand for.

use object_store::path;

use crate::types::{CheckpointId, Sha256};

/// The folder of images.
pub(super) const IMAGES: &str = "images";
/// The folder of checkpoints.
pub(super) const CHECKPOINTS: &str = "checkpoints";

/// The key of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobKey {
    /// An uploaded image: `images/ab/abcdef….`
    Image(Sha256),
    /// One part of a checkpoint: `checkpoints/ID/model.safetensors`.
    CheckpointPart(CheckpointId, String),
}

impl BlobKey {
    /// The path of the blob below the root. Each part is escaped on its own, so that no name leads out of its folder.
    pub(super) fn path(&self) -> path::Path {
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
