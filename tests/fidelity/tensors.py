"""Tensors and attributes of unusual kinds."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, helper

from tests.build import FLOAT, graph, integers, node, tensor, value
from tests.fidelity.network import UPSAMPLED, custom, feature, network


def cast(name: str, dtype: int, opset: int, ir_version: int) -> ModelProto:
    """A narrow initializer that a Cast widens."""
    narrow = helper.make_tensor(name, dtype, [4], [0.0, 1.0, -1.0, 0.5])
    return network(
        [node("Cast", [name], ["wide"], name="cast", to=FLOAT)],
        outputs=[value("wide", FLOAT, [4])],
        initializers=[narrow],
        opset=opset,
        ir_version=ir_version,
    )


def dequantized(dtype: int, values: list[int]) -> ModelProto:
    quantized = helper.make_tensor("q", dtype, [len(values)], values)
    return network(
        [node("DequantizeLinear", ["q", "scale"], ["d"], name="dequantize")],
        outputs=[value("d", FLOAT, [len(values)])],
        initializers=[quantized, tensor("scale", np.float32(0.5))],
        opset=21,
        ir_version=10,
    )


def sparse(name: str) -> SparseTensorProto:
    """Four elements, one of them 3; in a graph it goes by ``name``."""
    values = helper.make_tensor(name, FLOAT, [1], [3.0])
    return helper.make_sparse_tensor(values, tensor("", np.array([2])), [4])


@feature()
def int4_initializer() -> ModelProto:
    return dequantized(TensorProto.INT4, [1, -2, 3])


@feature()
def uint4_initializer() -> ModelProto:
    return dequantized(TensorProto.UINT4, [1, 2, 15])


@feature(runs=False)
def float4_initializer() -> ModelProto:
    return cast("narrow", TensorProto.FLOAT4E2M1, opset=23, ir_version=11)


@feature()
def float8e4m3fn_initializer() -> ModelProto:
    return cast("narrow", TensorProto.FLOAT8E4M3FN, opset=19, ir_version=9)


@feature()
def float8e4m3fnuz_initializer() -> ModelProto:
    return cast("narrow", TensorProto.FLOAT8E4M3FNUZ, opset=19, ir_version=9)


@feature()
def float8e5m2fnuz_initializer() -> ModelProto:
    return cast("narrow", TensorProto.FLOAT8E5M2FNUZ, opset=19, ir_version=9)


@feature()
def bfloat16_initializer() -> ModelProto:
    made = cast("narrow", TensorProto.BFLOAT16, opset=17, ir_version=8)
    raw = np.array([1, 2, 3, 4], ml_dtypes.bfloat16).tobytes()
    made.graph.initializer[2].CopyFrom(
        TensorProto(name="narrow", dims=[4], data_type=TensorProto.BFLOAT16, raw_data=raw)
    )
    return made


@feature()
def values_in_typed_fields() -> ModelProto:
    """``float_data`` instead of ``raw_data``, for the replaced node's parameters too."""
    made = network(initializers=[helper.make_tensor("kept", FLOAT, [2], [1.0, 2.0])])
    for index, initializer in enumerate(made.graph.initializer):
        array = np.frombuffer(initializer.raw_data or b"", np.float32)
        if array.size:
            dims = list(initializer.dims)
            copy = helper.make_tensor(initializer.name, FLOAT, dims, array.tolist())
            made.graph.initializer[index].CopyFrom(copy)
    return made


@feature()
def unused_initializers() -> ModelProto:
    empty = tensor("empty", np.zeros((0, 3), np.float32))
    return network(initializers=[tensor("unused", integers(3)), empty, tensor("unit", np.array(1))])


@feature()
def equal_initializers() -> ModelProto:
    """Two tensors of the same content stay two."""
    return network(initializers=[tensor("first", integers(3)), tensor("second", integers(3))])


@feature()
def string_initializer() -> ModelProto:
    text = TensorProto(
        name="text", data_type=TensorProto.STRING, dims=[2], string_data=[b"plain", b"\xff\xfe"]
    )
    return network(initializers=[text])


@feature()
def complex_initializer() -> ModelProto:
    return network(initializers=[tensor("phasor", np.array([1 + 2j], np.complex64))])


@feature(checks=False)  # shape inference knows no operator that reads one
def sparse_initializer() -> ModelProto:
    made = network(
        [node("Identity", ["thin"], ["z"], name="identity")], outputs=[value("z", FLOAT, [4])]
    )
    made.graph.sparse_initializer.append(sparse("thin"))
    return made


@feature(runs=False)
def sparse_constant() -> ModelProto:
    return network(
        [node("Constant", [], ["z"], name="thin", sparse_value=sparse(""))],
        outputs=[value("z", FLOAT, [4])],
    )


@feature(runs=False)
def sparse_tensors_attribute() -> ModelProto:
    attribute = AttributeProto(name="many", type=AttributeProto.SPARSE_TENSORS)
    attribute.sparse_tensors.extend([sparse("one"), sparse("two")])
    return custom(attribute)


@feature(runs=False)
def tensors_attribute() -> ModelProto:
    attribute = AttributeProto(name="many", type=AttributeProto.TENSORS)
    attribute.tensors.extend([tensor("one", integers(2)), tensor("two", integers(3))])
    return custom(attribute)


@feature(runs=False)
def graphs_attribute() -> ModelProto:
    attribute = AttributeProto(name="many", type=AttributeProto.GRAPHS)
    body = graph([node("Relu", ["y"], ["r"])], [], [value("r", FLOAT, UPSAMPLED)])
    attribute.graphs.extend([body, body])
    return custom(attribute)


@feature(runs=False)
def empty_lists() -> ModelProto:
    kinds = {"ints": AttributeProto.INTS, "floats": AttributeProto.FLOATS}
    kinds |= {"strings": AttributeProto.STRINGS, "tensors": AttributeProto.TENSORS}
    return custom(*(AttributeProto(name=name, type=kind) for name, kind in kinds.items()))


@feature(runs=False)
def type_attributes() -> ModelProto:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, ["N", 3]))
    one = AttributeProto(name="one", type=AttributeProto.TYPE_PROTO, tp=kind)
    many = AttributeProto(name="many", type=AttributeProto.TYPE_PROTOS, type_protos=[kind, kind])
    return custom(one, many)


@feature(runs=False)
def strings_that_are_not_utf8() -> ModelProto:
    one = AttributeProto(name="one", type=AttributeProto.STRING, s=b"\xff\x00")
    many = AttributeProto(name="many", type=AttributeProto.STRINGS, strings=[b"\xc3", b"fine"])
    return custom(one, many)


@feature(runs=False)
def attributes_out_of_order() -> ModelProto:
    return custom(*(helper.make_attribute(name, 1) for name in "zay"))
