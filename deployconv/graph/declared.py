"""Remove declared sizes that shape inference does not confirm.

A static model whose inputs were made dynamic by hand still declares the former sizes of the tensors
between them. No node reads a declared shape, but runtimes believe it: onnxruntime turns a Shape
node into a constant if the size that it reads is declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_graphsurgeon as gs
from onnx import GraphProto, ModelProto, ValueInfoProto

from deployconv.graph.scope import Scope
from deployconv.graph.tensors import nested
from deployconv.graph.view import View

Size = int | str | None


def forget_unconfirmed_sizes(view: View, proto: ModelProto) -> None:
    """Remove declared sizes that do not follow from the inputs; ``proto`` is a copy of the model.

    They are those of tensors inside the graphs, and of outputs that a node reads as well. Names of
    sizes stay: no runtime takes them for numbers.
    """
    for scope in view.scopes:
        inferred = dict(_inferred(scope))
        graph = scope.in_copy(proto)
        read = {name for owner in nested(graph) for node in owner.node for name in node.input}
        outputs = graph.output if isinstance(graph, GraphProto) else ()
        for value in (*graph.value_info, *(value for value in outputs if value.name in read)):
            _forget(value, inferred)


def _inferred(scope: Scope) -> Iterator[tuple[str, Sequence[Size]]]:
    """Name and inferred shape of every tensor that a node of ``scope`` makes."""
    for node in scope.nodes:
        for tensor in node.outputs:
            if isinstance(tensor, gs.Variable) and tensor.shape is not None:
                yield tensor.name, tensor.shape


def _forget(value: ValueInfoProto, inferred: Mapping[str, Sequence[Size]]) -> None:
    if not value.type.tensor_type.HasField("shape"):
        return
    dims = value.type.tensor_type.shape.dim
    confirmed = inferred.get(value.name, ())
    for dim, size in zip(dims, [*confirmed, *[None] * len(dims)], strict=False):
        if dim.HasField("dim_value") and dim.dim_value != size:
            dim.ClearField("dim_value")
