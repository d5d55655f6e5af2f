//! Weights of other programs. Most inputs name a network's arrays and leave its values to the target, so that corpora stay small and mutations reach
//! what lies behind the names.

use std::{
    fs,
    io::{Cursor, Write},
    sync::OnceLock,
};

use kith_nn::{CudaConfig, Device, Encoder, EncoderConfig, Purpose};
use kith_weights::Weights;
use serde_json::{Map, Value};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Most bytes of values that a target adds to an input: the narrowest network has a fifth of them in 32 bits.
const MAX_VALUES: usize = 1 << 22;
/// Bytes of the one storage beside a pickle: more than its largest tensor may have values.
const STORAGE: usize = 1 << 16;
/// Values in an embedding.
const DIM: usize = 16;

/// A safetensors file. Values that its header describes and that it has not are zeros.
pub fn weights_safetensors(bytes: &[u8]) -> bool {
    let mut file = bytes.to_vec();
    match described_length(bytes) {
        Some(length) if length <= bytes.len() + MAX_VALUES => {
            file.resize(length.max(bytes.len()), 0);
        }
        _ => {}
    }
    read(&file)
}

/// Bytes of the file that a header describes; `None`: it is none.
fn described_length(file: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(*file.first_chunk()?);
    let header = file.get(8..)?.get(..usize::try_from(length).ok()?)?;
    let arrays: Map<String, Value> = serde_json::from_slice(header).ok()?;
    let ends = arrays.values();
    let ends = ends.filter_map(|array| array["data_offsets"][1].as_u64());
    let values = usize::try_from(ends.max()?).ok()?;
    values.checked_add(8 + header.len())
}

/// The archive that a `.pth` is, or else the pickle of one whose storage `0` is all zeros.
pub fn weights_pickle(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"PK") {
        read(bytes)
    } else {
        read(&archive(bytes))
    }
}

fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in [("data.pkl", pickle), ("data/0", &[0; STORAGE][..])] {
        zip.start_file(format!("archive/{name}"), stored)
            .and_then(|()| Ok(zip.write_all(bytes)?))
            .expect("memory takes all bytes");
    }
    let archive = zip.finish().expect("memory takes all bytes");
    archive.into_inner()
}

/// A file is refused in a message of bounded length, or its network is finite and makes an encoder.
fn read(file: &[u8]) -> bool {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("there is a temporary folder"));
    // Tests may replay two corpora at once.
    let path = folder
        .path()
        .join(format!("{:?}", std::thread::current().id()));
    fs::write(&path, file).expect("the temporary folder takes files");
    let weights = match Weights::read(&path) {
        Ok(weights) => weights,
        Err(refused) => {
            assert!(refused.to_string().len() < 1 << 14);
            return false;
        }
    };
    let shape = EncoderConfig {
        width: weights.width(),
        side: 32,
        dim: DIM,
        towers: 1,
    };
    let projection = weights.projection(DIM);
    let arrays = weights.into_arrays(projection);
    assert!(arrays.iter().all(|array| array.is_finite()));
    let encoder = Encoder::from_arrays(&shape, &arrays, &cpu());
    assert_eq!(encoder.is_ok(), shape.validate().is_ok());
    true
}

pub(super) fn cpu() -> Device {
    let device = Device::open("cpu", Purpose::Serving, &CudaConfig::default());
    device.expect("there is always a CPU")
}
