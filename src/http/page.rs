//! Cursor pages: `?limit=&after=` in, `{"data": […], "next": …}` out.
//! Must never know: what is listed.

use serde::{Deserialize, Serialize};

use super::error::ApiError;

/// Most rows of a page.
const MOST: u32 = 1000;

/// Which page is wanted. Not flattened into others: unknown parameters must be refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParams {
    /// Rows, 1 to 1000.
    #[serde(default = "usual")]
    pub(super) limit: u32,
    /// The last page's `next`.
    pub(super) after: Option<String>,
    /// Pairs only: those of one group.
    pub(super) group: Option<String>,
    /// Images only: those whose stored bytes are damaged, or are not.
    pub(super) damaged: Option<bool>,
}

/// A page; `next` is null on the last one.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Page<T> {
    data: Vec<T>,
    next: Option<String>,
}

fn usual() -> u32 {
    100
}

impl PageParams {
    /// The key after which the page begins (keys start at 1), and its length.
    pub(super) fn read(&self) -> Result<(u32, u32), ApiError> {
        if !(1..=MOST).contains(&self.limit) {
            let message = format!("limit is {}; ask for 1 to {MOST} rows", self.limit);
            return Err(ApiError::invalid("invalid_limit", "limit", message));
        }
        let after = self.after.as_deref().unwrap_or("0").parse();
        let after = after.map_err(|_| {
            let message = "after is not a cursor: give the last page's \"next\"";
            ApiError::invalid("invalid_cursor", "after", message)
        })?;
        Ok((after, self.limit))
    }
}

impl<T> Page<T> {
    /// From `limit + 1` rows at most: the one too many says that there is a next page. `key` is a row's cursor.
    pub(super) fn of<R>(
        mut rows: Vec<R>,
        limit: u32,
        key: impl Fn(&R) -> u32,
        show: impl Fn(R) -> T,
    ) -> Self {
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|row| key(row).to_string());
        Self {
            data: rows.into_iter().map(show).collect(),
            next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_only_when_there_is_one() {
        let page = |rows: Vec<u32>| Page::of(rows, 2, |row| *row, |row| row * 10);
        let (full, last) = (page(vec![4, 5, 6]), page(vec![6, 7]));
        assert_eq!((full.data, full.next.as_deref()), (vec![40, 50], Some("5")));
        assert_eq!((last.data, last.next), (vec![60, 70], None));
    }
}
