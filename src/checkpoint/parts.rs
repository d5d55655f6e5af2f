//! Arrays and chains as the bytes of a safetensors file, and back. Must never know: where the bytes are kept.

use std::{borrow::Cow, collections::HashMap};

use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};

use crate::{
    mcmc::{ChainColumns, StateKind},
    types::NamedArray,
};

/// Key of the file's own description of its states; a file without it holds chains.
const STATES: &str = "states";
const CHAINS: &str = "chains";
const AVERAGES: &str = "averages";

/// One array on its way into a file. The copy in bytes lives only while the file's writer takes it, so that a model is in memory
/// twice at most: as arrays and as the file.
struct Column<'a> {
    shape: Cow<'a, [usize]>,
    values: Values<'a>,
}

#[derive(Clone, Copy)]
enum Values<'a> {
    Floats(&'a [f32]),
    Integers(&'a [u32]),
}

impl View for Column<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::Floats(_) => Dtype::F32,
            Values::Integers(_) => Dtype::U32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.values {
            Values::Floats(values) => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Values::Integers(values) => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    fn data_len(&self) -> usize {
        4 * match self.values {
            Values::Floats(values) => values.len(),
            Values::Integers(values) => values.len(),
        }
    }
}

/// A safetensors file of f32 arrays.
pub fn arrays_to_bytes(arrays: &[NamedArray]) -> Result<Vec<u8>, String> {
    let columns = arrays.iter().map(|array| {
        let shape = Cow::Borrowed(&array.shape[..]);
        let values = Values::Floats(&array.data);
        (&array.name, Column { shape, values })
    });
    safetensors::serialize(columns, None).map_err(|error| error.to_string())
}

/// The arrays of a file, sorted by name.
pub fn arrays_from_bytes(bytes: &[u8]) -> Result<Vec<NamedArray>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut arrays = file
        .iter()
        .map(|(name, view)| {
            Ok(NamedArray {
                name: name.to_owned(),
                shape: view.shape().to_vec(),
                data: floats(name, &view)?,
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    arrays.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(arrays)
}

/// A safetensors file with one column of the chain table an entry.
pub fn chains_to_bytes(chains: &ChainColumns) -> Result<Vec<u8>, String> {
    let columns = [
        ("anchor", Values::Integers(&chains.anchor)),
        ("negative", Values::Integers(&chains.negative)),
        ("log_score", Values::Floats(&chains.log_score)),
        ("step", Values::Integers(&chains.step)),
        ("visits", Values::Integers(&chains.visits)),
        ("still", Values::Integers(&chains.still)),
    ];
    let shape = [chains.anchor.len()];
    let columns = columns.map(|(name, values)| {
        let shape = Cow::Borrowed(&shape[..]);
        (name, Column { shape, values })
    });
    let kind = match chains.kind {
        StateKind::Chains => CHAINS,
        StateKind::Averages => AVERAGES,
    };
    let description = HashMap::from([(STATES.to_owned(), kind.to_owned())]);
    safetensors::serialize(columns, Some(description)).map_err(|error| error.to_string())
}

fn states(bytes: &[u8]) -> Result<StateKind, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let description = header.metadata().as_ref();
    match description.and_then(|description| description.get(STATES)) {
        None => Ok(StateKind::Chains),
        Some(kind) if kind == CHAINS => Ok(StateKind::Chains),
        Some(kind) if kind == AVERAGES => Ok(StateKind::Averages),
        Some(other) => Err(format!("its states are of the unknown kind {other}")),
    }
}

/// The columns of a file; all six must be there and equally long.
pub fn chains_from_bytes(bytes: &[u8]) -> Result<ChainColumns, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let column = |name: &str| file.tensor(name).map_err(|error| error.to_string());
    let integers = |name: &str| integers(name, &column(name)?);
    let columns = ChainColumns {
        kind: states(bytes)?,
        anchor: integers("anchor")?,
        negative: integers("negative")?,
        log_score: floats("log_score", &column("log_score")?)?,
        step: integers("step")?,
        visits: integers("visits")?,
        still: integers("still")?,
    };
    let rows = columns.anchor.len();
    let even = [
        columns.negative.len(),
        columns.log_score.len(),
        columns.step.len(),
        columns.visits.len(),
        columns.still.len(),
    ]
    .iter()
    .all(|length| *length == rows);
    even.then_some(columns)
        .ok_or_else(|| "its columns differ in length".to_owned())
}

fn floats(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, String> {
    Ok(words(name, view, Dtype::F32)?
        .map(f32::from_le_bytes)
        .collect())
}

fn integers(name: &str, view: &TensorView<'_>) -> Result<Vec<u32>, String> {
    Ok(words(name, view, Dtype::U32)?
        .map(u32::from_le_bytes)
        .collect())
}

fn words<'a>(
    name: &str,
    view: &TensorView<'a>,
    wanted: Dtype,
) -> Result<impl Iterator<Item = [u8; 4]> + use<'a>, String> {
    if view.dtype() != wanted {
        return Err(format!(
            "{name} is of type {:?}, not {wanted:?}",
            view.dtype()
        ));
    }
    let (words, _) = view.data().as_chunks::<4>();
    Ok(words.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back_bit_for_bit_and_sorted_by_name() {
        let array = |name: &str, shape: &[usize], data: &[f32]| NamedArray {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data: data.to_vec(),
        };
        let arrays = [
            array(
                "fc.weight",
                &[2, 2],
                &[1.0, -0.0, f32::MIN_POSITIVE / 2.0, 3.4e38],
            ),
            array("conv1.weight", &[3], &[0.1, 0.2, 0.3]),
        ];
        let back = arrays_from_bytes(&arrays_to_bytes(&arrays).unwrap()).unwrap();
        assert_eq!(back[0], arrays[1]);
        let bits = |array: &NamedArray| array.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back[1]), bits(&arrays[0]));
    }

    #[test]
    fn chains_come_back_and_an_empty_table_is_a_table() {
        let chains = ChainColumns {
            kind: StateKind::Averages,
            anchor: vec![1, 4],
            negative: vec![9, u32::MAX],
            log_score: vec![-0.25, 9.5],
            step: vec![7, 8],
            visits: vec![1, 2],
            still: vec![0, 3],
        };
        for chains in [chains, ChainColumns::default()] {
            let bytes = chains_to_bytes(&chains).unwrap();
            assert_eq!(chains_from_bytes(&bytes).unwrap(), chains);
        }
    }

    #[test]
    fn arrays_are_not_taken_for_chains() {
        let bytes = arrays_to_bytes(&[]).unwrap();
        assert!(chains_from_bytes(&bytes).is_err());
    }
}
