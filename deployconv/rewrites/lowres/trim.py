"""A Slice behind a site is one more crop: it becomes part of where the site's output begins.

    site -> Slice(rows 3 to -5)        becomes        the same site, its origin 3 further on

FCN crops each upsampled score map to the size of the next one, causal 1-D decoders cut off what
looks into the future. As part of the site's axes such a crop costs the lowering nothing of its
own, and often less than nothing: a whole low-resolution row is not computed at all.
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
from deployconv.rewrites.lowres.follow import only_reader

Array = NDArray[Any]


@dataclass(frozen=True)
class _Trim:
    """Elements that one Slice removes per spatial axis, (begin, end), and what it reads."""

    node: gs.Node
    ends: tuple[tuple[int, int], ...]
    constants: Mapping[str, Array]
    static: bool
    """True where what it removes at the end follows from the input's static size."""


def trimmed(site: UpsampleSite, view: View) -> UpsampleSite:
    """``site`` with the Slices behind it taken in, as far as they crop the same at every size."""
    while (trim := _trim(site, view)) is not None:
        site = _taken(site, trim)
    return site


def _taken(site: UpsampleSite, trim: _Trim) -> UpsampleSite:
    axes = tuple(
        replace(axis, origin=axis.origin + begin, extra=axis.extra - begin - end)
        for axis, (begin, end) in zip(site.axes, trim.ends, strict=True)
    )
    return replace(
        site,
        nodes=(*site.nodes, trim.node),
        trims=(*site.trims, trim.node),
        output=str(trim.node.outputs[0].name),
        axes=axes,
        original=partial(_original, site, trim),
    )


def _original(site: UpsampleSite, trim: _Trim) -> Original:
    original = site.original()
    proto = site.scope.proto.node[site.scope.index(trim.node)]
    known = tuple(size for size in site.sizes if size is not None)
    return replace(
        original,
        nodes=(*original.nodes, proto),
        constants={**original.constants, **trim.constants},
        sizes=known if trim.static else original.sizes,
    )


def _trim(site: UpsampleSite, view: View) -> _Trim | None:
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
    return _Trim(node, tuple(removed), constants, static)


_OPEN = (1 << 31) - 1
"""An end from here on means all that there is: exporters write the largest integer, of 32 or
of 64 bits."""


def _bounds(node: gs.Node, scope: Scope, view: View) -> tuple[list[int], ...] | None:
    """Starts, ends and axes; None where they are computed, or every other element is skipped."""
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
    """What ``start`` to ``end`` removes of one axis; None where that depends on its size."""
    total = None if size is None else axis.output_size(size)
    if total is None:
        # The start must lie inside whatever the size: at least s elements and what is extra.
        least = axis.output_size(1)
        if start < 0 or not (end < 0 or end >= _OPEN):
            return None
        behind = -end if end < 0 else 0
        return (start, behind) if start + behind < least else None
    first = min(max(start + total if start < 0 else start, 0), total)
    last = min(max(end + total if end < 0 else end, 0), total)
    return (first, total - last) if first < last else None
