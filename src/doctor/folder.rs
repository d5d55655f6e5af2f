//! The data folder: whether it can be used, what it holds, the disk below it, and the clock that its records were written by.

use std::{fs, path::Path, time::SystemTime};

use jiff::Timestamp;
use rustix::fs::Access;

use super::check::Check;
use crate::{
    app,
    checkpoint::Checkpoints,
    config::Settings,
    db::{CheckpointStatus, Db},
    disk,
};

const GIB: u64 = 1 << 30;
/// Free space below which a server soon takes nothing more: a checkpoint of the full network has 134 MB with its training state.
const LITTLE: u64 = GIB;

/// The checks of `storage.data_dir`.
pub(super) async fn examine(settings: &Settings) -> Vec<Check> {
    let folder = &settings.storage.data_dir;
    let place = existing(folder);
    if !place.is_dir() {
        let found = format!("{} is no folder", place.display());
        return vec![Check::problem(
            "folder",
            found,
            "remove it, or choose another with --data-dir",
        )];
    }
    let mut checks = vec![writable(place), space(place)];
    if !folder.is_dir() {
        checks.push(Check::good("data", "the first start creates the folder"));
        return checks;
    }
    match app::open_read_only(folder).await {
        Ok((db, blobs)) => {
            let checkpoints = Checkpoints::new(blobs, db.clone(), settings.policy());
            checks.push(database(&db).await);
            checks.push(live(&db, &checkpoints, settings).await);
            checks.push(clock(&db).await);
            db.close().await;
        }
        // A folder that somebody made for the first start.
        Err(_) if is_empty(folder) => {
            checks.push(Check::good(
                "data",
                "the folder is empty: the first start fills it",
            ));
        }
        Err(error) => checks.push(Check::problem(
            "data",
            error.to_string(),
            "name the folder of a server with --data-dir, or restore it from a backup",
        )),
    }
    checks
}

/// The folder itself, or the nearest thing above it that exists, a dangling link among them.
fn existing(path: &Path) -> &Path {
    let exists = |above: &&Path| fs::symlink_metadata(above).is_ok();
    path.ancestors().find(exists).unwrap_or(Path::new("."))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Whether this user may write where the folder is or will be.
fn writable(place: &Path) -> Check {
    let shown = place.display();
    match rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Check::good("folder", format!("{shown} can be written")),
        Err(error) => Check::problem(
            "folder",
            format!("{shown} cannot be written: {error}"),
            "give it to the server's user, mount its disk for writing, or choose another with --data-dir",
        ),
    }
}

fn space(place: &Path) -> Check {
    match disk::space(place) {
        Ok((free, total)) => judge_space(free, total),
        Err(error) => Check::warning(
            "disk",
            format!("its free space is unknown: {error}"),
            "look at it with df",
        ),
    }
}

fn judge_space(free: u64, total: u64) -> Check {
    let gib = |bytes: u64| bytes as f64 / GIB as f64;
    let found = format!("{:.1} of {:.1} GiB free", gib(free), gib(total));
    if free < LITTLE {
        return Check::warning(
            "disk",
            found,
            "free some: a full disk stops pairs and snapshots, and loses nothing",
        );
    }
    Check::good("disk", found)
}

async fn database(db: &Db) -> Check {
    match db.check().await {
        Ok(complaints) if complaints.is_empty() => {
            Check::good("database", "every page and reference is right")
        }
        Ok(complaints) => Check::problem(
            "database",
            complaints.join("; "),
            "restore it from a backup, or see kith verify",
        ),
        Err(error) => Check::problem(
            "database",
            error.to_string(),
            "restore it from a backup, or see kith verify",
        ),
    }
}

/// Whether what would serve can be loaded, with these settings.
async fn live(db: &Db, checkpoints: &Checkpoints, settings: &Settings) -> Check {
    const NAME: &str = "checkpoint";
    let row = match db.live_checkpoint().await {
        Ok(Some(row)) if row.status == CheckpointStatus::Complete => row,
        Ok(_) => return Check::good(NAME, "none yet: the first start writes one"),
        Err(error) => return Check::problem(NAME, error.to_string(), "see kith verify"),
    };
    match checkpoints.load_model(row.id).await {
        Ok(model) if model.encoder == settings.encoder_config() => Check::good(
            NAME,
            format!("the live one is {}, of step {}", row.id, row.step),
        ),
        Ok(model) => Check::problem(
            NAME,
            format!(
                "the live one, {}, has another encoder ({:?}) than the settings",
                row.id, model.encoder
            ),
            "set encoder.width, encoder.side and encoder.dim as it has them, or choose another folder",
        ),
        Err(error) => Check::problem(
            NAME,
            error.to_string(),
            "promote another with kith checkpoint promote, or see kith verify",
        ),
    }
}

/// Ids and checkpoints are ordered by time: a clock that went back would put new ones before old ones.
async fn clock(db: &Db) -> Check {
    match db.checkpoints().await {
        Ok(rows) => {
            let newest = rows.iter().map(|row| row.created_at).max();
            judge_clock(
                Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH),
                newest,
            )
        }
        Err(error) => Check::problem("clock", error.to_string(), "see kith verify"),
    }
}

fn judge_clock(now: Timestamp, newest: Option<Timestamp>) -> Check {
    match newest {
        Some(newest) if now < newest => Check::problem(
            "clock",
            format!("it says {now}, but the newest checkpoint is of {newest}"),
            "set the clock: records are ordered by their time",
        ),
        _ => Check::good("clock", format!("{now}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::State;

    #[test]
    fn a_clock_that_went_back_and_a_nearly_full_disk_are_told() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(judge_clock(at(5), Some(at(6))).state, State::Problem);
        assert_eq!(judge_clock(at(6), Some(at(6))).state, State::Good);
        assert_eq!(judge_clock(at(6), None).state, State::Good);
        assert_eq!(judge_space(LITTLE - 1, 10 * GIB).state, State::Warning);
        assert_eq!(judge_space(LITTLE, 10 * GIB).state, State::Good);
    }
}
