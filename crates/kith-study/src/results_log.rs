//! The output folder: points as lines that are only ever added, and the state of the run in progress.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Point, Points, Run, StudyError};

/// Named files of a state.
pub(super) type Page = Vec<(String, Vec<u8>)>;

/// Name of the lines of points.
const POINTS: &str = "points.jsonl";
/// Folder of the state of the run in progress.
const STATE: &str = "state";

/// A point as it is kept. Values are texts: a number read back from JSON may differ from the one written in its last bit.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    run: Run,
    at: u64,
    values: BTreeMap<String, String>,
}

impl Line {
    fn of(Point { run, at, values }: &Point) -> Self {
        let text = |(name, value): (&String, &f64)| (name.clone(), value.to_string());
        Self {
            run: run.clone(),
            at: *at,
            values: values.iter().map(text).collect(),
        }
    }

    /// `None`: it was not written by [`Line::of`].
    fn read(line: &str) -> Option<Point> {
        let Self { run, at, values } = serde_json::from_str(line).ok()?;
        let values = values
            .into_iter()
            .map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect::<Option<_>>()?;
        Some(Point { run, at, values })
    }
}

/// An output folder, open.
pub(super) struct Notebook {
    folder: PathBuf,
    file: File,
    points: Points,
}

impl Notebook {
    /// Opens or begins the folder's notebook; `settings` must be those it was begun with. A last line that was cut off is forgotten.
    pub(super) fn open(folder: &Path, settings: &Value) -> Result<Self, StudyError> {
        fs::create_dir_all(folder).map_err(|error| StudyError::io(folder, error))?;
        let path = folder.join(POINTS);
        let old = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(StudyError::io(&path, error)),
        };
        let whole = &old[..old.rfind('\n').map_or(0, |at| at + 1)];
        let mut lines = whole.lines();
        let head = settings.to_string();
        if let Some(found) = lines.next().filter(|found| *found != head) {
            return Err(StudyError::config(format!(
                "{} holds points of other settings ({found}): name another --out, or remove it",
                path.display()
            )));
        }
        let mut points = Points::default();
        lines
            .filter_map(Line::read)
            .for_each(|point| points.insert(point));
        let begun = if whole.is_empty() {
            replace(&path, &format!("{head}\n"))
        } else if whole.len() < old.len() {
            replace(&path, whole)
        } else {
            Ok(())
        };
        let file = begun.and_then(|()| File::options().append(true).open(&path));
        Ok(Self {
            folder: folder.to_owned(),
            file: file.map_err(|error| StudyError::io(&path, error))?,
            points,
        })
    }

    pub(super) fn points(&self) -> &Points {
        &self.points
    }

    pub(super) fn note(
        &mut self,
        run: &Run,
        at: u64,
        values: BTreeMap<String, f64>,
    ) -> Result<(), StudyError> {
        let run = run.clone();
        let point = Point { run, at, values };
        let line = serde_json::to_string(&Line::of(&point)).expect("a line is names and texts");
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| StudyError::io(&self.folder.join(POINTS), error))?;
        self.points.insert(point);
        Ok(())
    }

    /// The files are put before the name that makes them count, so that a state is whole or not there.
    pub(super) fn keep(&self, run: &Run, at: u64, page: &Page) -> Result<(), StudyError> {
        let (state, next) = (self.folder.join(STATE), self.folder.join("state.next"));
        self.forget_state(&next)?;
        let write = || {
            fs::create_dir_all(&next)?;
            for (name, bytes) in page {
                fs::write(next.join(name), bytes)?;
            }
            let head = serde_json::to_vec(&(run, at)).expect("a run is a name and a seed");
            fs::write(next.join("run.json"), head)
        };
        write().map_err(|error| StudyError::io(&next, error))?;
        self.forget_state(&state)?;
        fs::rename(&next, &state).map_err(|error| StudyError::io(&state, error))
    }

    /// The state of `run`, if the folder holds one.
    pub(super) fn kept(&self, run: &Run) -> Result<Option<(u64, Page)>, StudyError> {
        let folder = self.folder.join(STATE);
        let Ok(head) = fs::read(folder.join("run.json")) else {
            return Ok(None);
        };
        let Ok((found, at)) = serde_json::from_slice::<(Run, u64)>(&head) else {
            return Ok(None);
        };
        if found != *run {
            return Ok(None);
        }
        let mut page = Page::new();
        let entries = fs::read_dir(&folder).map_err(|error| StudyError::io(&folder, error))?;
        for entry in entries {
            let path = entry
                .map_err(|error| StudyError::io(&folder, error))?
                .path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let bytes = fs::read(&path).map_err(|error| StudyError::io(&path, error))?;
            page.push((name.into_owned(), bytes));
        }
        Ok(Some((at, page)))
    }

    /// All runs are done.
    pub(super) fn finish(&self) -> Result<(), StudyError> {
        self.forget_state(&self.folder.join(STATE))
    }

    fn forget_state(&self, folder: &Path) -> Result<(), StudyError> {
        match folder.exists() {
            true => fs::remove_dir_all(folder).map_err(|error| StudyError::io(folder, error)),
            false => Ok(()),
        }
    }
}

/// Writes a file beside and renames it, so that at every moment all points are there under the old name or the new.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(seed: u64) -> Run {
        let series = "a".to_owned();
        Run { seed, series }
    }

    #[test]
    fn points_survive_and_a_torn_line_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Notebook::open(folder.path(), &json!({"steps": 3})).unwrap();
        let mut notebook = open();
        let values = |value: f64| BTreeMap::from([("error".to_owned(), value)]);
        notebook.note(&run(1), 5, values(1.0 / 3.0)).unwrap();
        notebook
            .file
            .write_all(br#"{"seed":1,"series":"a","at":6,"#)
            .unwrap();
        let mut notebook = open();
        assert!(notebook.points().holds(&run(1), 5) && !notebook.points().holds(&run(1), 6));
        notebook.note(&run(1), 6, values(0.2)).unwrap();
        assert_eq!(open().points(), notebook.points());
    }

    #[test]
    fn opening_a_notebook_never_rewrites_points_that_are_whole() {
        use std::os::unix::fs::MetadataExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POINTS);
        let open = || Notebook::open(folder.path(), &json!({"steps": 3}));
        let mut notebook = open().unwrap();
        let values = BTreeMap::from([("error".to_owned(), 0.5)]);
        notebook.note(&run(1), 5, values).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        // A link to the file as it is: a truncation would show in it, a new file beside it would not.
        let old = folder.path().join("link");
        fs::hard_link(&path, &old).unwrap();
        let changed = || {
            let meta = fs::metadata(&path).unwrap();
            (meta.ino(), meta.mtime(), meta.mtime_nsec())
        };
        let before = changed();
        open().unwrap();
        assert_eq!(changed(), before);
        fs::write(&path, format!("{text}{{\"torn")).unwrap();
        open().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // The torn file itself was not written to: the whole one took its name.
        assert_eq!(fs::read_to_string(&old).unwrap(), format!("{text}{{\"torn"));
    }

    #[test]
    fn points_that_cannot_be_read_are_an_error_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POINTS);
        fs::write(&path, b"\xff\xfe\n").unwrap();
        assert!(Notebook::open(folder.path(), &json!({})).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"\xff\xfe\n");
    }

    #[test]
    fn points_of_other_settings_are_not_mixed_in() {
        let folder = tempfile::tempdir().unwrap();
        Notebook::open(folder.path(), &json!({"steps": 3})).unwrap();
        let other = Notebook::open(folder.path(), &json!({"steps": 4}));
        assert!(other.err().unwrap().to_string().contains("other settings"));
    }

    #[test]
    fn a_state_is_that_of_its_run_and_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let notebook = Notebook::open(folder.path(), &json!({})).unwrap();
        for at in [7, 9] {
            let page = vec![("model".to_owned(), vec![at as u8; 3])];
            notebook.keep(&run(1), at, &page).unwrap();
        }
        let (at, page) = notebook.kept(&run(1)).unwrap().unwrap();
        assert_eq!(at, 9);
        assert!(page.contains(&("model".to_owned(), vec![9; 3])));
        assert!(notebook.kept(&run(2)).unwrap().is_none());
        notebook.finish().unwrap();
        assert!(notebook.kept(&run(1)).unwrap().is_none());
    }
}
