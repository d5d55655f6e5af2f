//! What the chain table costs: memory for each anchor, the pause of a snapshot, and the time to write the table.

use std::{fs, io::Write as _, path::Path, time::Instant};

use super::{
    StudyError,
    fixture::visited_chains,
    recipe::{Recipe, Snapshot, chain_table},
    run_recorder::RunRecorder,
};
use kith_mcmc::{ChainColumns, chains_to_bytes};
use kith_nn::memory::resident;

/// Resident bytes of the chain table for each anchor.
pub(super) const BYTES: &str = "bytes_an_anchor";
/// Time to copy the whole state: weights, moments and chains.
pub(super) const PAUSE: &str = "pause_milliseconds";
/// Time to write the chain table to the disk.
pub(super) const WRITE: &str = "write_milliseconds";

/// Records the three costs for each number of chains.
///
/// All tables are built before anything else: memory that was used and freed before would be used again.
pub(super) fn measure(
    chains: &[u64],
    recipe: &Recipe,
    out: &Path,
    recorder: &mut RunRecorder<'_>,
) -> Result<(), StudyError> {
    let mut tables = Vec::new();
    for chains in chains {
        let columns = visited_chains(*chains, recipe.seed);
        let before = resident();
        let table = chain_table(&columns)?;
        let grown = before
            .zip(resident())
            .map(|(before, after)| after as f64 - before as f64);
        tables.push((table, grown));
    }
    let mut learner = recipe.fresh()?;
    for (chains, (table, grown)) in chains.iter().zip(tables) {
        learner.table = table;
        let started = Instant::now();
        let snapshot = Snapshot::capture(&learner)?;
        let pause = started.elapsed();
        let started = Instant::now();
        write(&snapshot.chains, out)?;
        let mut values = vec![
            (PAUSE, 1e3 * pause.as_secs_f64()),
            (WRITE, 1e3 * started.elapsed().as_secs_f64()),
        ];
        // The tables of a later seed reuse the memory of the first one's, and measure nothing.
        let grown = grown.filter(|bytes| *bytes > 0.0);
        values.extend(grown.map(|bytes| (BYTES, bytes / *chains as f64)));
        recorder.record(*chains, &values)?;
    }
    recorder.advance(chains.last().copied().unwrap_or(0));
    Ok(())
}

/// Writes the columns to a file in `out`, waits until they are on disk, and removes the file.
fn write(columns: &ChainColumns, out: &Path) -> Result<(), StudyError> {
    let bytes = chains_to_bytes(columns).map_err(|error| StudyError::config(error.to_string()))?;
    let path = out.join("chains.safetensors");
    let put = || {
        let mut file = fs::File::create(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::remove_file(&path)
    };
    put().map_err(|error| StudyError::io(&path, error))
}
