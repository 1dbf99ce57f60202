"""A pixel shuffle in another spelling, or in the other channel order.

The order of the channels is a matter of the Conv that makes them: its output channels are
permuted, nothing else. Without a Conv of its own the shuffle keeps its order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.match import ShuffleSite
from deployconv.options import Shuffle
from deployconv.results import Reason
from deployconv.rewrites.lowering.emit import Emitter
from deployconv.rewrites.lowering.lower import write_parameter
from deployconv.rewrites.lowering.shuffle import SHUFFLES, Layout, ShuffleName

Array = NDArray[Any]


@dataclass(frozen=True)
class ShufflePlan:
    """How one pixel shuffle is spelled; ``reorders`` where the Conv's channels are permuted."""

    shuffle: ShuffleName
    layout: Layout
    reorders: bool

    def resized(self, sizes: Sequence[int]) -> ShufflePlan:
        """The same plan for an input of other spatial sizes; what is dynamic stays so."""
        known = zip(self.layout.sizes, sizes, strict=True)
        fitted = tuple(None if old is None else size for old, size in known)
        return replace(self, layout=replace(self.layout, sizes=fitted))


def plan_shuffle(site: ShuffleSite, shuffle: Shuffle = "auto") -> ShufflePlan | Reason:
    """The plan for ``site``, or the reason why it stays as it is."""
    if site.channels is None or site.dtype is None:
        return Reason("already-lowered", "it is a pixel shuffle already, of unknown shape")
    layout = Layout(
        channels=site.channels // prod(site.stride),
        stride=site.stride,
        sizes=site.sizes,
        crop=((0, 0),) * len(site.stride),
        group=site.conv.group if site.conv else 1,
        opset=site.scope.opset,
        dtype=site.dtype,
    )
    named: ShuffleName = "crd" if site.order == "CRD" else "dcr"
    asked: tuple[ShuffleName, ...] = (named,) if shuffle == "auto" else (shuffle, named)
    for name in (*asked, "dcr"):
        reorders = SHUFFLES[name].phases_first != (site.order == "DCR")
        possible = SHUFFLES[name].fits(layout) and (not reorders or _reorderable(site))
        if possible and name == named and not site.spelled:
            return Reason("already-lowered", "it is a DepthToSpace already")
        if possible:
            return ShufflePlan(name, layout, reorders)
    return Reason("already-lowered", "DepthToSpace does not fit; this is its cheapest spelling")


def _reorderable(site: ShuffleSite) -> bool:
    """Groups keep their channels together, which only CRD does."""
    return site.conv is not None and site.conv.group == 1


def reshuffle(site: ShuffleSite, plan: ShufflePlan, fresh: Callable[[str], str]) -> list[gs.Node]:
    """The nodes that compute ``site.output``, from the Conv's input or from ``site.source``.

    Raises ModelError where a weight or bias to permute is NaN or infinite.
    """
    emitter = Emitter(site.scope.opset, fresh)
    tensor: gs.Tensor = gs.Variable(site.source)
    if plan.reorders and site.conv is not None:
        conv = site.conv
        moved = partial(_permuted, site)
        inputs = [
            conv.node.inputs[0],
            write_parameter(emitter, "weight", conv.weight, site.id, moved),
        ]
        if conv.bias is not None:
            inputs.append(write_parameter(emitter, "bias", conv.bias, site.id, moved))
        tensor = emitter.add("Conv", inputs, **conv.node.attrs)
    SHUFFLES[plan.shuffle].write(emitter, tensor, plan.layout)
    return emitter.finish(site.output)


def _permuted(site: ShuffleSite, values: Array) -> Array:
    """The output channels, axis 0, in the other order."""
    phases = prod(site.stride)
    channels = values.shape[0] // phases
    split = (channels, phases) if site.order == "CRD" else (phases, channels)
    swapped = values.reshape(*split, *values.shape[1:]).swapaxes(0, 1)
    return np.ascontiguousarray(swapped.reshape(values.shape))
