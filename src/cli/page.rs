//! Follows the pages of a list.

use serde_json::{Value, json};

use super::{client::Client, client_error::ClientError};

/// Most rows of a page.
const PAGE: usize = 1000;

/// The first `limit` rows of the list at `path`, which may have a query already, as `{"data": […]}`.
///
/// # Errors
/// Those of the server.
pub(crate) fn list(client: &Client, path: &str, limit: usize) -> Result<Value, ClientError> {
    let mut rows: Vec<Value> = Vec::new();
    let mut after = String::new();
    let joint = if path.contains('?') { '&' } else { '?' };
    loop {
        let count = PAGE.min(limit - rows.len());
        let mut page = client.get(&format!("{path}{joint}limit={count}{after}"))?;
        if let Value::Array(data) = page["data"].take() {
            rows.extend(data);
        }
        match page["next"].as_str() {
            Some(next) if rows.len() < limit => after = format!("&after={next}"),
            _ => return Ok(json!({"data": rows})),
        }
    }
}
