//! Uploads: what is answered is on disk with its bytes; what is refused leaves nothing; what is erased is gone.

mod additions;
mod damage;
mod erasures;
mod refusals;

use std::{
    io::Cursor,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use image::{ImageFormat, Rgb, RgbImage};
use kith::{
    blobs::Blobs,
    db::Db,
    ingest::{Ingest, PairUpload, Upload},
    types::Sha256,
};
use kith_pixels::Limits;
use tempfile::TempDir;

use crate::db::count_pairs;

const LIMITS: Limits = Limits {
    max_bytes: 1 << 16,
    max_pixels: 1 << 12,
    decode_memory_mb: 1024,
};

struct Fixture {
    ingest: Ingest,
    db: Db,
    blobs: Blobs,
    folder: TempDir,
}

async fn open_in(folder: TempDir) -> Fixture {
    let blobs = Blobs::local(&folder.path().join("blobs")).unwrap();
    let db = Db::open(&folder.path().join("kith.db")).await.unwrap();
    let ingest = Ingest::new(blobs.clone(), db.clone(), LIMITS, 0.0);
    Fixture {
        ingest,
        db,
        blobs,
        folder,
    }
}

async fn open() -> Fixture {
    open_in(tempfile::tempdir().unwrap()).await
}

fn png(shade: u8) -> Bytes {
    let mut bytes = Cursor::new(Vec::new());
    let image = RgbImage::from_pixel(6, 4, Rgb([shade, 7, 9]));
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner().into()
}

fn pair(anchor: Upload, positive: impl Into<Option<Upload>>) -> PairUpload {
    PairUpload {
        anchor,
        positive: positive.into(),
        group: None,
        weight: None,
    }
}

fn bytes(shade: u8) -> Upload {
    Upload::Bytes(png(shade))
}

fn id(shade: u8) -> Upload {
    Upload::Id(Sha256::digest(&png(shade)))
}

/// Number of files below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path()),
            false => 1,
        })
        .sum()
}

fn blob_file(fixture: &Fixture, id: Sha256) -> PathBuf {
    let hex = id.to_string();
    let folder = fixture.folder.path().join("blobs/images").join(&hex[..2]);
    folder.join(hex)
}

impl Fixture {
    async fn assert_holds(&self, images: u64, pairs: u64) {
        let (train, holdout, unused) = count_pairs(&self.db).await;
        assert_eq!(self.db.count_images().await.unwrap(), images);
        assert_eq!(train + holdout + unused, pairs);
        assert_eq!(files(&self.folder.path().join("blobs")), images as usize);
    }
}
