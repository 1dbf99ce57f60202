"""Find the layers that read a tensor, as far as they may be taken into a rewrite."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.match.attributes import has_references

_SAME_ELEMENTS = frozenset(["Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"])
_MOST_NODES = 64
"""More nodes than any pixel shuffle has, those that compute its sizes included."""


def is_known(node: gs.Node, scope: Scope) -> bool:
    """True for an ONNX operator of this very graph whose attributes are all stated."""
    standard = node.domain in (None, "", "ai.onnx") and not has_references(node)
    return standard and scope.holds(node)


def only_reader(tensor: gs.Tensor, scope: Scope) -> gs.Node | None:
    """The one node that reads ``tensor``; None if others do, or it does so twice."""
    if tensor.name in scope.outputs or len(tensor.outputs) != 1:
        return None
    node = tensor.outputs[0]
    return node if is_known(node, scope) and node.inputs.count(tensor) == 1 else None


def reduces_channels(node: gs.Node, axes: Constant | None, rank: int) -> bool:
    """True for a reduction over the channels alone that keeps them as one.

    Args:
        node: the reduction; its axes are an attribute, or from opset 13 or 18 on an input.
        axes: the constant of that input, if there is one.
        rank: dimensions of the tensor that it reads.
    """
    found = node.attrs.get("axes")
    if found is None and axes is not None:
        found = np.ravel(axes.read()).tolist()
    return bool(node.attrs.get("keepdims", 1)) and found in ([1], [1 - rank])


def leads_only_to(tensor: gs.Tensor, last: gs.Node, scope: Scope) -> bool:
    """Whether every path from ``tensor`` goes through ``last`` (``last`` post-dominates it).

    A pixel shuffle written with Reshape reads the shape of its input besides the input itself.
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


def is_stored(tensor: gs.Tensor) -> bool:
    """True for an initializer or a Constant, which can be read without computing anything.

    It may have got another shape.
    """
    while tensor.inputs and tensor.inputs[0].op in _SAME_ELEMENTS:
        tensor = tensor.inputs[0].inputs[0]
    return isinstance(tensor, gs.Constant) or any(node.op == "Constant" for node in tensor.inputs)
