"""Make a Slice after an upsampling layer part of where the layer's output begins and ends.

    layer -> Slice(rows 3 to -5)        becomes        the same layer, its origin 3 further on
    layer -> Slice(computed) -> Pad(computed, 0)       the same, if they crop alike at every size

FCN crops each upsampled score map to the size of the next one; causal 1-D decoders cut off what
looks into the future. As part of the axes such a crop costs nothing, and often less: a whole
low-resolution row is not computed at all. TensorFlow's SAME padding of dynamic sizes becomes a
Slice and a Pad of computed sizes. Which elements these keep is read from their index map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto

from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match import Original, UpsampleSite
from deployconv.match.index_map import upsampling_of
from deployconv.match.movement_search import movements
from deployconv.polyphase import Axis
from deployconv.rewrites.absorb import with_layer
from deployconv.rewrites.neighbours import leads_only_to, only_reader

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Trim:
    """Nodes after an upsampling layer, such as a Slice, that crop it alike at every size.

    Attributes:
        nodes: what the image passes.
        ends: elements that they remove per spatial axis, (begin, end); negative for added zeros.
        values: what they read besides the image, by name.
        static: True if what they remove at the end follows from the static size of the input.
        computed: the nodes with those that compute their bounds, if these are computed.
        sizes: spatial sizes of the layer's input if ``values`` hold for no others.
    """

    nodes: tuple[gs.Node, ...]
    ends: tuple[tuple[int, int], ...]
    values: Mapping[str, Array]
    static: bool = False
    computed: tuple[NodeProto, ...] = ()
    sizes: tuple[int, ...] | None = None
    crops: bool = True
    growth: int = 1
    plain_growth: int = 1
    parity_only: tuple[gs.Node, ...] = ()

    def into(self, site: UpsampleSite) -> UpsampleSite:
        """``site`` with the crop in its axes."""
        axes = tuple(
            replace(axis, origin=axis.origin + begin, extra=axis.extra - begin - end)
            for axis, (begin, end) in zip(site.axes, self.ends, strict=True)
        )
        return replace(with_layer(site, self), axes=axes, original=partial(self._original, site))

    def on_integers(self, draws: object, channels: object) -> Trim:
        """The crop itself: it computes nothing."""
        del draws, channels
        return self

    def _original(self, site: UpsampleSite) -> Original:
        original = site.original()
        protos = (site.scope.proto_of(node) for node in self.nodes)
        known = tuple(size for size in site.sizes if size is not None)
        return replace(
            original,
            nodes=(*original.nodes, *(self.computed or protos)),
            constants={**original.constants, **self.values},
            sizes=self.sizes or (known if self.static else original.sizes),
        )


def trim_after(site: UpsampleSite, view: View) -> Trim | None:
    """The nodes directly after ``site`` that crop it, if they do the same at every size."""
    if site.tail:
        return None
    return _stated(site, view) or _computed(site, view)


def _computed(site: UpsampleSite, view: View) -> Trim | None:
    """Slices and Pads after a ConvTranspose whose bounds are computed."""
    tensor, scope = site.nodes[-1].outputs[0], site.scope
    last = _last_of_computed(tensor, scope)
    if last is None or site.conv_transpose is None or site.original().sizes is not None:
        return None
    found = (one for one in movements(last.outputs[0], scope, view) if one.source is tensor)
    movement = next(found, None)
    if movement is None or movement.pointwise or movement.overridable():
        return None
    channels, rank = site.channels[1], site.rank + 2
    cropped = upsampling_of(movement, channels, rank, site.weight.dtype.name)
    if cropped is None or not cropped.proven or cropped.channels_in_batch:
        return None
    if any(axis.stride > 1 for axis in cropped.maps):
        return None
    ends = tuple((-axis.begin, axis.begin - axis.tail) for axis in cropped.maps)
    # Added zeros are no output of the layer if it has a bias.
    if site.bias is not None and any(size < 0 for pair in ends for size in pair):
        return None
    x = site.layer.inputs[0]
    for instance in view.instances(scope, movement.source, x, *movement.outside()):
        protos, values, _ = movement.runnable(instance)
        sizes = tuple(instance[x.name][2:])
        return Trim(movement.nodes, ends, values, computed=tuple(protos), sizes=sizes)
    return None


def _last_of_computed(tensor: gs.Tensor, scope: Scope) -> gs.Node | None:
    """The last of the Slices and Pads that all paths from ``tensor`` pass, one after the other."""
    found, image = None, tensor
    for _ in range(_MOST_CROPS):
        cropping = [node for node in image.outputs if node.op in _CROPS and node.inputs[0] is image]
        if len(cropping) != 1:
            break
        image = cropping[0].outputs[0]
        if cropping[0].op != "Identity" and leads_only_to(tensor, cropping[0], scope):
            found = cropping[0]
    return found


_CROPS = frozenset(["Identity", "Pad", "Slice"])
_MOST_CROPS = 4


def _stated(site: UpsampleSite, view: View) -> Trim | None:
    """The Slice directly after ``site`` whose bounds are constants."""
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
    return Trim((node,), tuple(removed), constants, static)


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
