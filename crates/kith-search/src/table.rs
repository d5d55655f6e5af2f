//! Vectors in rows, found by key and scanned in parallel.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::{
    nearest::{Hit, Key, Nearest},
    product::Product,
};

/// Values that one thread scans at once: 256 KiB.
const VALUES_A_TASK: usize = 64 * 1024;

/// Rows of `dim` values each, of unit length.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    dim: usize,
    keys: Vec<Key>,
    /// `[keys.len(), dim]`.
    values: Vec<f32>,
    rows: HashMap<Key, usize>,
}

impl Table {
    pub(crate) fn new(dim: usize) -> Self {
        Self {
            dim,
            keys: Vec::new(),
            values: Vec::new(),
            rows: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// `[len, dim]`.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn key(&self, row: usize) -> Key {
        self.keys[row]
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    pub(crate) fn get(&self, key: Key) -> Option<&[f32]> {
        self.rows.get(&key).map(|row| self.row(*row))
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.rows.contains_key(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &[f32])> {
        self.keys
            .iter()
            .copied()
            .zip(self.values.chunks_exact(self.dim))
    }

    /// Bytes that the rows take, the map of keys estimated.
    pub(crate) fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<f32>()
            + self.keys.capacity() * size_of::<Key>()
            + self.rows.capacity() * size_of::<(Key, usize, u8)>()
    }

    /// Adds a vector, or replaces that of the key.
    pub(crate) fn insert(&mut self, key: Key, vector: &[f32]) {
        debug_assert_eq!(vector.len(), self.dim);
        if let Some(row) = self.rows.get(&key) {
            let values = row * self.dim..(row + 1) * self.dim;
            self.values[values].copy_from_slice(vector);
            return;
        }
        self.rows.insert(key, self.keys.len());
        self.keys.push(key);
        self.values.extend_from_slice(vector);
    }

    /// Removes a vector; the last row takes its place.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        let Some(row) = self.rows.remove(&key) else {
            return false;
        };
        let last = self.keys.len() - 1;
        self.keys.swap_remove(row);
        self.values
            .copy_within(last * self.dim..(last + 1) * self.dim, row * self.dim);
        // A copy beyond the end would stay in memory after the image is erased.
        self.values[last * self.dim..].fill(0.0);
        self.values.truncate(last * self.dim);
        if let Some(moved) = self.keys.get(row) {
            self.rows.insert(*moved, row);
        }
        true
    }

    /// The `k` rows nearest to `query` of those that `accepts`, by a scan in the current pool.
    pub(crate) fn scan(
        &self,
        query: &[f32],
        k: usize,
        accepts: impl Fn(Key) -> bool + Sync,
    ) -> Nearest {
        let rows = (VALUES_A_TASK / self.dim).max(1);
        let product = Product::default();
        let tasks = self.keys.par_chunks(rows);
        let tasks = tasks.zip(self.values.par_chunks(rows * self.dim));
        let scanned = tasks.fold(
            || Nearest::new(k),
            |mut nearest, (keys, values)| {
                product.with_rows(query, values, |row, score| {
                    let key = keys[row];
                    if accepts(key) {
                        nearest.add(Hit { key, score });
                    }
                });
                nearest
            },
        );
        scanned.reduce(|| Nearest::new(k), Nearest::merge)
    }
}
