//! Writes embeddings as a file that other programs read. It gets its name when it is complete.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, FloatType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use serde_json::json;

/// Rows of a Parquet row group, which are held in memory together.
const GROUP: usize = 4096;
const SCHEMA: &str = "message embeddings {
    required binary path (utf8);
    required binary model (utf8);
    required group embedding (list) { repeated group list { required float element; } }
}";

/// A format, which the name of the file ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One document a line.
    Jsonl,
    /// One column for each value.
    Csv,
    /// NumPy's matrix; the paths are in a file beside it, `FILE.npy.json`.
    Npy,
    Parquet,
}

/// One image's embedding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) path: String,
    /// `kith@ID`.
    pub(crate) model: String,
    pub(crate) embedding: Vec<f32>,
}

impl Row {
    /// The row as one JSON document.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        json!({"path": self.path, "model": self.model, "embedding": self.embedding})
    }
}

impl Format {
    /// The format of a file by its name.
    ///
    /// # Errors
    /// A sentence that lists the formats.
    pub(crate) fn of(path: &Path) -> Result<Self, String> {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" => Ok(Self::Jsonl),
            "csv" => Ok(Self::Csv),
            "npy" => Ok(Self::Npy),
            "parquet" => Ok(Self::Parquet),
            _ => Err(format!(
                "{} must end in .npy, .parquet, .jsonl or .csv",
                path.display()
            )),
        }
    }
}

/// A table in the making, in a file beside the final one, which is removed on drop unless the table is complete.
pub(crate) struct Table {
    path: PathBuf,
    partial: PathBuf,
    writer: Writer,
}

enum Writer {
    Jsonl(BufWriter<File>),
    Csv(Box<csv::Writer<File>>, bool),
    Npy(BufWriter<File>, Npy),
    Parquet(Box<SerializedFileWriter<File>>, Vec<Row>),
}

/// What is told beside a matrix.
#[derive(Default)]
struct Npy {
    model: String,
    paths: Vec<String>,
}

impl Table {
    /// Begins a table of `rows` rows with `dim` values each.
    ///
    /// # Errors
    /// The folder cannot be written, or the name is of no format.
    pub(crate) fn create(path: &Path, rows: usize, dim: usize) -> anyhow::Result<Self> {
        let format = Format::of(path).map_err(anyhow::Error::msg)?;
        let partial = with_suffix(path, &format!(".{}.partial", std::process::id()));
        let file = File::create(&partial)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        // From here on a failure removes the file.
        let mut table = Self {
            path: path.to_owned(),
            partial,
            writer: Writer::Jsonl(BufWriter::new(file.try_clone()?)),
        };
        table.writer = match format {
            Format::Jsonl => return Ok(table),
            Format::Csv => Writer::Csv(Box::new(csv::Writer::from_writer(file)), false),
            Format::Npy => {
                let mut file = BufWriter::new(file);
                file.write_all(&npy_header(rows, dim))?;
                Writer::Npy(file, Npy::default())
            }
            Format::Parquet => Writer::Parquet(Box::new(parquet_writer(file)?), Vec::new()),
        };
        Ok(table)
    }

    pub(crate) fn write(&mut self, row: Row) -> anyhow::Result<()> {
        self.writer
            .write(row)
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }

    /// Writes what is left, and gives the table its name.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.complete()
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }

    fn complete(&mut self) -> anyhow::Result<()> {
        match &mut self.writer {
            Writer::Jsonl(file) => file.flush()?,
            Writer::Csv(writer, _) => writer.flush()?,
            Writer::Npy(file, told) => {
                file.flush()?;
                let told = json!({"model": told.model, "paths": told.paths});
                fs::write(with_suffix(&self.path, ".json"), format!("{told:#}\n"))?;
            }
            Writer::Parquet(writer, rows) => {
                write_group(writer, rows)?;
                writer.finish()?;
            }
        }
        File::open(&self.partial)?.sync_all()?;
        Ok(fs::rename(&self.partial, &self.path)?)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // It does not exist any more if the table is complete.
        let _ = fs::remove_file(&self.partial);
    }
}

impl Writer {
    fn write(&mut self, row: Row) -> anyhow::Result<()> {
        match self {
            Self::Jsonl(file) => writeln!(file, "{}", row.to_json())?,
            Self::Csv(writer, has_header) => {
                if !*has_header {
                    let columns = (0..row.embedding.len()).map(|index| format!("e{index}"));
                    let head = ["path".to_owned(), "model".to_owned()];
                    writer.write_record(head.into_iter().chain(columns))?;
                    *has_header = true;
                }
                let values = row.embedding.iter().map(f32::to_string);
                writer.write_record([row.path, row.model].into_iter().chain(values))?;
            }
            Self::Npy(file, told) => {
                for value in &row.embedding {
                    file.write_all(&value.to_le_bytes())?;
                }
                told.model = row.model;
                told.paths.push(row.path);
            }
            Self::Parquet(writer, rows) => {
                rows.push(row);
                if rows.len() == GROUP {
                    write_group(writer, rows)?;
                }
            }
        }
        Ok(())
    }
}

fn parquet_writer(file: File) -> anyhow::Result<SerializedFileWriter<File>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // Nearly every value is another.
        .set_column_dictionary_enabled("embedding.list.element".into(), false);
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    Ok(SerializedFileWriter::new(
        file,
        schema,
        Arc::new(properties.build()),
    )?)
}

/// Writes the rows as one group, and empties them.
fn write_group(writer: &mut SerializedFileWriter<File>, rows: &mut Vec<Row>) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut group = writer.next_row_group()?;
    let text = |text: &str| ByteArray::from(text.as_bytes().to_vec());
    let paths: Vec<_> = rows.iter().map(|row| text(&row.path)).collect();
    let models: Vec<_> = rows.iter().map(|row| text(&row.model)).collect();
    for column in [paths, models] {
        if let Some(mut writer) = group.next_column()? {
            let typed = writer.typed::<ByteArrayType>();
            typed.write_batch(&column, None, None)?;
            writer.close()?;
        }
    }
    if let Some(mut writer) = group.next_column()? {
        let values: Vec<f32> = rows
            .iter()
            .flat_map(|row| &row.embedding)
            .copied()
            .collect();
        // Every list has values, and each but its first repeats the list.
        let defined = vec![1; values.len()];
        let repeated = rows
            .iter()
            .flat_map(|row| (0..row.embedding.len()).map(|at| i16::from(at > 0)));
        let repeated: Vec<i16> = repeated.collect();
        let typed = writer.typed::<FloatType>();
        typed.write_batch(&values, Some(&defined), Some(&repeated))?;
        writer.close()?;
    }
    group.close()?;
    rows.clear();
    Ok(())
}

/// The header of NumPy's format 1.0 for little-endian `f32[rows, dim]` (numpy.lib.format): a magic, the length of a Python literal, and the literal, padded
/// so that the values begin at a multiple of 64 bytes.
fn npy_header(rows: usize, dim: usize) -> Vec<u8> {
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let unpadded = 10 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    // Two numbers of 20 digits at most leave it far below 64 KiB.
    let length = text.len() as u16;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(length.to_le_bytes());
    header.extend(text.as_bytes());
    header
}

/// `a.npy` → `a.npy.json`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::RowAccessor,
    };

    use super::*;

    fn rows(count: usize) -> Vec<Row> {
        let row = |index: usize| Row {
            path: format!("images/{index}.png"),
            model: "kith@1".to_owned(),
            embedding: vec![index as f32, 0.1, -1.0],
        };
        (0..count).map(row).collect()
    }

    fn write(path: &Path, rows: &[Row]) {
        let mut table = Table::create(path, rows.len(), 3).unwrap();
        rows.iter()
            .for_each(|row| table.write(row.clone()).unwrap());
        table.finish().unwrap();
    }

    #[test]
    fn a_table_has_its_name_only_when_it_is_complete() {
        for name in ["t.csv", "t.jsonl", "t.npy", "t.parquet"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            fs::write(&path, "older").unwrap();
            let mut table = Table::create(&path, 1, 3).unwrap();
            table.write(rows(1).remove(0)).unwrap();
            drop(table);
            assert_eq!(fs::read_to_string(&path).unwrap(), "older");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
            write(&path, &rows(1));
            assert_ne!(fs::read(&path).unwrap(), b"older");
        }
    }

    #[test]
    fn text_formats_hold_each_value_in_its_shortest_form() {
        let folder = tempfile::tempdir().unwrap();
        let (csv, lines) = (folder.path().join("t.csv"), folder.path().join("t.jsonl"));
        write(&csv, &rows(1));
        write(&lines, &rows(1));
        let text = fs::read_to_string(csv).unwrap();
        assert_eq!(text, "path,model,e0,e1,e2\nimages/0.png,kith@1,0,0.1,-1\n");
        let document: serde_json::Value =
            serde_json::from_slice(&fs::read(lines).unwrap()).unwrap();
        assert_eq!(document["embedding"], json!([0.0, 0.1_f32, -1.0]));
    }

    #[test]
    fn a_matrix_begins_at_a_multiple_of_64_bytes_and_has_its_paths_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.npy");
        write(&path, &rows(2));
        let bytes = fs::read(&path).unwrap();
        let values = bytes.len() - 2 * 3 * 4;
        assert_eq!(values % 64, 0);
        assert!(bytes[..values].ends_with(b" \n"));
        let last = bytes[bytes.len() - 4..].try_into().unwrap();
        assert_eq!(f32::from_le_bytes(last), -1.0);
        let told = fs::read(folder.path().join("t.npy.json")).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(
            told,
            json!({"model": "kith@1", "paths": ["images/0.png", "images/1.png"]})
        );
    }

    #[test]
    fn parquet_gives_back_every_row_over_several_groups() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let wrote = rows(GROUP + 1);
        write(&path, &wrote);
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.num_row_groups(), 2);
        let read = reader.get_row_iter(None).unwrap().map(|row| {
            let row = row.unwrap();
            let list = row.get_list(2).unwrap().elements();
            let value = |value: &parquet::record::Field| match value {
                parquet::record::Field::Float(value) => *value,
                other => panic!("{other:?}"),
            };
            Row {
                path: row.get_string(0).unwrap().clone(),
                model: row.get_string(1).unwrap().clone(),
                embedding: list.iter().map(value).collect(),
            }
        });
        assert_eq!(read.collect::<Vec<_>>(), wrote);
    }

    #[test]
    fn a_name_of_another_format_is_refused_with_those_that_are_known() {
        let refused = Format::of(Path::new("t.xlsx")).unwrap_err();
        assert_eq!(refused, "t.xlsx must end in .npy, .parquet, .jsonl or .csv");
    }
}
