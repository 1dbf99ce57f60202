"""Take in the Transpose, Squeeze or Unsqueeze between an upsampling layer and a bias after it.

    layer -> Transpose to channels last -> Add(bias)    becomes    layer with the bias -> Transpose

Exporters of frameworks whose channels are the last axis write this, and a 1-D layer is a 2-D one
with a Squeeze after it. The rewrite ends in the same moves (`UpsampleSite.tail`). Moves that undo
each other are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.view import View
from deployconv.match import UpsampleSite
from deployconv.match.site import AxisMove
from deployconv.rewrites.absorb import with_layer
from deployconv.rewrites.neighbours import only_reader

Array = NDArray[Any]

MOVES = frozenset(["Squeeze", "Transpose", "Unsqueeze"])
_NEW = -1
"""An axis that an Unsqueeze adds."""


@dataclass(frozen=True, eq=False)
class Moved:
    """A node after an upsampling layer that only arranges its axes anew.

    ``values`` has the axes, if they are an input.
    """

    node: gs.Node
    move: AxisMove
    values: Mapping[str, Array]
    crops: bool = False
    growth: int = 1
    plain_growth: int = 1
    parity_only: tuple[gs.Node, ...] = ()

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (self.node,)

    def into(self, site: UpsampleSite) -> UpsampleSite:
        """``site`` with this move at its end."""
        rank = site.rank + 2
        tail = (*site.tail, self.move)
        if moved_axes(tail, rank) == tuple(range(rank)):
            tail = ()
        return replace(with_layer(site, self), tail=tail)

    def on_integers(self, draws: object, channels: object) -> Moved:
        """The move itself: it computes nothing."""
        del draws, channels
        return self


def moved_axes(tail: Sequence[AxisMove], rank: int) -> tuple[int, ...]:
    """Which axis of ``[N, C, ..]`` stands where after ``tail``; `_NEW` for one that was added."""
    axes = list(range(rank))
    for move in tail:
        if move.op == "Transpose":
            axes = [axes[axis] for axis in move.axes]
        elif move.op == "Squeeze":
            gone = {axis % len(axes) for axis in move.axes}
            axes = [label for axis, label in enumerate(axes) if axis not in gone]
        else:
            whole = len(axes) + len(move.axes)
            added, old = {axis % whole for axis in move.axes}, iter(axes)
            axes = [_NEW if axis in added else next(old) for axis in range(whole)]
    return tuple(axes)


def moved_after(site: UpsampleSite, view: View) -> Moved | None:
    """The node directly after ``site`` that arranges its axes anew, if it can be written again."""
    if site.channels_in_batch or site.weight.quantized is not None or site.repeats:
        return None
    node = only_reader(site.nodes[-1].outputs[0], site.scope)
    if node is None or node.op not in MOVES:
        return None
    axes = moved_axes(site.tail, site.rank + 2)
    values: dict[str, Array] = {}
    if node.op == "Transpose":
        stated = node.attrs.get("perm", list(reversed(range(len(axes)))))
    else:
        stated = node.attrs.get("axes")
        if len(node.inputs) > 1 and node.inputs[1].name:
            constant = view.constants.fixed(node.inputs[1], site.scope)
            if constant is None:
                return None
            values[constant.name] = constant.read()
            stated = np.ravel(constant.read()).tolist()
    if stated is None:
        return None
    if node.op == "Squeeze" and not all(_is_one(site, axes[axis]) for axis in stated):
        return None
    return Moved(node, AxisMove(node.op, tuple(stated)), values)


def _is_one(site: UpsampleSite, axis: int) -> bool:
    """Whether an axis of the result has one element at all sizes."""
    if axis == _NEW:
        return True
    size = site.sizes[axis - 2] if axis >= 2 else None
    return size is not None and site.axes[axis - 2].output_size(size) == 1
