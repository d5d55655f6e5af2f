//! Vectors that come and go, and the nearest among them.

use std::collections::HashSet;

use crate::{
    graph::{Graph, Input, MAX_HITS},
    nearest::{Hit, Key, Nearest},
    table::Table,
};

/// Unit vectors by key. Those of the graph are searched by it, the others are scanned.
pub struct Index {
    dim: usize,
    graph: Option<Graph>,
    /// Vectors of the graph that were removed or replaced since it was built.
    removed: HashSet<Key>,
    recent: Table,
}

impl Index {
    /// An empty index of vectors of `dim` values.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            graph: None,
            removed: HashSet::new(),
            recent: Table::new(dim),
        }
    }

    /// Values of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.in_graph() + self.recent.len()
    }

    /// Whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Vectors that are found through the graph; the rest is scanned.
    pub fn in_graph(&self) -> usize {
        let graph = self.graph.as_ref();
        graph.map_or(0, |graph| graph.table().len() - self.removed.len())
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.recent.bytes() + self.graph.as_ref().map_or(0, Graph::bytes)
    }

    /// The vector of `key`.
    pub fn get(&self, key: Key) -> Option<&[f32]> {
        let frozen = || {
            let graph = self.graph.as_ref()?;
            graph
                .table()
                .get(key)
                .filter(|_| !self.removed.contains(&key))
        };
        self.recent.get(key).or_else(frozen)
    }

    /// Adds a vector of unit length, or replaces that of the key.
    ///
    /// # Panics
    /// If the vector does not have [`Index::dim`] values.
    pub fn insert(&mut self, key: Key, vector: &[f32]) {
        assert_eq!(vector.len(), self.dim, "a vector of another space");
        self.remove_from_graph(key);
        self.recent.insert(key, vector);
    }

    /// Removes a vector; `false`: there was none. One in the graph is not found any more, and leaves memory with the graph.
    pub fn remove(&mut self, key: Key) -> bool {
        self.remove_from_graph(key) | self.recent.remove(key)
    }

    /// Keys of all vectors, in any order.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.vectors().map(|(key, _)| key)
    }

    /// All vectors, in any order.
    pub fn vectors(&self) -> impl Iterator<Item = (Key, &[f32])> {
        let frozen = self.graph.iter().flat_map(|graph| graph.table().iter());
        let frozen = frozen.filter(|(key, _)| !self.removed.contains(key));
        frozen.chain(self.recent.iter())
    }

    /// The `k` vectors nearest to `query`, a unit vector, the best first. Exact where all are scanned: without a graph, and where `k` is more than
    /// a graph is asked for. Runs in the current pool of threads.
    pub fn nearest(&self, query: &[f32], k: usize) -> Vec<Hit> {
        let recent = self.recent.scan(query, k, |_| true);
        let frozen = self.graph.as_ref().map(|graph| {
            let by_graph = || graph.search(query, k, &self.removed);
            let found = (k <= MAX_HITS).then(by_graph);
            // Where much was removed near the query, the graph finds too few.
            let enough = |found: &Nearest| found.len() == k.min(self.in_graph());
            found.filter(enough).unwrap_or_else(|| {
                let kept = |key| !self.removed.contains(&key);
                graph.table().scan(query, k, kept)
            })
        });
        match frozen {
            Some(frozen) => recent.merge(frozen).into_hits(),
            None => recent.into_hits(),
        }
    }

    /// The `k` vectors among those of `keys` that are nearest to `query`, exactly.
    pub fn nearest_of(&self, keys: &[Key], query: &[f32], k: usize) -> Vec<Hit> {
        let mut some = Table::new(self.dim);
        for key in keys {
            if let Some(vector) = self.get(*key) {
                some.insert(*key, vector);
            }
        }
        some.scan(query, k, |_| true).into_hits()
    }

    /// A copy of all vectors to build a new graph from, if more than `max_scanned` are outside of it, and more than a quarter of it: the larger
    /// it is, the rarer it is built anew.
    pub fn graph_input(&self, max_scanned: usize) -> Option<Input> {
        let outside = self.recent.len() + self.removed.len();
        if outside <= max_scanned.max(self.in_graph() / 4) {
            return None;
        }
        let mut table = Table::new(self.dim);
        for (key, vector) in self.vectors() {
            table.insert(key, vector);
        }
        Some(Input(table))
    }

    /// Puts a new graph in place of the old. What came or went since its input was copied stays so.
    pub fn set_graph(&mut self, graph: Graph) {
        let mut recent = Table::new(self.dim);
        let mut removed = HashSet::new();
        for (key, vector) in self.vectors() {
            if graph.table().get(key) != Some(vector) {
                recent.insert(key, vector);
            }
        }
        for (key, _) in graph.table().iter() {
            if self.get(key).is_none() || recent.contains(key) {
                removed.insert(key);
            }
        }
        (self.graph, self.recent, self.removed) = (Some(graph), recent, removed);
    }

    fn remove_from_graph(&mut self, key: Key) -> bool {
        let graph = self.graph.as_ref();
        let there = graph.is_some_and(|graph| graph.table().contains(key));
        there && self.removed.insert(key)
    }
}
