"""Find the sizes that a graph computes from the shapes of tensors, if these are known."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, numpy_helper

from deployconv.graph import symbolic
from deployconv.graph.shapes import Instance
from deployconv.graph.symbolic import Known, Size, Unproven

_MOST_SIZES = 8
"""Elements of a tensor that may hold the sizes of an image."""
_MOST_NODES = 64
"""Nodes that compute it."""


def computed_sizes(
    names: Iterable[str], graph: GraphProto | FunctionProto, shapes: Instance
) -> dict[str, NDArray[np.int64]]:
    """The values of those of ``names`` that nodes of ``graph`` compute from ``shapes``."""
    few = [name for name in names if len(shapes.get(name, ())) == 1]
    wanted = [name for name in few if shapes[name][0] <= _MOST_SIZES]
    makers = {name: node for node in graph.node for name in node.output} if wanted else {}
    found = {}
    for name in wanted:
        with suppress(Unproven, KeyError):
            found[name] = np.array(_known(name, makers, graph, shapes).ints(), np.int64)
    return found


def _known(
    name: str,
    makers: dict[str, NodeProto],
    graph: GraphProto | FunctionProto,
    shapes: Instance,
) -> Known:
    """What is known of the tensor ``name``; Unproven or KeyError if nothing is."""
    held = graph.initializer if isinstance(graph, GraphProto) else ()
    known = {
        tensor.name: Known.of(numpy_helper.to_array(tensor))
        for tensor in held
        if len(tensor.dims) <= 1 and tensor.data_location != TensorProto.EXTERNAL
    }
    order: list[NodeProto] = []
    waiting = [makers[name]]
    while waiting:
        node = waiting.pop()
        order.append(node)
        if len(order) > _MOST_NODES:
            raise Unproven
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            order.pop()
            known[node.output[0]] = Known.of(numpy_helper.to_array(node.attribute[0].t))
        elif node.op_type == "Shape":
            known[node.input[0]] = Known(tuple(map(Size.of, shapes[node.input[0]])))
        else:
            waiting += [makers[one] for one in node.input if one and one not in known]
    for node in reversed(order):
        inputs = [known[one] if one else None for one in node.input]
        known.update(zip(node.output, symbolic.run(node, inputs), strict=False))
    return known[name]
