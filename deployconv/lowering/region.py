"""A region at low resolution: its nodes as they are, on pixels in the order of the phases.

x -> Conv -> Reshape [N, C, P * H, W] -> nodes -> Reshape [N, C' * P, H, W] -> shuffle -> crop

A sum or a mean over channels is a row of weights times the matrix [C, P * H * W], and written so:
a reduction along any axis but the last is the slowest way to read an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.lowering.emit import Emitter
from deployconv.lowering.lower import low_resolution_conv
from deployconv.lowering.plan import Plan, plan_site
from deployconv.lowering.shuffle import SHUFFLES, Layout, ShuffleName, write_shuffle
from deployconv.lowres.product import Product
from deployconv.lowres.region import Region, Step

Array = NDArray[Any]


@dataclass(frozen=True)
class RegionPlan:
    """The plan of each site of the region, and the shuffle at the end."""

    heads: tuple[Plan, ...]
    shuffle: ShuffleName
    layout: Layout

    @property
    def head(self) -> Plan:
        """The plan of the first site."""
        return self.heads[0]

    def resized(self, sizes: Sequence[int]) -> RegionPlan:
        """The same plan for inputs of other spatial sizes; what is dynamic stays so."""
        heads = tuple(head.resized(sizes) for head in self.heads)
        return replace(self, heads=heads, layout=replace(self.layout, sizes=heads[0].layout.sizes))


def plan_region(region: Region, head: Plan) -> RegionPlan | None:
    """The plan of ``region`` with its first site in the form ``head``; None where none fits."""
    if head.shuffle is None or head.repeat is not None or head.form not in ("crop", "pad"):
        return None
    if SHUFFLES[head.shuffle].phases_first:  # the channel must be slowest
        return None
    if any(site.weight.quantized is not None for site in region.heads):
        return None  # integer layers end at their QuantizeLinear, see `lowres.quantized`
    plans = [replace(head, volume=False)]
    for site in region.heads[1:]:
        plan = plan_site(site, head.form, head.shuffle)
        if not isinstance(plan, Plan) or not _same_image(plan, head):
            return None
        plans.append(replace(plan, volume=False))
    layout = replace(head.layout, channels=region.channels)
    fits = SHUFFLES[head.shuffle].fits(layout)
    return RegionPlan(tuple(plans), head.shuffle, layout) if fits else None


def _same_image(one: Plan, other: Plan) -> bool:
    """True where the Convs make images of one size, cropped alike."""
    return (one.layout.sizes, one.layout.crop, [form.rows for form in one.axes]) == (
        other.layout.sizes,
        other.layout.crop,
        [form.rows for form in other.axes],
    )


def lower_region(region: Region, plan: RegionPlan, fresh: Callable[[str], str]) -> list[gs.Node]:
    """The nodes that compute ``region.output`` from the inputs of its sites.

    Raises ModelError for a weight that is NaN or infinite.
    """
    emitter = Emitter(region.head.scope.opset, fresh)
    # A 0 keeps the size at its place, whatever it is.
    behind = (0,) * (region.head.rank - 1)
    made: dict[str, gs.Tensor] = {}
    width: dict[str, int] = {}
    done: set[str] = set()
    for site, head in zip(region.heads, plan.heads, strict=True):
        phased, output = low_resolution_conv(emitter, site, head), site.output
        # These do not see the channels either: right behind the Conv, as runtimes like them.
        for first in region.elementwise_behind(site):
            phased, output = _copied(emitter, first, {output: phased}), first.output
            done.add(output)
        width[output] = site.channels[1]
        made[output] = emitter.reshape(phased, [0, site.channels[1], -1, *behind])
    for step in region.steps:
        if step.output in done:
            continue
        name = step.reads[0]
        width[step.output] = step.channels
        if isinstance(step, Product):
            result = _product(emitter, step.matrix, made[name], step.channels, plan)
        elif _is_sum(step, plan):
            row = emitter.constant("row", _row(step.node.op, width[name], plan.layout.dtype))
            result = _product(emitter, row, made[name], 1, plan)
        else:
            result = _copied(emitter, step, made)
        made[step.output] = result
    channels = region.channels * region.head.phases
    stacked = emitter.reshape(made[region.output], [0, channels, -1, *behind])
    write_shuffle(emitter, stacked, plan.shuffle, plan.layout)
    return emitter.finish(region.output)


def _copied(emitter: Emitter, step: Step, made: Mapping[str, gs.Tensor]) -> gs.Tensor:
    """The node of ``step`` on what has been made of its inputs."""
    inputs = [made.get(given.name, given) for given in step.node.inputs]
    return emitter.add(step.node.op, inputs, **step.node.attrs)


def _is_sum(step: Step, plan: RegionPlan) -> bool:
    """Whether ``step`` is lowered as a product: float16 would round a mean's weight too far."""
    return step.node.op in ("ReduceMean", "ReduceSum") and plan.layout.dtype in _PRECISE


_PRECISE = ("float32", "float64")


def _row(op: str, channels: int, dtype: str) -> Array:
    """The weights of a sum or a mean, ``[1, C]``."""
    return np.full((1, channels), 1 if op == "ReduceSum" else 1 / channels, dtype)


def _product(
    emitter: Emitter, matrix: gs.Tensor, image: gs.Tensor, rows: int, plan: RegionPlan
) -> gs.Tensor:
    """``matrix``, ``[T, C]`` or ``[N, T, C]``, times ``image``, ``[N, C, P * H, W]``."""
    if plan.layout.rank == 1:
        return emitter.add("MatMul", [matrix, image])
    first, *others = plan.layout.sizes
    phased = None if first is None else first * prod(plan.layout.stride)
    made = emitter.add("MatMul", [matrix, emitter.reshape(image, [0, 0, -1])])
    return emitter.reshape_to_image(made, [0, rows], [phased, *others], image)
