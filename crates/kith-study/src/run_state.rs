//! The saved state of a run in progress, as named files.

/// The saved state of a run in progress.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RunState {
    /// The position that the run had reached.
    pub(super) at: u64,
    /// Name and content of each file.
    pub(super) files: Vec<(String, Vec<u8>)>,
}

impl RunState {
    /// The content of the file `name`.
    pub(super) fn file(&self, name: &str) -> Option<&[u8]> {
        let found = self.files.iter().find(|(found, _)| found == name);
        found.map(|(_, bytes)| &bytes[..])
    }
}
