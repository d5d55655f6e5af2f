//! The weights that a snapshot keeps beside the moments: those in training while others serve in their place, a fitted projection or an average, and
//! those that training began with.

use super::Snapshot;
use kith_nn::NamedArray;

/// After the names of the arrays that fitted ones stand in for.
const REPLACED: &str = ".replaced";
/// After the names of the weights in training, if those that serve are their average.
const TRAINED: &str = ".trained";
/// After the names of the weights that training began with, if a share of the average stays with them.
const START: &str = ".start";

impl Snapshot {
    /// Whether it is of a stop, which leaves no time for a fit. One without moments is of a file, whose projection came with it.
    pub fn is_unfitted(&self) -> bool {
        !self.optimizer.is_empty() && !self.is_fitted()
    }

    /// Whether it has a projection that was fitted.
    pub fn is_fitted(&self) -> bool {
        self.optimizer.iter().any(is_replaced)
    }

    /// Puts `fitted` arrays in the place of those of the same names. Those that training ended with are kept.
    pub fn replace(&mut self, fitted: impl IntoIterator<Item = NamedArray>) {
        let kept = self.is_fitted();
        for mut fitted in fitted {
            let mut model = self.model.iter_mut();
            let Some(array) = model.find(|array| array.name == fitted.name) else {
                continue;
            };
            std::mem::swap(array, &mut fitted);
            if !kept {
                fitted.name.push_str(REPLACED);
                self.optimizer.push(fitted);
            }
        }
    }

    /// Undoes a fit: it has the projection again that its weights were trained with.
    pub fn take_back_fit(&mut self) {
        for mut array in self.optimizer.extract_if(.., |array| is_replaced(array)) {
            array.name.truncate(array.name.len() - REPLACED.len());
            let mut model = self.model.iter_mut();
            if let Some(place) = model.find(|other| other.name == array.name) {
                *place = array;
            }
        }
    }

    /// Takes out the weights in training, under their own names; empty if they are those that serve.
    pub fn take_trained(&mut self) -> Vec<NamedArray> {
        self.take_kept(TRAINED)
    }

    /// Takes out the weights that training began with, under their own names; empty if no share of the average stays with them.
    pub fn take_start(&mut self) -> Vec<NamedArray> {
        self.take_kept(START)
    }

    fn take_kept(&mut self, suffix: &str) -> Vec<NamedArray> {
        let is_kept = |array: &mut NamedArray| array.name.ends_with(suffix);
        let mut kept: Vec<_> = self.optimizer.extract_if(.., is_kept).collect();
        for array in &mut kept {
            array.name.truncate(array.name.len() - suffix.len());
        }
        kept
    }

    /// The weights that training goes on from, which are not those that serve.
    pub fn into_weights_in_training(mut self) -> Vec<NamedArray> {
        self.take_back_fit();
        let trained = self.take_trained();
        if trained.is_empty() {
            self.model
        } else {
            trained
        }
    }
}

/// `weights` in training under the names that they are kept by.
pub fn kept_as_trained(weights: Vec<NamedArray>) -> Vec<NamedArray> {
    kept_as(TRAINED, weights)
}

/// `weights` that training began with under the names that they are kept by.
pub fn kept_as_start(weights: Vec<NamedArray>) -> Vec<NamedArray> {
    kept_as(START, weights)
}

fn kept_as(suffix: &str, mut weights: Vec<NamedArray>) -> Vec<NamedArray> {
    for array in &mut weights {
        array.name.push_str(suffix);
    }
    weights
}

fn is_replaced(array: &NamedArray) -> bool {
    array.name.ends_with(REPLACED)
}
