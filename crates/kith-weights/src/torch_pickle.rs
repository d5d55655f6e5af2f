//! The pickle inside a `.pth`: what a state dict says about its tensors. candle reads it and runs nothing.
//!
//! candle trusts its input in three ways, so that each step is checked here: a text's length is taken before the text is there, references copy what
//! they refer to, and nesting has no bound.

use std::collections::BTreeMap;

use candle_core::{
    DType,
    pickle::{Object, Stack},
};

use super::WeightsError;

/// Most bytes of a pickle. ResNet-18's has thirty thousand.
pub(super) const MAX_BYTES: u64 = 1 << 22;
/// Most levels of objects within objects.
const MAX_DEPTH: u32 = 24;
/// Most objects and bytes of text that are looked at. It bounds time, and the memory of copies.
const MAX_WORK: usize = 1 << 21;
/// Keys under which training scripts keep a state dict.
const NESTED: [&str; 6] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
];

/// PyTorch's names of storages. Tensors of some of them are refused later, by their type.
const STORAGES: [&str; 16] = [
    "FloatStorage",
    "DoubleStorage",
    "HalfStorage",
    "BFloat16Storage",
    "LongStorage",
    "IntStorage",
    "ShortStorage",
    "CharStorage",
    "ByteStorage",
    "BoolStorage",
    "ComplexFloatStorage",
    "ComplexDoubleStorage",
    "QInt8Storage",
    "QUInt8Storage",
    "QInt32Storage",
    "UntypedStorage",
];

/// What a state dict says about a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    /// Name of its storage below `data/`.
    pub(super) storage: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// Values between neighbours, by dimension.
    pub(super) strides: Vec<usize>,
    /// The first value's place in the storage.
    pub(super) offset: usize,
}

impl Tensor {
    /// Whether its values lie one after the other in row-major order.
    pub(super) fn is_row_major(&self) -> bool {
        let mut inner = 1usize;
        let dimensions = self.shape.iter().zip(&self.strides).rev();
        dimensions.into_iter().all(|(size, stride)| {
            let fits = *size == 1 || *stride == inner;
            inner = inner.saturating_mul(*size);
            fits
        })
    }
}

/// The tensors of the state dict in a pickle, by name.
pub(super) fn tensors(pickle: &[u8]) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let dict = match unpickled(pickle)? {
        Object::Dict(dict) => dict,
        _ => return Err(WeightsError::malformed("its pickle is no dictionary")),
    };
    let nested = |name: &&str| {
        let found = dict.iter().find(|(key, _)| is_text(key, name));
        found.and_then(|(_, value)| match value {
            Object::Dict(inner) => Some(inner),
            _ => None,
        })
    };
    let is_tensor = |(_, value): &(Object, Object)| tensor(value).is_some();
    let dict = match NESTED.iter().find_map(nested) {
        Some(inner) if !dict.iter().any(is_tensor) => inner,
        _ => &dict,
    };
    let mut tensors = BTreeMap::new();
    for (key, value) in dict {
        let (Object::Unicode(name), Some(tensor)) = (key, tensor(value)) else {
            continue;
        };
        let tensor = tensor?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(WeightsError::malformed(format!("{name} is there twice")));
        }
    }
    Ok(tensors)
}

/// Runs candle's reader over a pickle, one instruction at a time.
fn unpickled(pickle: &[u8]) -> Result<Object, WeightsError> {
    let mut rest = pickle;
    let mut stack = Stack::empty();
    let mut work = 0;
    loop {
        check_next(rest)?;
        let done = stack.read(&mut rest).map_err(WeightsError::malformed)?;
        if done {
            return stack.finalize().map_err(WeightsError::malformed);
        }
        if let Some(top) = stack.stack().last() {
            check_class(top)?;
            weigh(top, MAX_DEPTH, &mut work)?;
        }
    }
}

/// Refuses an instruction whose argument is longer than what is left: memory would be taken for it.
fn check_next(rest: &[u8]) -> Result<(), WeightsError> {
    let fits = match rest {
        [b'X', length, ..] if rest.len() < 5 => usize::from(*length) == 0,
        [b'X', a, b, c, d, text @ ..] => {
            u64::from(u32::from_le_bytes([*a, *b, *c, *d])) <= text.len() as u64
        }
        // A whole number of more than 64 bits.
        [0x8a, bytes, ..] => *bytes <= 8,
        [] => false,
        _ => true,
    };
    if fits {
        Ok(())
    } else {
        Err(WeightsError::malformed("its pickle is cut off or damaged"))
    }
}

/// Refuses names of code beyond those that a state dict needs.
fn check_class(object: &Object) -> Result<(), WeightsError> {
    let Object::Class {
        module_name,
        class_name,
    } = object
    else {
        return Ok(());
    };
    let known = match module_name.as_str() {
        "collections" => class_name == "OrderedDict" || class_name == "defaultdict",
        "torch._utils" => class_name == "_rebuild_tensor_v2" || class_name == "_rebuild_parameter",
        "torch" => class_name == "Size" || STORAGES.contains(&class_name.as_str()),
        _ => false,
    };
    if known {
        Ok(())
    } else {
        Err(WeightsError::calls(&format!("{module_name}.{class_name}")))
    }
}

/// Adds the objects and bytes of text in `object` to `work`; an error where they are too many or too deep.
fn weigh(object: &Object, depth: u32, work: &mut usize) -> Result<(), WeightsError> {
    *work += 1;
    if depth == 0 || *work > MAX_WORK {
        return Err(WeightsError::malformed(
            "its pickle is nested or repeated beyond any state dict",
        ));
    }
    let mut inner = |object: &Object| weigh(object, depth - 1, work);
    match object {
        Object::Tuple(all) | Object::List(all) => all.iter().try_for_each(inner),
        Object::Dict(pairs) => pairs.iter().try_for_each(|(key, value)| {
            inner(key)?;
            inner(value)
        }),
        Object::Reduce { callable, args } | Object::Build { callable, args } => {
            inner(callable)?;
            inner(args)
        }
        Object::PersistentLoad(id) => inner(id),
        Object::Unicode(text) => {
            *work += text.len();
            Ok(())
        }
        // A reference copies these names too.
        Object::Class {
            module_name,
            class_name,
        } => {
            *work += module_name.len() + class_name.len();
            Ok(())
        }
        Object::Int(_)
        | Object::Long(_)
        | Object::Float(_)
        | Object::Bool(_)
        | Object::None
        | Object::Mark => Ok(()),
    }
}

/// The tensor that an object stands for; `None`: it stands for something else.
fn tensor(object: &Object) -> Option<Result<Tensor, WeightsError>> {
    let Object::Reduce { callable, args } = object else {
        return None;
    };
    let Object::Class { class_name, .. } = callable.as_ref() else {
        return None;
    };
    let args = match args.as_ref() {
        Object::Tuple(args) => args.as_slice(),
        _ => &[],
    };
    match class_name.as_str() {
        "_rebuild_tensor_v2" => {
            let odd = || WeightsError::malformed("a tensor of its state dict is described oddly");
            Some(rebuilt(args).unwrap_or_else(|| Err(odd())))
        }
        "_rebuild_parameter" => args.first().and_then(tensor),
        _ => None,
    }
}

/// A tensor from the arguments (storage, offset, size, stride, …) of its rebuilding; `None`: they are of other kinds.
fn rebuilt(args: &[Object]) -> Option<Result<Tensor, WeightsError>> {
    let [Object::PersistentLoad(id), offset, size, stride, ..] = args else {
        return None;
    };
    let Object::Tuple(id) = id.as_ref() else {
        return None;
    };
    let [
        _,
        Object::Class { class_name, .. },
        Object::Unicode(storage),
        ..,
    ] = id.as_slice()
    else {
        return None;
    };
    let tensor = Tensor {
        storage: storage.clone(),
        dtype: match dtype(class_name) {
            Ok(dtype) => dtype,
            Err(error) => return Some(Err(error)),
        },
        shape: sizes(size)?,
        strides: sizes(stride)?,
        offset: size_of(offset)?,
    };
    (tensor.shape.len() == tensor.strides.len()).then_some(Ok(tensor))
}

fn dtype(storage: &str) -> Result<DType, WeightsError> {
    Ok(match storage {
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "LongStorage" => DType::I64,
        "ByteStorage" | "BoolStorage" => DType::U8,
        other => {
            return Err(WeightsError::malformed(format!(
                "a tensor of its state dict has the type {other}"
            )));
        }
    })
}

fn sizes(object: &Object) -> Option<Vec<usize>> {
    match object {
        Object::Tuple(all) => all.iter().map(size_of).collect(),
        _ => None,
    }
}

fn size_of(object: &Object) -> Option<usize> {
    match object {
        Object::Int(size) => usize::try_from(*size).ok(),
        Object::Long(size) => usize::try_from(*size).ok(),
        _ => None,
    }
}

fn is_text(object: &Object, wanted: &str) -> bool {
    matches!(object, Object::Unicode(text) if text == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_class_count_as_text_does() {
        let class = Object::Class {
            module_name: "torch".to_owned(),
            class_name: "FloatStorage".to_owned(),
        };
        let mut work = 0;
        weigh(&class, MAX_DEPTH, &mut work).unwrap();
        assert_eq!(work, 1 + "torch".len() + "FloatStorage".len());
    }

    #[test]
    fn references_to_a_class_end_at_the_bound_on_work() {
        // 17 bytes and one object a step: half a bound's steps are far too many.
        let mut pickle = b"\x80\x02ctorch\nFloatStorage\nq\x00".to_vec();
        pickle.extend(b"h\x00".repeat(MAX_WORK / 16));
        pickle.push(b'.');
        let refused = tensors(&pickle).unwrap_err().to_string();
        assert!(refused.contains("repeated"), "{refused}");
    }
}
