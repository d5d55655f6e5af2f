//! Cursor pages: `?limit=&after=` in the query, `{"data": […], "next": …}` in the answer.

use serde::{Deserialize, Serialize};

use super::{error::ApiError, extract::whole_parameter};

/// Most rows of a page.
const MAX_LIMIT: u32 = 1000;

/// The query of a list. It is one struct for all lists, since `#[serde(flatten)]` would accept unknown parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParams {
    /// Rows, 1 to 1000.
    #[serde(default = "default_limit", deserialize_with = "whole_parameter")]
    pub(super) limit: u32,
    /// The previous page's `next`.
    pub(super) after: Option<String>,
    /// Pairs only: those of one group.
    pub(super) group: Option<String>,
    /// Images only: those whose stored bytes are damaged (`true`) or intact (`false`).
    pub(super) damaged: Option<bool>,
}

/// A page of a list.
#[derive(Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub(super) struct Page<T> {
    data: Vec<T>,
    /// `null` on the last page.
    next: Option<String>,
}

fn default_limit() -> u32 {
    100
}

impl PageParams {
    /// The key after which the page begins (keys start at 1), and the page's length.
    pub(super) fn cursor(&self) -> Result<(u32, u32), ApiError> {
        if !(1..=MAX_LIMIT).contains(&self.limit) {
            let message = format!("limit is {}: ask for 1 to {MAX_LIMIT} rows", self.limit);
            return Err(ApiError::invalid("invalid_limit", "limit", message));
        }
        let after = self.after.as_deref().unwrap_or("0").parse();
        let after = after.map_err(|_| {
            let message = "after is not a cursor: send the previous page's \"next\"";
            ApiError::invalid("invalid_cursor", "after", message)
        })?;
        Ok((after, self.limit))
    }
}

impl<T> Page<T> {
    /// A page from up to `limit + 1` rows: one row beyond `limit` means that there is a next page. `key` gives a row's cursor.
    pub(super) fn from_rows<R>(
        mut rows: Vec<R>,
        limit: u32,
        key: impl Fn(&R) -> u32,
        convert: impl Fn(R) -> T,
    ) -> Self {
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|row| key(row).to_string());
        Self {
            data: rows.into_iter().map(convert).collect(),
            next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_only_when_there_is_one() {
        let page = |rows: Vec<u32>| Page::from_rows(rows, 2, |row| *row, |row| row * 10);
        let (full, last) = (page(vec![4, 5, 6]), page(vec![6, 7]));
        assert_eq!((full.data, full.next.as_deref()), (vec![40, 50], Some("5")));
        assert_eq!((last.data, last.next), (vec![60, 70], None));
    }
}
