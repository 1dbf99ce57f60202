"""Find the nodes before a layer that only move data.

The search goes back from a tensor along the data, through operators that only move, repeat or
zero elements. A tensor that all of the data passes through is a possible low-resolution input:
there a segment begins. Pointwise layers on the way commute with the movement. They are segments
of their own, and count as Identity here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from deployconv.graph.scope import Scope
from deployconv.graph.view import View, remembered
from deployconv.match.attributes import is_standard
from deployconv.match.movement import MOVES, Movement, Segment
from deployconv.match.pointwise import is_float_cast, is_pointwise

_LONGEST = 64
"""The most nodes on the way of the data one after the other; then the search ends."""
_MOST_NODES = 512
"""The most nodes from one tensor to the next; a Split may have a Tile for every column."""


def movements(target: gs.Tensor, scope: Scope, view: View) -> Iterator[Movement]:
    """The movements that end in ``target``, from the nearest source to the farthest."""
    walk = _Walk(scope, view)
    segments: list[Segment] = []
    source = target
    length = 0
    while length < _LONGEST:
        found = walk.segment(source)
        if found is None:
            return
        segments.insert(0, found)
        length += min(len(found.nodes), _LONGEST // 4)  # a Split with a Tile for each row
        source = found.source
        yield Movement(view, scope, source, target, tuple(segments))


@dataclass(frozen=True, eq=False)
class _Walk:
    """The search backwards in one scope."""

    scope: Scope
    view: View

    def segment(self, target: gs.Tensor) -> Segment | None:
        """The nodes back to the nearest tensor that all data passes; None if others do more."""
        frontier = [target]
        nodes: list[gs.Node] = []
        while True:
            # The latest producer first: all nodes that read its output have been passed.
            producers = [self._producer(tensor) for tensor in frontier]
            known = [node for node in producers if node is not None]
            if not known:
                return None
            latest = max(known, key=self.scope.index)
            if latest.op not in MOVES and not _is_pointwise(latest, self.scope, self.view):
                return None
            if latest.op == "ConvTranspose" and not self._copies(latest):
                return None
            nodes.insert(0, latest)
            frontier = [tensor for tensor in frontier if tensor not in latest.outputs]
            for tensor in latest.inputs:
                if (
                    tensor.name
                    and not self.view.is_data_free(tensor, self.scope)
                    and tensor not in frontier
                ):
                    frontier.append(tensor)
            if len(frontier) == 1:
                pointwise = [_is_pointwise(node, self.scope, self.view) for node in nodes]
                moving = all(node.op in MOVES for node in nodes)
                if not moving and not all(pointwise):
                    return None
                return Segment(tuple(nodes), frontier[0], target, all(pointwise))
            if not frontier or len(nodes) > _MOST_NODES:
                return None

    def _copies(self, node: gs.Node) -> bool:
        """Whether the weight of a ConvTranspose has at most two values, as one that copies has.

        Running it in the reference evaluator would take long to show the same.
        """
        weight = node.inputs[1]
        made = weight.inputs[0] if weight.inputs else None
        if made is not None and made.op == "DequantizeLinear":
            weight = made.inputs[0]
        constant = self.view.constants.of(weight, self.scope)
        if constant is None:
            return True
        values = constant.read().ravel()
        others = values[values != values[:1]]
        return bool((others == others[:1]).all())

    def _producer(self, tensor: gs.Tensor) -> gs.Node | None:
        node = tensor.inputs[0] if tensor.inputs else None
        return node if node is not None and is_standard(node) and self.scope.holds(node) else None


@remembered
def _is_pointwise(node: gs.Node, scope: Scope, view: View) -> bool:
    """Whether ``node`` is pointwise, and no product with a mask that is made of sizes."""
    if is_float_cast(node):
        return True
    return is_pointwise(node, scope, view) and not any(
        view.constants.of(tensor, scope) is None and view.is_data_free(tensor, scope)
        for tensor in node.inputs
        if tensor.name
    )
