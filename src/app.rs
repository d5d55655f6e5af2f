//! The running whole: which parts there are, and the order in which they start and stop.
//! Must never know: HTTP, the command line.

use crate::{
    blobs::Blobs, checkpoint::Checkpoints, config::Settings, db::Db, ingest::Ingest, nn::Device,
    serve::Serving, train::Trainer,
};

/// All parts, started. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The effective settings.
    pub settings: std::sync::Arc<Settings>,
    /// The database.
    pub db: Db,
    /// The blob store.
    pub blobs: Blobs,
    /// The way in for images and pairs.
    pub ingest: Ingest,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// The serving side.
    pub serving: Serving,
    /// The training side.
    pub trainer: Trainer,
    /// Where the encoder runs.
    pub device: Device,
}

impl App {
    /// Opens the data folder (locked against a second process), migrates, resumes or writes checkpoint 0, serves, trains.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        todo!("{settings:?}")
    }
    /// Stops in order: answers accepted requests, last snapshot, database. HTTP must have stopped accepting before.
    pub async fn stop(&self) -> Result<(), StartError> {
        todo!()
    }
}

/// Why the server cannot start or stop cleanly, in one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// Refuses an address that others can reach, unless the settings allow it: there are no API keys.
pub fn check_exposure(server: &crate::config::ServerConfig) -> Result<(), StartError> {
    let _ = server;
    todo!()
}
