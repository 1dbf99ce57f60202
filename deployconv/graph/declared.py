"""Remove declared sizes that shape inference does not confirm.

A static model whose inputs were made dynamic by hand still declares the former sizes of the tensors
between them. No node reads a declared shape, but runtimes believe it: onnxruntime turns a Shape
node into a constant if the size that it reads is declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_graphsurgeon as gs
from onnx import FunctionProto, GraphProto, ModelProto, ValueInfoProto

from deployconv.graph.scope import Scope
from deployconv.graph.symbolic import Unproven
from deployconv.graph.tensors import all_graphs, nested
from deployconv.graph.view import View


def forget_unconfirmed_sizes(view: View, proto: ModelProto) -> None:
    """Remove declared sizes that do not follow from the inputs; ``proto`` is a copy of the model.

    They are those of tensors inside the graphs, of inputs and outputs of bodies, and of outputs of
    the model that a node reads as well. Names of sizes stay: no runtime takes them for numbers.
    """
    for scope in view.scopes:
        graph = scope.in_copy(proto)
        tensors = (tensor for node in scope.nodes for tensor in (*node.inputs, *node.outputs))
        known = {tensor.name: tensor for tensor in tensors}
        for value in (*graph.value_info, *_passed_on(graph, scope)):
            if value.name in known and value.type.tensor_type.HasField("shape"):
                _forget(value, _sizes(known[value.name], scope, view))


def forget_symbols(proto: ModelProto) -> None:
    """Remove the declared shapes of tensors inside the graphs of ``proto`` that name a size."""
    for graph in all_graphs(proto):
        named = [at for at, value in enumerate(graph.value_info) if _names_a_size(value)]
        for at in reversed(named):
            del graph.value_info[at]


def names_sizes(proto: ModelProto) -> bool:
    """Whether ``proto`` declares a tensor inside one of its graphs with the name of a size."""
    return any(_names_a_size(value) for graph in all_graphs(proto) for value in graph.value_info)


def _names_a_size(value: ValueInfoProto) -> bool:
    return any(dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _passed_on(graph: GraphProto | FunctionProto, scope: Scope) -> Iterator[ValueInfoProto]:
    """Inputs and outputs that other nodes of the model read or make."""
    if isinstance(graph, FunctionProto):
        return
    if scope.parent is not None:
        yield from (*graph.input, *graph.output)
        return
    read = {name for owner in nested(graph) for node in owner.node for name in node.input}
    yield from (value for value in graph.output if value.name in read)


def _sizes(tensor: gs.Tensor, scope: Scope, view: View) -> Sequence[object]:
    """The sizes that follow from the inputs, None for each that depends on an open size."""
    try:
        return [size.constant for size in view.open_shapes.of(tensor, scope).shape]
    except Unproven:
        return ()


def _forget(value: ValueInfoProto, confirmed: Sequence[object]) -> None:
    """Remove each declared number that is not ``confirmed``."""
    dims = value.type.tensor_type.shape.dim
    for at, dim in enumerate(dims):
        agrees = at < len(confirmed) and dim.dim_value == confirmed[at]
        if dim.HasField("dim_value") and not agrees:
            dim.ClearField("dim_value")
