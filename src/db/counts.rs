//! How much is stored.

use super::{error::DbError, handle::Db};

/// How much is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCounts {
    /// Images.
    pub images: u64,
    /// Images that are listed as damaged.
    pub damaged: u64,
    /// Pairs by the name of their split, all three.
    pub pairs: [(&'static str, u64); 3],
}

impl Db {
    /// Counts what is stored. Its time grows with the number of pairs and images: a second for some tens of millions.
    pub async fn stored_counts(&self) -> Result<StoredCounts, DbError> {
        let (damaged, train, holdout, unused) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM damaged_images),
                    (SELECT count(*) FROM pairs WHERE split = 'train'),
                    (SELECT count(*) FROM pairs WHERE split = 'holdout'),
                    (SELECT count(*) FROM pairs WHERE split = 'unused')",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(StoredCounts {
            images: self.count_images().await?,
            damaged,
            pairs: [("train", train), ("holdout", holdout), ("unused", unused)],
        })
    }
}
