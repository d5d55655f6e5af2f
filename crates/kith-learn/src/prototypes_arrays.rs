//! Prototypes as named arrays, the form in which a checkpoint keeps them beside the optimiser's moments.

use super::prototypes::Prototypes;
use kith_mcmc::SlotKey;
use kith_nn::{NamedArray, NnError};

const PREFIX: &str = "prototypes.";
const VALUES: &str = "prototypes.values";
const SQUARES: &str = "prototypes.squares";
const LOG_REPETITIONS: &str = "prototypes.log_repetitions";
/// `[prototypes, 2]`: the lower and the upper 16 bits of each packed slot, which an f32 holds exactly.
const SOURCES: &str = "prototypes.sources";
/// `[1]`.
const NEXT: &str = "prototypes.next";

impl Prototypes {
    /// All of the state; no arrays if there are no prototypes.
    pub fn to_arrays(&self) -> Vec<NamedArray> {
        if self.is_empty() {
            return Vec::new();
        }
        let (count, dim) = (self.len(), self.values.len() / self.len());
        let halves = |slot: &SlotKey| {
            let packed = slot.packed();
            [(packed & 0xffff) as f32, (packed >> 16) as f32]
        };
        let arrays = [
            (VALUES, vec![count, dim], self.values.clone()),
            (SQUARES, vec![count, dim], self.squares.clone()),
            (LOG_REPETITIONS, vec![count], self.log_repetitions.clone()),
            (
                SOURCES,
                vec![count, 2],
                self.sources.iter().flat_map(halves).collect(),
            ),
            (NEXT, vec![1], vec![self.next as f32]),
        ];
        let named = arrays.map(|(name, shape, data)| NamedArray {
            name: name.to_owned(),
            shape,
            data,
        });
        named.into()
    }

    /// Removes the arrays of [`Prototypes::to_arrays`] from `arrays` and restores the state, of embeddings of `dim` values. No prototypes if
    /// there are no such arrays.
    ///
    /// # Errors
    /// An array is missing or of another shape, or its values are not those of a state. The arrays are removed then too.
    pub fn take_from(arrays: &mut Vec<NamedArray>, dim: usize) -> Result<Self, NnError> {
        let all = std::mem::take(arrays);
        let (own, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|array| array.name.starts_with(PREFIX));
        *arrays = others;
        if own.is_empty() {
            return Ok(Self::default());
        }
        let find = |name: &str| {
            let found = own.iter().find(|array| array.name == name);
            found.ok_or_else(|| unfit(name, "is missing"))
        };
        let count = find(LOG_REPETITIONS)?.data.len();
        let take = |name: &str, shape: &[usize]| {
            let array = find(name)?;
            if array.shape != shape || array.data.len() != shape.iter().product::<usize>() {
                return Err(unfit(name, "has another shape"));
            }
            Ok(array.data.clone())
        };
        let half = |value: f32| (0.0..65536.0).contains(&value).then_some(value as u32);
        let sources = take(SOURCES, &[count, 2])?;
        let slot = |halves: &[f32]| {
            let packed = half(halves[1])? << 16 | half(halves[0])?;
            Some(SlotKey::from_packed(packed))
        };
        let sources: Option<Vec<SlotKey>> = sources.chunks_exact(2).map(slot).collect();
        let read = Self {
            sources: sources.ok_or_else(|| unfit(SOURCES, "holds no slots"))?,
            log_repetitions: take(LOG_REPETITIONS, &[count])?,
            values: take(VALUES, &[count, dim])?,
            squares: take(SQUARES, &[count, dim])?,
            next: take(NEXT, &[1])?[0] as usize,
        };
        Ok(read)
    }
}

fn unfit(name: &str, what: &str) -> NnError {
    NnError::Weights(format!("array `{name}` {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> Prototypes {
        Prototypes {
            sources: [7, u32::MAX - 1, 1 << 20].map(SlotKey::from_packed).into(),
            log_repetitions: vec![0.0, 0.5, -1.0],
            values: (0..6).map(|value| value as f32 / 3.0).collect(),
            squares: (0..6).map(|value| value as f32).collect(),
            next: 2,
        }
    }

    #[test]
    fn prototypes_come_back_from_among_other_arrays() {
        let other = NamedArray {
            name: "fc.weight.m".to_owned(),
            shape: vec![1],
            data: vec![1.0],
        };
        let mut arrays = vec![other.clone()];
        arrays.extend(state().to_arrays());
        let read = Prototypes::take_from(&mut arrays, 2).expect("they fit");
        assert_eq!((read, arrays), (state(), vec![other.clone()]));
        let none = Prototypes::take_from(&mut vec![other], 2).expect("there are none");
        assert!(none.is_empty() && none.to_arrays().is_empty());
    }

    #[test]
    fn arrays_that_do_not_fit_are_refused_by_name_and_removed() {
        let refused = |change: &dyn Fn(&mut Vec<NamedArray>), dim: usize, name: &str| {
            let mut arrays = state().to_arrays();
            change(&mut arrays);
            let error = Prototypes::take_from(&mut arrays, dim).expect_err("they do not fit");
            assert!(error.to_string().contains(name), "{error}");
            assert!(arrays.is_empty());
        };
        refused(&|_| (), 3, VALUES);
        refused(&|arrays| _ = arrays.remove(1), 2, SQUARES);
        refused(&|arrays| arrays[3].data[0] = -1.0, 2, SOURCES);
        refused(&|arrays| arrays[3].data[1] = 65536.0, 2, SOURCES);
    }
}
