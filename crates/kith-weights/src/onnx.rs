//! An encoder as an ONNX graph: normalised pixels in, embedding and hidden features out.

use kith_nn::{EncoderConfig, NamedArray, PLACES};
use prost::Message;

use super::{
    WeightsError,
    network::{Convolution, convolutions, features},
    onnx_proto::{
        Attribute, Dimension, Entry, FLOAT, Graph, INT, INTS, Model, Node, OperatorSet, Shape,
        Size, Tensor, TensorType, Type, ValueInfo,
    },
    torchvision::array,
};

/// Version of the file format (ONNX 1.13 and later) and of the set of operators.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// The bytes of an ONNX file. Its input `pixels` is `[batch, 3, side, side]`, its outputs are `embedding` `[batch, dim]` and `hidden`
/// `[batch, 8 · width]`. `metadata`: keys and values that go into the file, such as how images become pixels.
///
/// # Errors
/// [`WeightsError::NotAnEncoder`] if an array is missing.
pub fn onnx(
    config: &EncoderConfig,
    arrays: &[NamedArray],
    metadata: &[(String, String)],
) -> Result<Vec<u8>, WeightsError> {
    let convolutions = convolutions(config.width);
    let names = convolutions.iter().map(|conv| conv.name.as_str());
    let names = names
        .chain(["fc", "projection"])
        .chain(PLACES.map(|part| part.name));
    let names = names.flat_map(|name| [format!("{name}.weight"), format!("{name}.bias")]);
    let initializer = names.map(|name| Ok(tensor(array(arrays, &name)?)));
    let size = |size: usize| Size::Value(size as i64);
    let input = [size(3), size(config.side), size(config.side)];
    let graph = Graph {
        node: nodes(&convolutions, config.side),
        name: "kith".to_owned(),
        initializer: initializer.collect::<Result<_, WeightsError>>()?,
        input: vec![value("pixels", &input)],
        output: vec![
            value("embedding", &[size(config.dim)]),
            value("hidden", &[size(features(config.width))]),
        ],
    };
    let entry = |(key, value): &(String, String)| Entry {
        key: key.clone(),
        value: value.clone(),
    };
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "kith".to_owned(),
        doc_string: "image encoder; metadata_props say how an image becomes pixels".to_owned(),
        graph: Some(graph),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: metadata.iter().map(entry).collect(),
    };
    Ok(model.encode_to_vec())
}

/// All operations in order, on images of `side`.
fn nodes(convolutions: &[Convolution], side: usize) -> Vec<Node> {
    let mut nodes = Nodes::default();
    let find = |name: &str| convolutions.iter().find(|conv| conv.name == name);
    let mut x = "pixels".to_owned();
    let mut stages = Vec::new();
    if let Some(stem) = find("conv1") {
        x = nodes.conv(stem, &x);
        x = nodes.node("Relu", &[&x], Vec::new());
        let window = [
            ("kernel_shape", [3, 3].as_slice()),
            ("strides", &[2, 2]),
            ("pads", &[1; 4]),
        ];
        x = nodes.node(
            "MaxPool",
            &[&x],
            window.map(|(name, all)| ints(name, all)).into(),
        );
    }
    for (stage, block) in (1..=4).flat_map(|stage| [(stage, 0), (stage, 1)]) {
        let part = |part: &str| find(&format!("layer{stage}.{block}.{part}"));
        let (Some(first), Some(second)) = (part("conv1"), part("conv2")) else {
            continue;
        };
        let shortcut = part("downsample.0").map_or(x.clone(), |conv| nodes.conv(conv, &x));
        x = nodes.conv(first, &x);
        x = nodes.node("Relu", &[&x], Vec::new());
        x = nodes.conv(second, &x);
        x = nodes.node("Add", &[&x, &shortcut], Vec::new());
        x = nodes.node("Relu", &[&x], Vec::new());
        if block == 1 {
            stages.push(x.clone());
        }
    }
    x = nodes.node("GlobalAveragePool", &[&x], Vec::new());
    x = nodes.node("Flatten", &[&x], Vec::new());
    x = nodes.linear("fc", &x);
    nodes.named("hidden", "Relu", &[&x], Vec::new());
    let mut sum = nodes.linear("projection", "hidden");
    for (part, activations) in PLACES
        .iter()
        .filter_map(|part| Some((part, stages.get(part.stage - 1)?)))
    {
        // The stem halves the side twice, each stage but the first once more.
        let place = side / (2 << part.stage) / part.grid;
        let window = ["kernel_shape", "strides"].map(|name| ints(name, &[place as i64; 2]));
        x = nodes.node("AveragePool", &[activations], window.into());
        let over_places = vec![ints("kernel_shape", &[part.grid as i64; 2])];
        let arrays = ["weight", "bias"].map(|array| format!("{}.{array}", part.name));
        x = nodes.node("Conv", &[&x, &arrays[0], &arrays[1]], over_places);
        x = nodes.node("Flatten", &[&x], Vec::new());
        sum = nodes.node("Add", &[&sum, &x], Vec::new());
    }
    let over_values = vec![int("axis", 1), int("p", 2)];
    nodes.named("embedding", "LpNormalization", &[&sum], over_values);
    nodes.0
}

/// Nodes so far. Each has one output, named after its place.
#[derive(Default)]
struct Nodes(Vec<Node>);

impl Nodes {
    fn named(&mut self, output: &str, kind: &str, inputs: &[&str], attribute: Vec<Attribute>) {
        self.0.push(Node {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: kind.to_owned(),
            attribute,
        });
    }

    /// Adds a node; the name of its output.
    fn node(&mut self, kind: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        let output = format!("{}_{kind}", self.0.len());
        self.named(&output, kind, inputs, attribute);
        output
    }

    fn conv(&mut self, conv: &Convolution, x: &str) -> String {
        let (weight, bias) = (
            format!("{}.weight", conv.name),
            format!("{}.bias", conv.name),
        );
        let (kernel, stride) = (conv.shape[2] as i64, conv.stride as i64);
        let attributes = vec![
            ints("kernel_shape", &[kernel; 2]),
            ints("strides", &[stride; 2]),
            ints("pads", &[kernel / 2; 4]),
        ];
        self.node("Conv", &[x, &weight, &bias], attributes)
    }

    fn linear(&mut self, layer: &str, x: &str) -> String {
        let (weight, bias) = (format!("{layer}.weight"), format!("{layer}.bias"));
        self.node("Gemm", &[x, &weight, &bias], vec![int("transB", 1)])
    }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.to_owned(),
        i: Some(value),
        ints: Vec::new(),
        kind: INT,
    }
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute {
        name: name.to_owned(),
        i: None,
        ints: values.to_vec(),
        kind: INTS,
    }
}

fn tensor(array: &NamedArray) -> Tensor {
    Tensor {
        dims: array.shape.iter().map(|size| *size as i64).collect(),
        data_type: FLOAT,
        name: array.name.clone(),
        raw_data: array.data.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// An input or output: a batch of arrays of `sizes`.
fn value(name: &str, sizes: &[Size]) -> ValueInfo {
    let batch = Size::Name("batch".to_owned());
    let sizes = std::iter::once(&batch).chain(sizes);
    let dim = sizes.map(|size| Dimension {
        size: Some(size.clone()),
    });
    let shape = Some(Shape { dim: dim.collect() });
    ValueInfo {
        name: name.to_owned(),
        r#type: Some(Type {
            tensor_type: Some(TensorType {
                elem_type: FLOAT,
                shape,
            }),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_nn::{Device, Encoder};

    /// What `tests/golden/onnx_listing.py` prints of a file.
    fn listing(bytes: &[u8]) -> String {
        let model = Model::decode(bytes).unwrap();
        let mut lines = Vec::new();
        for set in &model.opset_import {
            lines.push(format!("operators {:?} {}", set.domain, set.version));
        }
        let graph = model.graph.unwrap();
        let values = |kind: &str, values: &[ValueInfo]| {
            let line = |value: &ValueInfo| format!("{kind} {} {}", value.name, sizes(value));
            values.iter().map(line).collect::<Vec<_>>()
        };
        lines.extend(values("input", &graph.input));
        lines.extend(values("output", &graph.output));
        for tensor in &graph.initializer {
            let count: i64 = tensor.dims.iter().product();
            assert_eq!(tensor.raw_data.len(), 4 * count as usize, "{}", tensor.name);
            let (name, kind) = (&tensor.name, tensor.data_type);
            lines.push(format!("weights {name} {kind} {:?}", tensor.dims));
        }
        for node in &graph.node {
            let attributes = node.attribute.iter().map(|attribute| match attribute.kind {
                INT => format!(" {}={}", attribute.name, attribute.i.unwrap()),
                INTS => format!(" {}={:?}", attribute.name, attribute.ints),
                kind => format!(" {} of the unknown type {kind}", attribute.name),
            });
            let (inputs, outputs) = (node.input.join(", "), node.output.join(", "));
            let attributes: String = attributes.collect();
            let (kind, name) = (&node.op_type, &node.name);
            lines.push(format!("{kind} {name} ({inputs}) ({outputs}){attributes}"));
        }
        lines.join("\n") + "\n"
    }

    fn sizes(value: &ValueInfo) -> String {
        let tensor = value.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
        let sizes = tensor.shape.as_ref().unwrap().dim.iter();
        let sizes = sizes.map(|one| match one.size.as_ref().unwrap() {
            Size::Value(size) => size.to_string(),
            Size::Name(name) => name.clone(),
        });
        let sizes = sizes.collect::<Vec<_>>().join(", ");
        format!("{} [{sizes}]", tensor.elem_type)
    }

    /// onnxruntime reads the same file in `tools/weights/check.py`; this holds its structure where that is not run.
    #[test]
    fn the_graph_has_the_nodes_attributes_and_shapes_that_onnx_itself_reads() {
        let config = EncoderConfig {
            width: 8,
            side: 32,
            dim: 16,
            towers: 1,
        };
        let encoder = Encoder::fresh(&config, 3, &Device::cpu()).unwrap();
        let metadata = [("kith.step".to_owned(), "7".to_owned())];
        let bytes = onnx(&config, &encoder.to_arrays().unwrap(), &metadata).unwrap();
        let props = Model::decode(bytes.as_slice()).unwrap().metadata_props;
        let props: Vec<_> = props.into_iter().map(|one| (one.key, one.value)).collect();
        assert_eq!(props, metadata);
        let expected = include_str!("../tests/golden/onnx.txt");
        assert_eq!(listing(&bytes), expected);
    }
}
