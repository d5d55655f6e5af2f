//! Converts a chain table's columns to the bytes of a safetensors file and back.

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};

use crate::{ChainColumns, StateKind};

/// Key of the file's metadata that names the [`StateKind`]; a file without it holds chains.
const STATES: &str = "states";
const CHAINS: &str = "chains";
const AVERAGES: &str = "averages";
/// Column of [`ChainColumns::visits_since_move`].
const STILL: &str = "still";

/// Why a chain table cannot be written as a file, or a file is no chain table.
#[derive(Debug, thiserror::Error)]
pub enum ChainsFileError {
    /// It is no safetensors file, a column is missing, or the file cannot be written.
    #[error(transparent)]
    Safetensors(#[from] SafeTensorError),
    /// A column has another type.
    #[error("{name} is of type {found:?}, not {wanted:?}")]
    ColumnType {
        /// The column.
        name: &'static str,
        /// The type that it has.
        found: Dtype,
        /// The type that it must have.
        wanted: Dtype,
    },
    /// The file names a kind of states that this version does not know.
    #[error("its states are of the unknown kind {0}")]
    UnknownStates(String),
    /// Its columns differ in length.
    #[error("its columns differ in length")]
    UnevenColumns,
}

/// Encodes a chain table as a safetensors file with one array `[chains]` for each column, in little-endian words.
///
/// # Errors
/// [`ChainsFileError::Safetensors`] if the file cannot be written.
pub fn chains_to_bytes(chains: &ChainColumns) -> Result<Vec<u8>, ChainsFileError> {
    let integers = |values: &[u32]| -> Vec<u8> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        bytes.collect()
    };
    let scores = chains.log_score.iter().map(|score| score.to_bits());
    let columns = [
        ("anchor", Dtype::U32, integers(&chains.anchor)),
        ("negative", Dtype::U32, integers(&chains.negative)),
        (
            "log_score",
            Dtype::F32,
            integers(&scores.collect::<Vec<_>>()),
        ),
        ("step", Dtype::U32, integers(&chains.step)),
        ("visits", Dtype::U32, integers(&chains.visits)),
        (STILL, Dtype::U32, integers(&chains.visits_since_move)),
    ];
    let mut views = Vec::with_capacity(columns.len());
    for (name, kind, bytes) in &columns {
        let view = TensorView::new(*kind, vec![bytes.len() / 4], bytes);
        views.push((*name, view?));
    }
    let kind = match chains.kind {
        StateKind::Chains => CHAINS,
        StateKind::Averages => AVERAGES,
    };
    let metadata = HashMap::from([(STATES.to_owned(), kind.to_owned())]);
    Ok(safetensors::serialize(views, Some(metadata))?)
}

fn states(bytes: &[u8]) -> Result<StateKind, ChainsFileError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let metadata = header.metadata().as_ref();
    match metadata.and_then(|metadata| metadata.get(STATES)) {
        None => Ok(StateKind::Chains),
        Some(kind) if kind == CHAINS => Ok(StateKind::Chains),
        Some(kind) if kind == AVERAGES => Ok(StateKind::Averages),
        Some(other) => Err(ChainsFileError::UnknownStates(other.clone())),
    }
}

/// Decodes a file of [`chains_to_bytes`].
///
/// # Errors
/// The bytes are no safetensors file, one of the six columns is missing or has another type, columns differ in length, or the file names an
/// unknown [`StateKind`].
pub fn chains_from_bytes(bytes: &[u8]) -> Result<ChainColumns, ChainsFileError> {
    let file = SafeTensors::deserialize(bytes)?;
    let column = |name: &'static str, kind: Dtype| words(name, &file.tensor(name)?, kind);
    let log_score = column("log_score", Dtype::F32)?;
    let columns = ChainColumns {
        kind: states(bytes)?,
        anchor: column("anchor", Dtype::U32)?,
        negative: column("negative", Dtype::U32)?,
        log_score: log_score.into_iter().map(f32::from_bits).collect(),
        step: column("step", Dtype::U32)?,
        visits: column("visits", Dtype::U32)?,
        visits_since_move: column(STILL, Dtype::U32)?,
    };
    let lengths = [
        columns.negative.len(),
        columns.log_score.len(),
        columns.step.len(),
        columns.visits.len(),
        columns.visits_since_move.len(),
    ];
    if lengths.iter().any(|length| *length != columns.anchor.len()) {
        return Err(ChainsFileError::UnevenColumns);
    }
    Ok(columns)
}

fn words(
    name: &'static str,
    view: &TensorView<'_>,
    wanted: Dtype,
) -> Result<Vec<u32>, ChainsFileError> {
    let found = view.dtype();
    if found != wanted {
        return Err(ChainsFileError::ColumnType {
            name,
            found,
            wanted,
        });
    }
    let (words, _) = view.data().as_chunks::<4>();
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_come_back_and_an_empty_table_is_a_table() {
        let chains = ChainColumns {
            kind: StateKind::Averages,
            anchor: vec![1, 4],
            negative: vec![9, u32::MAX],
            log_score: vec![-0.25, 9.5],
            step: vec![7, 8],
            visits: vec![1, 2],
            visits_since_move: vec![0, 3],
        };
        for chains in [chains, ChainColumns::default()] {
            let bytes = chains_to_bytes(&chains).unwrap();
            assert_eq!(chains_from_bytes(&bytes).unwrap(), chains);
        }
    }

    #[test]
    fn a_file_without_the_columns_is_not_taken_for_chains() {
        let other: [(&str, TensorView<'_>); 0] = [];
        let bytes = safetensors::serialize(other, None).unwrap();
        assert!(chains_from_bytes(&bytes).is_err());
    }
}
