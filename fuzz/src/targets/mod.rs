//! What each fuzz target does with an input, and what must hold whatever the input is. `tests/all/fuzz.rs` replays the corpora through the same functions.

mod checkpoint_files;
mod images;
mod requests;
mod server;
mod weights_files;

pub use checkpoint_files::{chains, manifest, safetensors};
pub use images::decode;
pub use requests::{embeddings_json, multipart, pairs_csv, pairs_ndjson};
pub use weights_files::{weights_pickle, weights_safetensors};

/// Takes an input, and says whether kith accepted it. Panics where something does not hold.
pub type Target = fn(&[u8]) -> bool;

/// Every target by the name of its program and of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 10] = [
    ("chains", chains),
    ("decode", decode),
    ("embeddings_json", embeddings_json),
    ("manifest", manifest),
    ("multipart", multipart),
    ("pairs_csv", pairs_csv),
    ("pairs_ndjson", pairs_ndjson),
    ("safetensors", safetensors),
    ("weights_pickle", weights_pickle),
    ("weights_safetensors", weights_safetensors),
];
