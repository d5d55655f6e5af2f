//! Files for the tests: arrays of a narrow ResNet-18, written as safetensors and as PyTorch writes them.

use std::{collections::BTreeMap, io::Write, path::PathBuf};

use kith_weights::{Weights, WeightsError};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Shape and values by name.
pub(crate) type Arrays = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// ResNet-18 of width 8 with BatchNorm, and a classifier of 10 classes.
pub(crate) fn narrow() -> Arrays {
    let mut arrays = Arrays::new();
    let mut conv = |name: &str, norm: &str, outputs: usize, inputs: usize, kernel: usize| {
        let shape = vec![outputs, inputs, kernel, kernel];
        insert(&mut arrays, &format!("{name}.weight"), shape, |x| x * 0.2);
        insert(&mut arrays, &format!("{norm}.weight"), vec![outputs], |x| {
            1.0 + x * 0.5
        });
        insert(&mut arrays, &format!("{norm}.bias"), vec![outputs], |x| x);
        insert(
            &mut arrays,
            &format!("{norm}.running_mean"),
            vec![outputs],
            |x| x,
        );
        insert(
            &mut arrays,
            &format!("{norm}.running_var"),
            vec![outputs],
            |x| 1.0 + x * 0.9,
        );
        insert(
            &mut arrays,
            &format!("{norm}.num_batches_tracked"),
            vec![],
            |_| 20.0,
        );
    };
    conv("conv1", "bn1", 8, 3, 7);
    for (stage, block) in (0..4).flat_map(|stage| [(stage, 0), (stage, 1)]) {
        let outputs = 8usize << stage;
        let inputs = if stage > 0 && block == 0 {
            outputs / 2
        } else {
            outputs
        };
        let at = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
        conv(&at("conv1"), &at("bn1"), outputs, inputs, 3);
        conv(&at("conv2"), &at("bn2"), outputs, outputs, 3);
        if inputs != outputs {
            conv(&at("downsample.0"), &at("downsample.1"), outputs, inputs, 1);
        }
    }
    insert(&mut arrays, "fc.weight", vec![10, 64], |x| x);
    insert(&mut arrays, "fc.bias", vec![10], |x| x);
    arrays
}

/// Adds an array whose values are `value` of numbers between -1 and 1.
pub(crate) fn insert(
    arrays: &mut Arrays,
    name: &str,
    shape: Vec<usize>,
    value: impl Fn(f32) -> f32,
) {
    let count: usize = shape.iter().product();
    let salt = name.bytes().map(u64::from).sum();
    let random = |place: u64| kith_seed::mix(&[salt, place]) as f32 / u64::MAX as f32;
    let data = (0..count)
        .map(|place| value(2.0 * random(place as u64) - 1.0))
        .collect();
    arrays.insert(name.to_owned(), (shape, data));
}

/// The bytes of a safetensors file.
pub(crate) fn safetensors(arrays: &Arrays) -> Vec<u8> {
    let arrays = arrays
        .iter()
        .map(|(name, (shape, data))| kith_nn::NamedArray {
            name: name.clone(),
            shape: shape.clone(),
            data: data.clone(),
        });
    kith_nn::arrays_to_bytes(&arrays.collect::<Vec<_>>()).unwrap()
}

/// The bytes of a `.pth` with a state dict, as PyTorch writes it.
pub(crate) fn pth(arrays: &Arrays) -> Vec<u8> {
    let mut pickle = Pickle::new();
    pickle.state_dict(arrays);
    pickle.raw(b".");
    with_storages(pickle, arrays)
}

/// The bytes of a `.pth` as a training script writes it: a dictionary with an epoch, and the state dict under `key`.
pub(crate) fn training_pth(arrays: &Arrays, key: &str) -> Vec<u8> {
    let mut pickle = Pickle::new();
    pickle.raw(b"}(");
    pickle.text("epoch");
    pickle.number(3);
    pickle.text(key);
    pickle.state_dict(arrays);
    pickle.raw(b"u.");
    with_storages(pickle, arrays)
}

fn with_storages(pickle: Pickle, arrays: &Arrays) -> Vec<u8> {
    let storages = arrays
        .values()
        .map(|(_, data)| data.iter().flat_map(|x| x.to_le_bytes()).collect());
    archive(&pickle.0, storages.collect())
}

/// A stored zip archive with a pickle and numbered storages.
pub(crate) fn archive(pickle: &[u8], storages: Vec<Vec<u8>>) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut part = |name: String, bytes: &[u8]| {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    };
    part("archive/data.pkl".into(), pickle);
    part("archive/byteorder".into(), b"little");
    for (number, bytes) in storages.iter().enumerate() {
        part(format!("archive/data/{number}"), bytes);
    }
    zip.finish().unwrap().into_inner()
}

/// Instructions of a pickle.
pub(crate) struct Pickle(pub(crate) Vec<u8>);

impl Pickle {
    pub(crate) fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.raw(b"X");
        self.raw(&(text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes());
    }

    pub(crate) fn number(&mut self, number: usize) {
        self.raw(b"\x8a\x08");
        self.raw(&(number as u64).to_le_bytes());
    }

    /// A state dict whose storages are numbered in order.
    fn state_dict(&mut self, arrays: &Arrays) {
        self.raw(b"ccollections\nOrderedDict\n)R(");
        for (number, (name, (shape, data))) in arrays.iter().enumerate() {
            self.text(name);
            self.tensor(&number.to_string(), shape, data.len());
        }
        self.raw(b"u");
    }

    fn tuple(&mut self, numbers: &[usize]) {
        self.raw(b"(");
        numbers.iter().for_each(|number| self.number(*number));
        self.raw(b"t");
    }

    /// A contiguous tensor of 32-bit floats at the start of a storage of `length` values.
    pub(crate) fn tensor(&mut self, storage: &str, shape: &[usize], length: usize) {
        let strides: Vec<usize> = (0..shape.len())
            .map(|at| shape[at + 1..].iter().product())
            .collect();
        self.raw(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.raw(b"ctorch\nFloatStorage\n");
        self.text(storage);
        self.text("cpu");
        self.number(length);
        self.raw(b"tQ");
        self.number(0);
        self.tuple(shape);
        self.tuple(&strides);
        self.raw(b"\x89ccollections\nOrderedDict\n)RtR");
    }
}

/// A file in a folder that goes with it.
pub(crate) fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

pub(crate) fn read(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let (_folder, path) = file(bytes);
    Weights::read(&path)
}

/// Why a file is refused.
pub(crate) fn refusal(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}
