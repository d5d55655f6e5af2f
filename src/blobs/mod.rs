//! The blobs room.
