"""Convolutions that are integer operators of their own: listed, and left as they are.

    x -> movement that upsamples -> QLinearConv -> y
    x -> movement that upsamples -> (DynamicQuantizeLinear) -> ConvInteger -> y

Their weights could be moved as those behind DequantizeLinear are, but models in this format are
the end of a toolchain: the same tools write Q/DQ, which every runtime here reads.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deployconv.graph.tensors import dtype_name
from deployconv.graph.view import Scope, View
from deployconv.match.movement import movements
from deployconv.match.site import Site, Skip, SkippedSite
from deployconv.match.upsampled_conv import TRIES, mapped

_WEIGHT = {"QLinearConv": 3, "ConvInteger": 1}
_ZERO_POINT = 2


def recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site that ends in ``node``, an integer convolution behind an upsampling; else None."""
    if node.op not in _WEIGHT or node.domain not in (None, "", "ai.onnx"):
        return None
    target, fill = node.inputs[0], 0.0
    producer = target.inputs[0] if target.inputs else None
    if producer is not None and producer.op == "DynamicQuantizeLinear":
        target = producer.inputs[0]
    else:
        fill = _zero_point(node, scope, view)
    weight = view.constants.of(node.inputs[_WEIGHT[node.op]], scope)
    channels = weight.shape[1] * node.attrs.get("group", 1) if weight is not None else None
    rank = len(weight.shape) if weight is not None else None
    for tried, movement in enumerate(movements(target, scope, view)):
        if tried == TRIES:
            break
        if movement.segments[0].pointwise:
            continue
        # In floats, whatever the model moves: the map is the same, and they hold more numbers.
        found = mapped(movement, channels, rank, "float32", fill)
        if found is None or all(axis.stride == 1 for axis in found.maps):
            continue
        text = f"it ends in a {node.op}; quantize the model in the Q/DQ format instead"
        reason = Skip("quantized-operator", text)
        dtype = dtype_name(movement.source.dtype)
        nodes = (*movement.nodes, node)
        return SkippedSite(name, found.pattern, scope, nodes, None, dtype, reason)
    return None


def _zero_point(node: gs.Node, scope: Scope, view: View) -> float:
    """What a zero is among the integers that ``node`` reads; 0 where that is not known."""
    given = node.inputs[_ZERO_POINT] if len(node.inputs) > _ZERO_POINT else None
    constant = view.constants.of(given, scope) if given is not None and given.name else None
    if constant is None or constant.shape not in ((), (1,)):
        return 0.0
    return float(constant.read().reshape(()))
