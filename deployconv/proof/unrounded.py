"""A quantized model without its roundings: smooth again, so that small differences stay small.

    x -> QuantizeLinear -> DequantizeLinear -> y        x -> Clip(to the ends of the grid) -> y

A sum that lies near a tie is rounded to one side by one right implementation and to the other
by the next. Behind a few layers more that is no longer one step but many, here and there. In
this twin the activations saturate as they did and are rounded no more; weights keep their
integers. Two models that compute the same have twins that compute the same, up to the rounding
of floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, checker, helper, numpy_helper

from deployconv.errors import ModelError
from deployconv.graph.tensors import graph_attributes
from deployconv.proof.twin import read_whole
from deployconv.runtimes.base import ModelSource

Array = NDArray[Any]

_CLIP_BY_INPUT = 11
"""The first opset whose Clip takes its limits as inputs."""


def unrounded(source: ModelSource) -> bytes | None:
    """The twin of a model file or serialized model, serialized.

    None where no activation is rounded, or the model cannot be read or is over 1 GiB. Replaced
    are pairs in the main graph of one scale and one zero point, both initializers.
    """
    try:
        model = read_whole(source)
    except (OSError, ValueError, DecodeError, ModelError, checker.ValidationError):
        return None
    return model.SerializeToString() if model is not None and _smooth(model) else None


def _smooth(model: ModelProto) -> bool:
    """Replace each pair of activations; whether there was any."""
    graph = model.graph
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    computed = {value.name for value in graph.input} - constants.keys()
    readers = _readers(graph)
    replaced = set()
    for node in graph.node:
        if not computed.isdisjoint(node.input):
            computed.update(node.output)
        limits = _limits(node, constants) if node.op_type == "QuantizeLinear" else None
        if limits is None or node.input[0] not in computed:
            continue
        behind = readers.get(node.output[0], [])
        pairs = [other for other in behind if other and _undoes(other, node, constants)]
        if pairs and len(pairs) == len(behind):
            replaced.add(node.output[0])
            for other in pairs:
                _become(other, "Identity", other.input[:1])
            _clip(graph, node, limits, opset)
    typed = [value for value in graph.value_info if value.name not in replaced]
    del graph.value_info[:]
    graph.value_info.extend(typed)
    return bool(replaced)


def _readers(graph: GraphProto) -> dict[str, list[NodeProto | None]]:
    """The nodes that read each tensor; None for the graph's own output and for bodies."""
    found: dict[str, list[NodeProto | None]] = {value.name: [None] for value in graph.output}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
        for name in _captured(node):
            found.setdefault(name, []).append(None)
    return found


def _captured(node: NodeProto) -> Iterator[str]:
    """The names that a node's bodies read, at any depth."""
    for _, body in graph_attributes(node):
        for inner in body.node:
            yield from inner.input
            yield from _captured(inner)
        yield from (value.name for value in body.output)


def _limits(quantize: NodeProto, constants: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """The least and the greatest value of the grid; None where it is not one for all elements."""
    scale, zero = (_constant(quantize, place, constants) for place in (1, 2))
    if scale is None or scale.size != 1 or zero is None or zero.size != 1:
        return None
    if zero.dtype.kind not in "iu":
        return None
    range_ = np.iinfo(zero.dtype)
    low, high = (
        np.asarray((end - int(zero.item())) * float(scale.item()), scale.dtype)
        for end in (range_.min, range_.max)
    )
    return low, high


def _constant(node: NodeProto, place: int, constants: Mapping[str, Array]) -> Array | None:
    if len(node.input) > place and node.input[place]:
        return constants.get(node.input[place])
    return np.zeros((), np.uint8) if place == 2 else None


def _undoes(other: NodeProto, quantize: NodeProto, constants: Mapping[str, Array]) -> bool:
    """Whether ``other`` takes integers back to the same grid."""
    if other.op_type != "DequantizeLinear":
        return False
    for place in (1, 2):
        theirs, ours = (_constant(node, place, constants) for node in (other, quantize))
        if theirs is None or ours is None or theirs.size != 1 or theirs.item() != ours.item():
            return False
    return True


def _clip(graph: GraphProto, node: NodeProto, limits: tuple[Array, Array], opset: int) -> None:
    if opset < _CLIP_BY_INPUT:
        low, high = (float(limit.item()) for limit in limits)
        _become(node, "Clip", node.input[:1], min=low, max=high)
        return
    names = [f"{node.output[0]}.{end}" for end in ("lowest", "highest")]
    graph.initializer.extend(map(numpy_helper.from_array, limits, names))
    _become(node, "Clip", [node.input[0], *names])


def _become(node: NodeProto, op: str, inputs: Sequence[str], **attributes: float) -> None:
    given = list(inputs)
    node.op_type = op
    del node.input[:], node.attribute[:]
    node.input.extend(given)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
