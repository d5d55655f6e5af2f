//! Prints answers of a server: as JSON, or as a table of some of their fields.

use serde_json::{Value, json};

/// A column: its title, and where its value is in a row (a JSON pointer).
pub(crate) type Column = (&'static str, &'static str);

/// Prints a document as JSON, or, without `json`, its rows (`data`, or itself) as a table.
pub(crate) fn print(answer: &Value, columns: &[Column], json: bool) {
    if json {
        println!("{answer:#}");
        return;
    }
    let one = std::slice::from_ref(answer);
    let rows = answer["data"].as_array().map_or(one, Vec::as_slice);
    print!("{}", table(rows, columns));
}

/// Says that something is deleted.
pub(crate) fn print_deleted(name: &str, json: bool) {
    if json {
        println!("{:#}", json!({"deleted": name}));
    } else {
        println!("deleted {name}");
    }
}

/// Rows below their titles, each column as wide as its widest value.
pub(crate) fn table(rows: &[Value], columns: &[Column]) -> String {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned());
    let mut lines: Vec<Vec<String>> = vec![titles.collect()];
    lines.extend(rows.iter().map(|row| {
        let cells = columns.iter().map(|(_, place)| cell(row.pointer(place)));
        cells.collect()
    }));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let padded = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let padded: Vec<String> = padded.collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A value in one line.
pub(crate) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.replace(char::is_control, " "),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_value_and_hold_no_control_characters() {
        let rows = [
            json!({"id": "a\u{1b}b", "deep": {"n": 1}}),
            json!({"id": "longer", "deep": null}),
        ];
        let text = table(&rows, &[("id", "/id"), ("n", "/deep/n")]);
        assert_eq!(text, "id      n\na b     1\nlonger  -\n");
    }
}
