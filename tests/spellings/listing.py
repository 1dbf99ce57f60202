"""A graph as a few lines of text: operators, tensors, attributes, small constants."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

_SMALL = 40
"""Elements of a constant that is printed in full."""


def _constant(tensor: TensorProto) -> str:
    array = numpy_helper.to_array(tensor)
    kind = f"{array.dtype}{list(array.shape)}".replace(" ", "")
    if array.size > _SMALL:
        return kind
    values = np.array2string(array.ravel(), separator=",", max_line_width=100_000, threshold=_SMALL)
    return f"{kind} {values.replace(' ', '')}"


def _value(info: ValueInfoProto) -> str:
    shape = [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    return f"{info.name}: {dtype}[{','.join(map(str, shape))}]"


def _attribute(attribute: onnx.AttributeProto) -> str:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return f"{attribute.name}={_constant(value)}"
    if isinstance(value, GraphProto):
        return f"{attribute.name}=<graph of {len(value.node)} nodes>"
    if isinstance(value, bytes):
        value = value.decode()
    return f"{attribute.name}={value}".replace(" ", "")


def _node(node: NodeProto) -> str:
    attributes = " ".join(map(_attribute, node.attribute))
    inputs, outputs = (", ".join(n or "-" for n in names) for names in (node.input, node.output))
    return f"{outputs} = {node.op_type}({inputs}) {attributes}".rstrip()


def listing(model: ModelProto) -> Iterator[str]:
    """The lines: inputs, constants, nodes in order, outputs."""
    graph = model.graph
    opsets = ", ".join(
        f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import
    )
    yield f"opset {opsets}; ir {model.ir_version}"
    yield "in  " + "; ".join(map(_value, graph.input))
    for tensor in graph.initializer:
        yield f"    {tensor.name} := {_constant(tensor)}"
    for node in graph.node:
        yield f"    {_node(node)}"
    yield "out " + "; ".join(map(_value, graph.output))
