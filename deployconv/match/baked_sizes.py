"""Find an upsampling that runs at one size only, while the sizes of its input are declared dynamic.

    x [n, 2, h, w] -> Reshape to [1, 2, 4, 1, 3, 1] -> Pad -> Reshape to [1, 2, 8, 6] -> Conv

An exporter wrote the sizes of one image into the shapes. The number of elements does not fix both
sizes: an image of 3 by 4 runs as well, and gives other values than an upsampling would. So the
layer is listed with this reason. (If it fixes the only open size, see `graph/fixed_sizes`.)
"""

from __future__ import annotations

from itertools import islice

import onnx_graphsurgeon as gs

from deployconv.graph.scope import Scope
from deployconv.graph.symbolic import Unproven
from deployconv.graph.view import View, remembered
from deployconv.match.attributes import is_standard
from deployconv.match.axis_map import fit_axes
from deployconv.match.image_axes import AS_THEY_ARE
from deployconv.match.index_map import Upsampling
from deployconv.match.movement import Movement
from deployconv.match.movement_search import movements

_FACTORS = range(2, 9)
"""Upsampling factors that are tried."""
_MOST_SOURCES = 8
"""Possible low-resolution inputs that are tried for one Conv."""


@remembered
def baked_upsampling(node: gs.Node, scope: Scope, view: View) -> Upsampling | None:
    """The upsampling to a static size before the Conv ``node``, from a source of open sizes."""
    if not is_standard(node, "Conv") or not view.shapes.dynamic:
        return None
    try:
        large = view.open_shapes.of(node.inputs[0], scope).static
    except Unproven:
        return None
    if large is None or not 3 <= len(large) <= 5:
        return None
    for movement in islice(movements(node.inputs[0], scope, view), _MOST_SOURCES):
        found = _from_open_source(movement, large)
        if found is not None:
            return found
    return None


def _from_open_source(movement: Movement, large: tuple[int, ...]) -> Upsampling | None:
    """``movement`` as an upsampling to the shape ``large``; None if it is none."""
    try:
        shape = movement.view.open_shapes.of(movement.source, movement.scope).shape
    except Unproven:
        return None
    is_static = all(size.constant is not None for size in shape)
    ops = {node.op for node in movement.nodes}
    if "Reshape" not in ops or "Resize" in ops:  # a Resize to a static size runs at every size
        return None
    if is_static or len(shape) != len(large) or movement.outside():
        return None
    for factor in _FACTORS:
        small = (*large[:2], *(size // factor for size in large[2:]))
        known = zip(shape, small, strict=True)
        if any(size % factor for size in large[2:]) or not all(
            size.constant in (None, number) for size, number in known
        ):
            continue
        sources = movement.index_map({movement.source.name: small}, "float32")
        fitted = None if sources is None else fit_axes(sources, small)
        if fitted is None or fitted[0] != AS_THEY_ARE:
            continue
        if all(axis.stride == factor for axis in fitted[1]):
            return Upsampling(
                movement, fitted[1], AS_THEY_ARE, channels_in_batch=False, proven=False
            )
    return None
