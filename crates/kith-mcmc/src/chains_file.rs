//! Converts a chain table's columns to the bytes of a safetensors file and back.

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{ChainColumns, StateKind};

/// Key of the file's metadata that names the [`StateKind`]; a file without it holds chains.
const STATES: &str = "states";
const CHAINS: &str = "chains";
const AVERAGES: &str = "averages";
/// Column of [`ChainColumns::visits_since_move`].
const STILL: &str = "still";

/// Encodes a chain table as a safetensors file with one array `[chains]` for each column, in little-endian words.
///
/// Fails with the library's message if the file cannot be written.
pub fn chains_to_bytes(chains: &ChainColumns) -> Result<Vec<u8>, String> {
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
        views.push((*name, view.map_err(|error| error.to_string())?));
    }
    let kind = match chains.kind {
        StateKind::Chains => CHAINS,
        StateKind::Averages => AVERAGES,
    };
    let metadata = HashMap::from([(STATES.to_owned(), kind.to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| error.to_string())
}

fn states(bytes: &[u8]) -> Result<StateKind, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let metadata = header.metadata().as_ref();
    match metadata.and_then(|metadata| metadata.get(STATES)) {
        None => Ok(StateKind::Chains),
        Some(kind) if kind == CHAINS => Ok(StateKind::Chains),
        Some(kind) if kind == AVERAGES => Ok(StateKind::Averages),
        Some(other) => Err(format!("its states are of the unknown kind {other}")),
    }
}

/// Decodes a file of [`chains_to_bytes`].
///
/// Fails if the bytes are no safetensors file, if one of the six columns is missing or has another type, if columns differ in length, or
/// if the file names an unknown [`StateKind`].
pub fn chains_from_bytes(bytes: &[u8]) -> Result<ChainColumns, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let column = |name: &str, kind: Dtype| {
        let view = file.tensor(name).map_err(|error| error.to_string())?;
        words(name, &view, kind)
    };
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
        return Err("its columns differ in length".to_owned());
    }
    Ok(columns)
}

fn words(name: &str, view: &TensorView<'_>, wanted: Dtype) -> Result<Vec<u32>, String> {
    if view.dtype() != wanted {
        return Err(format!(
            "{name} is of type {:?}, not {wanted:?}",
            view.dtype()
        ));
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
