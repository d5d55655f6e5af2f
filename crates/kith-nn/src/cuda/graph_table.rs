//! Captured graphs by the size of a pass.

use std::collections::HashMap;

/// Images in a pass, and pixels across each.
pub(super) type PassSize = (usize, usize);

/// Captured graphs of one kind. A graph that is in use has been taken out.
pub(super) struct GraphTable<G>(HashMap<PassSize, Entry<G>>);

impl<G> Default for GraphTable<G> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// The state of one size.
pub(super) enum Entry<G> {
    /// A pass of this size ran without a graph. The second one is captured.
    SeenOnce,
    /// A pass of this size cannot be captured.
    Rejected,
    /// The captured graph.
    Captured(G),
}

impl<G> GraphTable<G> {
    /// Takes the graph of `size` out of the table; [`GraphTable::put`] must follow. `Some(None)`: it is to be captured now. `None`: a pass of
    /// this size is to run without a graph.
    pub(super) fn take(&mut self, size: PassSize) -> Option<Option<G>> {
        match self.0.get(&size)? {
            Entry::Rejected => None,
            Entry::SeenOnce | Entry::Captured(_) => match self.0.remove(&size)? {
                Entry::Captured(graph) => Some(Some(graph)),
                Entry::SeenOnce | Entry::Rejected => Some(None),
            },
        }
    }

    /// Notes that a pass of `size` has run without a graph. If the table has `max_sizes` already, it is emptied first.
    pub(super) fn note_seen(&mut self, size: PassSize, max_sizes: usize) {
        if self.0.contains_key(&size) {
            return;
        }
        if self.0.len() >= max_sizes {
            self.0.clear();
        }
        self.0.insert(size, Entry::SeenOnce);
    }

    /// Sets the state of `size`.
    pub(super) fn put(&mut self, size: PassSize, entry: Entry<G>) {
        self.0.insert(size, entry);
    }

    /// Number of captured graphs.
    pub(super) fn captured(&self) -> usize {
        let is_captured = |entry: &&Entry<G>| matches!(entry, Entry::Captured(_));
        self.0.values().filter(is_captured).count()
    }
}
