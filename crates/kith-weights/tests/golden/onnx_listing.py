"""Prints what ONNX's own reader finds in a file, one line a part. The golden listing of the test in src/onnx.rs is that of a narrow encoder:

    pip install onnx
    kith serve --data-dir DATA --set encoder.width=8 --set encoder.side=32 --set encoder.dim=16    # until it is ready
    kith checkpoint export live --data-dir DATA --format onnx --out narrow
    python3 crates/kith-weights/tests/golden/onnx_listing.py narrow/model.onnx > crates/kith-weights/tests/golden/onnx.txt
"""

import sys

import onnx


def text(attribute):
    """An attribute's name and value: whole numbers only."""
    assert attribute.type in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS), attribute
    return f" {attribute.name}={onnx.helper.get_attribute_value(attribute)}"


def sizes(value):
    """Type and sizes of an input or output."""
    tensor = value.type.tensor_type
    return f"{tensor.elem_type} [{', '.join(size.dim_param or str(size.dim_value) for size in tensor.shape.dim)}]"


def main():
    model = onnx.load(sys.argv[1])
    onnx.checker.check_model(model, full_check=True)
    for used in model.opset_import:
        print(f'operators "{used.domain}" {used.version}')
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            print(kind, value.name, sizes(value))
    for tensor in model.graph.initializer:
        print("weights", tensor.name, tensor.data_type, list(tensor.dims))
    for node in model.graph.node:
        print(f"{node.op_type} {node.name} ({', '.join(node.input)}) ({', '.join(node.output)})" + "".join(map(text, node.attribute)))


if __name__ == "__main__":
    main()
