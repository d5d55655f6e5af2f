//! The chain table: columns, removals, memory.

use std::collections::HashSet;

use kith_mcmc::{ChainState, ChainTable, PairKey, SlotKey};

fn slot(packed: u32) -> SlotKey {
    SlotKey::from_packed(packed)
}

fn state(negative: u32) -> ChainState {
    ChainState {
        negative: slot(negative),
        log_score: negative as f32 / 3.0,
        step: negative,
        visits: 4,
        visits_since_move: 1,
    }
}

#[test]
fn columns_are_sorted_and_make_the_same_table_again() {
    let table = ChainTable::default();
    (0..500)
        .rev()
        .for_each(|anchor| table.put(slot(anchor), state(anchor * 7 % 500)));
    let columns = table.to_columns();
    assert!(columns.anchor.is_sorted());
    let again = ChainTable::from_columns(&columns).expect("columns are even");
    assert_eq!(again.to_columns(), columns);
    assert_eq!(again.get(slot(3)), Some(state(21)));

    let mut torn = columns;
    torn.visits_since_move.pop();
    assert!(ChainTable::from_columns(&torn).is_err());
}

#[test]
fn forgetting_a_pair_forgets_its_chains_and_the_states_on_its_slots() {
    let table = ChainTable::default();
    table.put(slot(2), state(8)); // pair 1's chain
    table.put(slot(5), state(3)); // its state is a slot of pair 1
    table.put(slot(6), state(5));
    table.forget_pairs(&HashSet::from([PairKey(1)]));
    assert_eq!(table.to_columns().anchor, [6]);
}

#[test]
fn a_chain_takes_at_most_64_bytes() {
    // A hash table is at least 7/16 full after it has grown, with one control byte an entry.
    let entry = size_of::<(SlotKey, ChainState)>() + 1;
    assert!(entry * 16 / 7 <= 64, "{entry}");
}
