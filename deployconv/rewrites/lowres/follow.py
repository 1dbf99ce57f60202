"""From a tensor to the layer behind it, where that layer may be taken in."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.match.attributes import has_references


def is_known(node: gs.Node, scope: Scope) -> bool:
    """True for an ONNX operator that stands in ``scope`` itself, all its attributes stated."""
    standard = node.domain in (None, "", "ai.onnx") and not has_references(node)
    return standard and scope.holds(node)


def only_reader(tensor: gs.Tensor, scope: Scope) -> gs.Node | None:
    """The node behind ``tensor``; None where something else reads it too, or it reads it twice."""
    if tensor.name in scope.outputs or len(tensor.outputs) != 1:
        return None
    node = tensor.outputs[0]
    return node if is_known(node, scope) and node.inputs.count(tensor) == 1 else None


def reduces_channels(node: gs.Node, axes: Constant | None, rank: int) -> bool:
    """True for a reduction of a tensor of ``rank`` over its channels alone, which stay as one.

    Its axes are an attribute, or from opset 13 or 18 on the input ``axes``.
    """
    found = node.attrs.get("axes")
    if found is None and axes is not None:
        found = np.ravel(axes.read()).tolist()
    return bool(node.attrs.get("keepdims", 1)) and found in ([1], [1 - rank])


def leads_only_to(tensor: gs.Tensor, last: gs.Node, scope: Scope) -> bool:
    """True where all that reads ``tensor``, near or far, serves ``last`` before anything else.

    A shuffle that is spelled out reads the shape of what it shuffles, besides that itself.
    """
    waiting, seen = [tensor], {id(last)}
    while waiting:
        given = waiting.pop()
        if given.name in scope.outputs:
            return False
        for node in given.outputs:
            if not is_known(node, scope) or len(seen) > _MOST_NODES:
                return False
            if id(node) not in seen:
                seen.add(id(node))
                waiting += node.outputs
    return True


_MOST_NODES = 64
"""More than any shuffle has, its arithmetic of sizes included."""
