//! A graph over many vectors (HNSW, Malkov and Yashunin 2016), which is built once and then only searched.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use instant_distance::{Builder, Hnsw, Point, Search};

use crate::{
    nearest::{Hit, Key, Nearest},
    product::Product,
    progress::Progress,
    table::Table,
};

/// Candidates that a search holds at once. It finds about so many of the nearest, and the first of them most surely.
const EF_SEARCH: usize = 256;
/// The same while the graph is built.
const EF_CONSTRUCTION: usize = 128;
/// Most hits that the graph is asked for; more are found by a scan.
pub(crate) const MAX_HITS: usize = EF_SEARCH / 4;

/// What a graph is built from: a copy of an index's vectors at one moment.
pub struct Input(pub(crate) Table);

impl Input {
    /// Builds the graph in the current pool: minutes of all its threads for a million vectors. Equal inputs give graphs that find nearly the
    /// same, not the same: threads add points in any order.
    pub fn build(self, progress: &Progress) -> Graph {
        let table = Arc::new(self.0);
        let stored = |row| Place::Row(table.clone(), row);
        let points: Vec<Place> = (0..table.len()).map(stored).collect();
        let builder = Builder::default()
            .seed(0)
            .progress(progress.bar())
            .ef_search(EF_SEARCH)
            .ef_construction(EF_CONSTRUCTION);
        let (hnsw, _) = builder.build_hnsw(points);
        Graph {
            table,
            hnsw,
            idle: Mutex::default(),
        }
    }
}

/// Vectors and the graph over them.
pub struct Graph {
    table: Arc<Table>,
    hnsw: Hnsw<Place>,
    /// Working memory of searches: a byte for each vector.
    idle: Mutex<Vec<Search>>,
}

impl Graph {
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Bytes of the vectors and the graph.
    pub(crate) fn bytes(&self) -> usize {
        // 64 neighbours of four bytes each, and half of that again for one point in 32 of every layer above.
        self.table.bytes() + self.table.len() * (64 * 4 + size_of::<Place>() + 8)
    }

    /// Nearly the `k` vectors nearest to `query`, without those in `left_out`.
    pub(crate) fn search(&self, query: &[f32], k: usize, left_out: &HashSet<Key>) -> Nearest {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut search = idle().pop().unwrap_or_default();
        let mut nearest = Nearest::new(k);
        for found in self.hnsw.search(&Place::Query(query.into()), &mut search) {
            let Place::Row(table, row) = found.point else {
                continue;
            };
            let key = table.key(*row);
            if !left_out.contains(&key) {
                let score = 1.0 - found.distance;
                nearest.add(Hit { key, score });
            }
        }
        idle().push(search);
        nearest
    }
}

/// Where a point's vector is: the graph shares the table's rows.
#[derive(Clone)]
enum Place {
    Row(Arc<Table>, usize),
    Query(Arc<[f32]>),
}

impl Place {
    fn vector(&self) -> &[f32] {
        match self {
            Self::Row(table, row) => table.row(*row),
            Self::Query(vector) => vector,
        }
    }
}

impl Point for Place {
    fn distance(&self, other: &Self) -> f32 {
        1.0 - Product::default().of(self.vector(), other.vector())
    }
}
