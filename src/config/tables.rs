//! TOML tables whose values are found by dotted paths, such as `learning.sampler.burn_in`.

use toml::{Table, Value};

/// The paths of all values below `table` that are not tables.
pub(super) fn leaves(table: &Table) -> Vec<String> {
    let mut paths = Vec::new();
    collect("", table, &mut paths);
    paths
}

fn collect(prefix: &str, table: &Table, into: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            Value::Table(inner) => collect(&path, inner, into),
            _ => into.push(path),
        }
    }
}

/// The value at `path`.
pub(super) fn find<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((first, rest)) => find(table.get(first)?.as_table()?, rest),
        None => table.get(path),
    }
}

/// Sets the value at `path` and makes the tables on the way. A prefix of `path` must not be a value.
pub(super) fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table
                .entry(first)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
