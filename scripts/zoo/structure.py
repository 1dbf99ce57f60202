"""A model's structure as text: what two exports of one network should have in common."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.numpy_helper import to_array

_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_SHOWN = 16
"""Most elements of an integer tensor that are written out."""


class _Names:
    """Values numbered in the order in which they first appear: exporters differ in names only."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        return f"%{self._numbers.setdefault(name, len(self._numbers))}" if name else "none"


def _tensor(tensor: TensorProto) -> str:
    """Type and shape; of small integers (shapes, axes, indices) the values too."""
    text = f"{TensorProto.DataType.Name(tensor.data_type)}{list(tensor.dims)}"
    if tensor.data_type in _INTEGERS and to_array(tensor).size <= _SHOWN:
        text += f" = {to_array(tensor).tolist()}"
    return text


def _value(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = [d.dim_param or d.dim_value for d in kind.shape.dim]
    return f"{TensorProto.DataType.Name(kind.elem_type)}{dims}"


def _attribute(attribute: AttributeProto) -> str:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        value = _tensor(value)
    elif isinstance(value, bytes):
        value = value.decode()
    elif not isinstance(value, (int, float)):
        value = list(value)
    return f"{attribute.name}={value}"


def _node(node: NodeProto, names: _Names, indent: str) -> Iterator[str]:
    inputs = ", ".join(map(names, node.input))
    outputs = ", ".join(map(names, node.output))
    ordered = sorted(node.attribute, key=lambda attribute: attribute.name)
    plain = [_attribute(a) for a in ordered if a.type != AttributeProto.GRAPH]
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    yield f"{indent}{outputs} = {operator}({inputs}) {' '.join(plain)}".rstrip()
    for attribute in ordered:
        if attribute.type == AttributeProto.GRAPH:
            yield f"{indent}  {attribute.name}:"
            yield from _graph(attribute.g, names, indent + "    ")


def _graph(graph: GraphProto, names: _Names, indent: str = "") -> Iterator[str]:
    for value in graph.input:
        yield f"{indent}input {names(value.name)} {value.name} {_value(value)}"
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for name in node.input:
            if name in initializers:
                yield f"{indent}{names(name)} = {_tensor(initializers.pop(name))}"
        yield from _node(node, names, indent)
    for value in graph.output:
        yield f"{indent}output {names(value.name)} {value.name} {_value(value)}"
    # What only a body reads (or nothing does) has no place in the order of use.
    yield from sorted(f"{indent}captured {_tensor(tensor)}" for tensor in initializers.values())


def structure(model: ModelProto) -> list[str]:
    """One line for each input, initializer, node and output, in the graph's order.

    Names of values, metadata and the values of floating-point weights are left out.
    """
    opsets = (f"opset {o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    functions = (f"function {f.domain}.{f.name}" for f in model.functions)
    return [*opsets, *functions, *_graph(model.graph, _Names())]
