//! The files of a checkpoint: weights and moments, chains, manifest.

use kith::checkpoint::{Manifest, Model};
use kith_mcmc::{ChainTable, chains_from_bytes, chains_to_bytes};
use kith_nn::{Precision, arrays_from_bytes, arrays_to_bytes};

use super::weights_files::cpu;

/// A file of arrays without any: what the manifests of the corpus describe.
const NO_ARRAYS: &[u8] = b"\x08\0\0\0\0\0\0\0{}      ";

/// Arrays that can be read are of the shape that they state, and come back from a file of their own bit for bit.
pub fn safetensors(bytes: &[u8]) -> bool {
    let Ok(arrays) = arrays_from_bytes(bytes) else {
        return false;
    };
    for array in &arrays {
        assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
    }
    let written = arrays_to_bytes(&arrays).expect("arrays that were read can be written");
    let again = arrays_from_bytes(&written).expect("arrays that were written can be read");
    assert_eq!(again.len(), arrays.len());
    let bits = |data: &[f32]| data.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for (one, other) in arrays.iter().zip(&again) {
        assert_eq!((&one.name, &one.shape), (&other.name, &other.shape));
        assert_eq!(bits(&one.data), bits(&other.data));
    }
    true
}

/// Columns that can be read are of one length, make a table, and come back from a file of their own.
pub fn chains(bytes: &[u8]) -> bool {
    let Ok(columns) = chains_from_bytes(bytes) else {
        return false;
    };
    let table = ChainTable::from_columns(&columns).expect("columns from a file are even");
    assert!(table.len() <= columns.anchor.len());
    let stored = table.to_columns();
    assert!(stored.anchor.is_sorted());
    let written = chains_to_bytes(&stored).expect("columns can be written");
    let again = chains_from_bytes(&written).expect("columns that were written can be read");
    assert_eq!(again.anchor, stored.anchor);
    assert_eq!(again.visits_since_move, stored.visits_since_move);
    true
}

/// A manifest is refused, or its numbers can be stored and used; the model that it describes opens or is refused.
pub fn manifest(bytes: &[u8]) -> bool {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) {
        let sizes = manifest.parts.iter().map(|part| part.bytes);
        assert!(sizes.max().unwrap_or_default() <= manifest.bytes());
        let refused = manifest.check_preprocessing().err();
        assert!(refused.is_none_or(|why| !why.to_string().is_empty()));
    }
    let Ok(model) = Model::from_files(bytes, NO_ARRAYS) else {
        return false;
    };
    assert!(i64::try_from(model.step).is_ok(), "a row can hold the step");
    assert!(model.range.is_none_or(f32::is_finite));
    let opened = model.open(&cpu(), Precision::F32);
    assert!(opened.is_err(), "no network is without weights");
    true
}
