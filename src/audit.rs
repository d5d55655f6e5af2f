//! Checks a whole data folder without writing to it: the database, every image against its hash, every checkpoint against its manifest; and whether the
//! chains of a checkpoint hold what they should.

mod embed;
mod sample;
mod sampler;
mod sampler_error;
mod sampler_report;

pub use sampler::{SamplerAudit, SamplerAuditConfig, SamplerAuditEvent, SamplerAuditMachine};
pub use sampler_error::SamplerAuditError;
pub use sampler_report::{
    AuditScope, FROZEN_VISITS, MIN_CHAINS, RankFigures, SamplerReport, ScoreFigures, ScoreGap,
    Spread, Verdict,
};

use std::time::Duration;

use serde::Serialize;

use crate::{
    blobs::{BlobError, Blobs},
    checkpoint::{CheckpointError, Checkpoints},
    db::{CheckpointStatus, Db, DbError},
    types::{CheckpointId, Sha256},
};
use kith_mcmc::ImageKey;

/// Images that are looked up together.
const PAGE: u32 = 1024;
/// Bytes that are younger may be on their way to a row.
const ON_ITS_WAY: Duration = Duration::from_secs(60);

const RESTORE_DATABASE: &str = "stop kith and put kith.db back from a backup";

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `database`, `image`, `orphan` or `checkpoint`.
    pub kind: &'static str,
    /// Which one.
    pub id: String,
    /// What was found.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What a check tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// So many things are to be checked.
    Total(u64),
    /// One more was checked.
    Checked,
    /// One is wrong.
    Found(Finding),
}

/// How many things were checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Stored images.
    pub images: u64,
    /// Complete checkpoints.
    pub checkpoints: u64,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A check of one data folder, which a server may be using meanwhile.
pub struct Audit<'a> {
    blobs: &'a Blobs,
    db: &'a Db,
    checkpoints: &'a Checkpoints,
    tell: &'a mut dyn FnMut(Event),
}

impl<'a> Audit<'a> {
    /// `tell` hears of progress and of findings.
    pub fn new(
        blobs: &'a Blobs,
        db: &'a Db,
        checkpoints: &'a Checkpoints,
        tell: &'a mut dyn FnMut(Event),
    ) -> Self {
        Self {
            blobs,
            db,
            checkpoints,
            tell,
        }
    }

    /// Checks everything. A row that cannot be read is a finding, and ends the check.
    pub async fn run(mut self) -> Result<Checked, AuditError> {
        let mut checked = Checked::default();
        match self.check(&mut checked).await {
            Err(AuditError::Db(DbError::Corrupt(what))) => self.found(Finding {
                kind: "database",
                id: "kith.db".into(),
                what: format!("a row cannot be read ({what})"),
                remedy: RESTORE_DATABASE,
            }),
            done => done?,
        }
        Ok(checked)
    }

    async fn check(&mut self, checked: &mut Checked) -> Result<(), AuditError> {
        self.database().await?;
        let complete = self.complete().await?;
        let total = self.db.count_images().await? + complete.len() as u64;
        (self.tell)(Event::Total(total));
        self.images(&mut checked.images).await?;
        self.orphans().await?;
        for id in &complete {
            self.checkpoint(*id).await?;
            checked.checkpoints += 1;
        }
        self.unlisted_checkpoints().await
    }

    async fn complete(&self) -> Result<Vec<CheckpointId>, AuditError> {
        let mut rows = self.db.checkpoints().await?;
        rows.retain(|row| row.status == CheckpointStatus::Complete);
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    async fn database(&mut self) -> Result<(), AuditError> {
        for what in self.db.check().await? {
            self.found(Finding {
                kind: "database",
                id: "kith.db".into(),
                what,
                remedy: RESTORE_DATABASE,
            });
        }
        Ok(())
    }

    async fn images(&mut self, checked: &mut u64) -> Result<(), AuditError> {
        let mut after = ImageKey(0);
        loop {
            let page = self.db.images_after(after, PAGE, None).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.key;
            for row in page {
                self.image(row.sha256).await?;
                *checked += 1;
                (self.tell)(Event::Checked);
            }
        }
    }

    async fn image(&mut self, id: Sha256) -> Result<(), AuditError> {
        let what = match self.blobs.image(id).await {
            Ok(_) => return Ok(()),
            Err(BlobError::NotFound(_)) => "the file is missing".to_owned(),
            Err(BlobError::Damaged(what)) => what,
            Err(error) => return Err(error.into()),
        };
        // It may have been erased since its row was read.
        if self.db.image(id).await?.is_some() {
            self.found(Finding {
                kind: "image",
                id: id.to_string(),
                what,
                remedy: "post the same image again, or delete it",
            });
        }
        Ok(())
    }

    async fn orphans(&mut self) -> Result<(), AuditError> {
        let mut unnamed = Vec::new();
        let mut pages = Vec::new();
        self.blobs.each_image(PAGE as usize, ON_ITS_WAY, |ids| {
            pages.push(ids);
            Ok(())
        })?;
        for page in pages {
            unnamed.extend(self.db.without_row(&page).await?);
        }
        for id in unnamed {
            self.found(Finding {
                kind: "orphan",
                id: id.to_string(),
                what: "bytes are stored that no row of the database names".into(),
                remedy: "start the server again, which removes them",
            });
        }
        Ok(())
    }

    /// Checkpoints whose files are there and whose row is not.
    async fn unlisted_checkpoints(&mut self) -> Result<(), AuditError> {
        for id in self.blobs.checkpoint_ids().await? {
            if self.db.checkpoint(id).await?.is_none() {
                self.found(Finding {
                    kind: "orphan",
                    id: id.to_string(),
                    what: "the files of a checkpoint are stored that no row of the database names"
                        .into(),
                    remedy: "start the server again, which lists it",
                });
            }
        }
        Ok(())
    }

    async fn checkpoint(&mut self, id: CheckpointId) -> Result<(), AuditError> {
        let what = match self.parts(id).await {
            Err(CheckpointError::Db(error)) => return Err(error.into()),
            checked => checked.unwrap_or_else(|error| Some(error.to_string())),
        };
        // It may have been deleted since its row was read.
        if let Some(what) = what
            && self.db.checkpoint(id).await?.is_some()
        {
            self.found(Finding {
                kind: "checkpoint",
                id: id.to_string(),
                what,
                remedy: "delete it and choose another, or put its folder back from a backup",
            });
        }
        (self.tell)(Event::Checked);
        Ok(())
    }

    /// Every file of a checkpoint against its manifest, one at a time; what is wrong.
    async fn parts(&self, id: CheckpointId) -> Result<Option<String>, CheckpointError> {
        for part in self.checkpoints.manifest(id).await?.parts {
            let bytes = self.checkpoints.part(id, &part.name).await?;
            if let Err(error) = part.check(&bytes) {
                return Ok(Some(error.to_string()));
            }
        }
        Ok(None)
    }

    fn found(&mut self, finding: Finding) {
        (self.tell)(Event::Found(finding));
    }
}
