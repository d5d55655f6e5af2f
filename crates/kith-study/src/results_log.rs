//! The output folder of a study: an append-only log of points, and the saved state of the run in progress.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    num::ParseFloatError,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Point, Points, Run, StudyError, run_state::RunState};

/// The log of points, one JSON line each.
const POINTS: &str = "points.jsonl";
/// Folder of the saved state.
const STATE: &str = "state";
/// File of a saved state that names its run and position.
const RUN: &str = "run.json";

/// A line of the log. Values are strings: a JSON number may be read back with another last bit.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    run: Run,
    at: u64,
    values: BTreeMap<String, String>,
}

impl From<&Point> for Line {
    fn from(Point { run, at, values }: &Point) -> Self {
        let text = |(name, value): (&String, &f64)| (name.clone(), value.to_string());
        Self {
            run: run.clone(),
            at: *at,
            values: values.iter().map(text).collect(),
        }
    }
}

impl TryFrom<Line> for Point {
    type Error = ParseFloatError;

    fn try_from(Line { run, at, values }: Line) -> Result<Self, ParseFloatError> {
        let values = values
            .into_iter()
            .map(|(name, value)| Ok((name, value.parse()?)))
            .collect::<Result<_, ParseFloatError>>()?;
        Ok(Self { run, at, values })
    }
}

/// An open output folder.
pub(super) struct ResultsLog {
    folder: PathBuf,
    file: File,
    points: Points,
}

impl ResultsLog {
    /// Opens or creates the log in `folder`. A last line that was cut off is dropped.
    ///
    /// # Errors
    /// [`StudyError::Config`] if the log was created with other `settings`, [`StudyError::Io`] if a file cannot be read or written.
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
            .filter_map(|line| serde_json::from_str::<Line>(line).ok()?.try_into().ok())
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

    /// Appends a point. It is on disk when this returns.
    pub(super) fn append(
        &mut self,
        run: &Run,
        at: u64,
        values: BTreeMap<String, f64>,
    ) -> Result<(), StudyError> {
        let run = run.clone();
        let point = Point { run, at, values };
        let line =
            serde_json::to_string(&Line::from(&point)).expect("a line holds strings and integers");
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| StudyError::io(&self.folder.join(POINTS), error))?;
        self.points.insert(point);
        Ok(())
    }

    /// Replaces the saved state by that of `run`. The files are written into another folder that is then renamed, so a saved state is
    /// always complete.
    pub(super) fn save_state(&self, run: &Run, saved: &RunState) -> Result<(), StudyError> {
        let (state, next) = (self.folder.join(STATE), self.folder.join("state.next"));
        remove_folder(&next)?;
        let write = || {
            fs::create_dir_all(&next)?;
            for (name, bytes) in &saved.files {
                fs::write(next.join(name), bytes)?;
            }
            let head = serde_json::to_vec(&(run, saved.at)).expect("a run is a name and a seed");
            fs::write(next.join(RUN), head)
        };
        write().map_err(|error| StudyError::io(&next, error))?;
        remove_folder(&state)?;
        fs::rename(&next, &state).map_err(|error| StudyError::io(&state, error))
    }

    /// The saved state, if there is one and it belongs to `run`.
    pub(super) fn saved_state(&self, run: &Run) -> Result<Option<RunState>, StudyError> {
        let folder = self.folder.join(STATE);
        let Ok(head) = fs::read(folder.join(RUN)) else {
            return Ok(None);
        };
        let Ok((found, at)) = serde_json::from_slice::<(Run, u64)>(&head) else {
            return Ok(None);
        };
        if found != *run {
            return Ok(None);
        }
        let mut files = Vec::new();
        let entries = fs::read_dir(&folder).map_err(|error| StudyError::io(&folder, error))?;
        for entry in entries {
            let path = entry
                .map_err(|error| StudyError::io(&folder, error))?
                .path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let bytes = fs::read(&path).map_err(|error| StudyError::io(&path, error))?;
            files.push((name.into_owned(), bytes));
        }
        Ok(Some(RunState { at, files }))
    }

    /// Removes the saved state.
    pub(super) fn remove_state(&self) -> Result<(), StudyError> {
        remove_folder(&self.folder.join(STATE))
    }
}

fn remove_folder(folder: &Path) -> Result<(), StudyError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| StudyError::io(folder, error))?;
    }
    Ok(())
}

/// Replaces the file by renaming a new one over it, so that no moment has fewer points on disk.
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
    fn points_survive_and_a_torn_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let open = || ResultsLog::open(folder.path(), &json!({"steps": 3})).unwrap();
        let mut log = open();
        let values = |value: f64| BTreeMap::from([("error".to_owned(), value)]);
        log.append(&run(1), 5, values(1.0 / 3.0)).unwrap();
        log.file
            .write_all(br#"{"seed":1,"series":"a","at":6,"#)
            .unwrap();
        let mut log = open();
        assert!(log.points().contains(&run(1), 5) && !log.points().contains(&run(1), 6));
        log.append(&run(1), 6, values(0.2)).unwrap();
        assert_eq!(open().points(), log.points());
    }

    #[test]
    fn opening_a_log_never_rewrites_points_that_are_whole() {
        use std::os::unix::fs::MetadataExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POINTS);
        let open = || ResultsLog::open(folder.path(), &json!({"steps": 3}));
        let mut log = open().unwrap();
        let values = BTreeMap::from([("error".to_owned(), 0.5)]);
        log.append(&run(1), 5, values).unwrap();
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
        assert!(ResultsLog::open(folder.path(), &json!({})).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"\xff\xfe\n");
    }

    #[test]
    fn points_of_other_settings_are_not_mixed_in() {
        let folder = tempfile::tempdir().unwrap();
        ResultsLog::open(folder.path(), &json!({"steps": 3})).unwrap();
        let other = ResultsLog::open(folder.path(), &json!({"steps": 4}));
        assert!(other.err().unwrap().to_string().contains("other settings"));
    }

    #[test]
    fn a_state_is_that_of_its_run_and_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let log = ResultsLog::open(folder.path(), &json!({})).unwrap();
        for at in [7, 9] {
            let files = vec![("model".to_owned(), vec![at as u8; 3])];
            log.save_state(&run(1), &RunState { at, files }).unwrap();
        }
        let saved = log.saved_state(&run(1)).unwrap().unwrap();
        assert_eq!(saved.at, 9);
        assert_eq!(saved.file("model"), Some(&[9; 3][..]));
        assert!(log.saved_state(&run(2)).unwrap().is_none());
        log.remove_state().unwrap();
        assert!(log.saved_state(&run(1)).unwrap().is_none());
    }
}
