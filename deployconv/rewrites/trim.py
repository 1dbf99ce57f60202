"""Make a Slice after an upsampling layer part of where the layer's output begins and ends.

    layer -> Slice(rows 3 to -5)        becomes        the same layer, its origin 3 further on

FCN crops each upsampled score map to the size of the next one; causal 1-D decoders cut off what
looks into the future. As part of the axes such a crop costs nothing, and often less: a whole
low-resolution row is not computed at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match import Original, UpsampleSite
from deployconv.polyphase import Axis
from deployconv.rewrites.neighbours import only_reader

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Trim:
    """A Slice after an upsampling layer that crops it alike at every size.

    Attributes:
        node: the Slice.
        ends: elements that it removes per spatial axis, (begin, end).
        values: what it reads besides the image, by name.
        static: True if what it removes at the end follows from the static size of the input.
    """

    node: gs.Node
    ends: tuple[tuple[int, int], ...]
    values: Mapping[str, Array]
    static: bool
    crops: bool = True
    growth: int = 1
    plain_growth: int = 1
    parity_only: tuple[gs.Node, ...] = ()

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (self.node,)

    def into(self, site: UpsampleSite) -> UpsampleSite:
        """``site`` with the crop in its axes."""
        axes = tuple(
            replace(axis, origin=axis.origin + begin, extra=axis.extra - begin - end)
            for axis, (begin, end) in zip(site.axes, self.ends, strict=True)
        )
        return replace(
            site,
            nodes=(*site.nodes, self.node),
            absorbed=(*site.absorbed, self),
            base=site.base or site,
            output=str(self.node.outputs[0].name),
            axes=axes,
            original=partial(self._original, site),
        )

    def on_integers(self, draws: object, channels: object) -> Trim:
        """The crop itself: it computes nothing."""
        del draws, channels
        return self

    def _original(self, site: UpsampleSite) -> Original:
        original = site.original()
        proto = site.scope.proto.node[site.scope.index(self.node)]
        known = tuple(size for size in site.sizes if size is not None)
        return replace(
            original,
            nodes=(*original.nodes, proto),
            constants={**original.constants, **self.values},
            sizes=known if self.static else original.sizes,
        )


def trim_after(site: UpsampleSite, view: View) -> Trim | None:
    """The Slice directly after ``site``, if it crops the same at every size."""
    tensor, scope = site.nodes[-1].outputs[0], site.scope
    node = only_reader(tensor, scope)
    if node is None or node.op != "Slice" or node.inputs[0] is not tensor or site.repeats:
        return None
    bounds = _bounds(node, scope, view)
    if bounds is None:
        return None
    starts, ends, axes = bounds
    removed = [(0, 0)] * site.rank
    static = False
    for start, end, at in zip(starts, ends, axes, strict=True):
        axis = (at + site.rank + 2 if at < 0 else at) - 2
        if not 0 <= axis < site.rank:
            return None
        cut = _cut(site.axes[axis], site.sizes[axis], start, end)
        if cut is None:
            return None
        removed[axis] = cut
        static |= start < 0 or 0 <= end < _OPEN
    if static and None in site.sizes:
        return None
    constants = {
        given.name: constant.read()
        for given in node.inputs[1:]
        if given.name and (constant := view.constants.of(given, scope)) is not None
    }
    return Trim(node, tuple(removed), constants, static)


_OPEN = (1 << 31) - 1
"""An end from here on means "to the end": exporters write the largest integer of 32 or 64 bits."""


def _bounds(node: gs.Node, scope: Scope, view: View) -> tuple[list[int], ...] | None:
    """Starts, ends and axes; None if they are computed, or if elements in between are skipped."""
    if len(node.inputs) == 1:  # before opset 10 they are attributes
        starts, ends = list(node.attrs["starts"]), list(node.attrs["ends"])
        return starts, ends, list(node.attrs.get("axes", range(len(starts))))
    given: list[list[int] | None] = []
    for tensor in [*node.inputs[1:], *[gs.Variable.empty()] * (5 - len(node.inputs))]:
        constant = view.constants.of(tensor, scope) if tensor.name else None
        if tensor.name and (constant is None or constant.overridable):
            return None
        given.append(None if constant is None else np.ravel(constant.read()).tolist())
    starts_, ends_, axes, steps = given
    if starts_ is None or ends_ is None or (steps is not None and set(steps) != {1}):
        return None
    return starts_, ends_, list(range(len(starts_))) if axes is None else axes


def _cut(axis: Axis, size: int | None, start: int, end: int) -> tuple[int, int] | None:
    """What ``start`` to ``end`` removes of one axis; None if that depends on its size."""
    total = None if size is None else axis.output_size(size)
    if total is None:
        # The start must lie inside at any size, that is, inside the image of a single pixel.
        least = axis.output_size(1)
        if start < 0 or not (end < 0 or end >= _OPEN):
            return None
        removed = -end if end < 0 else 0
        return (start, removed) if start + removed < least else None
    first = min(max(start + total if start < 0 else start, 0), total)
    last = min(max(end + total if end < 0 else end, 0), total)
    return (first, total - last) if first < last else None
