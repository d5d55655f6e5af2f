//! Reads CSV lists of files by their header. Unknown, duplicate or missing columns are errors, so that a misspelt name is noticed.

use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::file::read_file;

/// Written at the beginning of a UTF-8 file by Excel and others.
const BYTE_ORDER_MARK: &str = "\u{feff}";
/// Most column names in a message.
const MAX_SHOWN: usize = 12;

/// The columns that a list may have.
pub(crate) struct Columns<'a> {
    pub(crate) required: &'a [&'a str],
    pub(crate) optional: &'a [&'a str],
    /// Whether other columns are ignored.
    pub(crate) others: bool,
}

/// The rows of a list, cells in the order of [`Columns`]: the required ones, then the optional ones.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    /// Lines that cannot be read, each with its number and the reason.
    pub(crate) problems: Vec<String>,
}

/// One line of a list.
#[derive(Debug)]
pub(crate) struct Row {
    /// Counted from 1, the header included.
    pub(crate) line: u64,
    /// `None`: the cell is empty or the list has no such column.
    pub(crate) cells: Vec<Option<String>>,
}

impl Table {
    /// Reads the list at `path`.
    pub(crate) fn read(path: &Path, columns: &Columns) -> anyhow::Result<Self> {
        let name = path.display();
        let bytes = read_file(path).with_context(|| format!("{name} cannot be read"))?;
        let text = String::from_utf8(bytes)
            .ok()
            .with_context(|| format!("{name} is not UTF-8 text: save it as CSV in UTF-8"))?;
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
        Self::parse(text, columns).with_context(|| format!("{name} is not a list that can be read"))
    }

    fn parse(text: &str, columns: &Columns) -> anyhow::Result<Self> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(text.as_bytes());
        let header = reader.headers().context("it has no header")?.clone();
        let places = columns.places(&header)?;
        let (mut rows, mut problems) = (Vec::new(), Vec::new());
        for record in reader.records() {
            let record = record.context("a line cannot be read")?;
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() == header.len() {
                let cells = places.iter().map(|place| cell(&record, *place)).collect();
                rows.push(Row { line, cells });
            } else {
                problems.push(format!(
                    "line {line}: {} cells under {} column names: quote a path that has a comma in it",
                    record.len(),
                    header.len()
                ));
            }
        }
        Ok(Self { rows, problems })
    }
}

fn cell(record: &csv::StringRecord, place: Option<usize>) -> Option<String> {
    let text = record.get(place?)?;
    (!text.is_empty()).then(|| text.to_owned())
}

impl Columns<'_> {
    /// The position of each column in `header`; `None` for an optional one that is absent.
    fn places(&self, header: &csv::StringRecord) -> anyhow::Result<Vec<Option<usize>>> {
        let known = || self.required.iter().chain(self.optional).copied();
        let titles: Vec<&str> = header.iter().collect();
        for title in &titles {
            let wanted = known().any(|name| name == *title);
            ensure!(
                wanted || self.others,
                "{} is not a column of the list: the columns are {}",
                shown(title),
                known().collect::<Vec<_>>().join(", ")
            );
            let count = titles.iter().filter(|other| *other == title).count();
            ensure!(
                count == 1 || !wanted,
                "the column {} is there {count} times",
                shown(title)
            );
        }
        let place = |name: &str| titles.iter().position(|title| *title == name);
        if let Some(missing) = self.required.iter().find(|name| place(name).is_none()) {
            let names: Vec<String> = titles.iter().take(MAX_SHOWN).map(|t| shown(t)).collect();
            bail!(
                "its first line has no column {missing:?} but {}: write {}",
                names.join(", "),
                known().collect::<Vec<_>>().join(",")
            );
        }
        Ok(known().map(place).collect())
    }
}

/// A title in quotes, cut to fit in a message.
fn shown(title: &str) -> String {
    let cut: String = title.chars().take(40).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PAIRS: Columns<'static> = Columns {
        required: &["anchor"],
        optional: &["positive", "group"],
        others: false,
    };

    fn refusal(text: &str) -> String {
        format!("{:#}", Table::parse(text, &PAIRS).unwrap_err())
    }

    #[test]
    fn unknown_doubled_and_missing_columns_are_refused_by_name() {
        let unknown = refusal("anchor,postive\na,b\n");
        assert!(
            unknown.contains("\"postive\"") && unknown.contains("anchor, positive, group"),
            "{unknown}"
        );
        let doubled = refusal("anchor,positive,positive\na,b,c\n");
        assert!(
            doubled.contains("\"positive\" is there 2 times"),
            "{doubled}"
        );
        let missing = refusal("positive,group\na,b\n");
        assert!(missing.contains("no column \"anchor\""), "{missing}");
        assert!(refusal("anchor,\na,b\n").contains("\"\" is not a column"));
        assert!(refusal("Anchor\na\n").contains("\"Anchor\""));
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_are_no_part_of_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.csv");
        fs::write(&path, "\u{feff}anchor,positive\r\na.png,b.png\r\n").unwrap();
        let table = Table::read(&path, &PAIRS).unwrap();
        let cells = &table.rows[0].cells;
        assert_eq!(cells[0].as_deref(), Some("a.png"));
        assert_eq!(cells[1].as_deref(), Some("b.png"));
        assert_eq!(cells[2], None);
        fs::write(&path, b"anchor\n\xff\xfe\n").unwrap();
        let error = Table::read(&path, &PAIRS).unwrap_err().to_string();
        assert!(error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn a_line_of_another_length_is_a_problem_of_its_own() {
        let table = Table::parse("anchor,positive\na,b\nc\nd, e, f\ng,\n", &PAIRS).unwrap();
        assert_eq!(table.rows.len(), 2);
        assert_eq!(table.problems.len(), 2);
        assert!(table.problems[0].starts_with("line 3: 1 cells under 2"));
    }
}
