"""A region at low resolution: its nodes as they are, on pixels in the order of the phases.

x -> Conv -> Reshape [N, C, P * H, W] -> nodes -> Reshape [N, C' * P, H, W] -> shuffle -> crop

A Conv that mixes neighbours may stand at the end, as one that reads phases and makes phases.
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

from deployconv.match import UpsampleSite
from deployconv.polyphase import Polyphase, smallest_kernel
from deployconv.rewrites.lowering.emit import Emitter
from deployconv.rewrites.lowering.last import write_last
from deployconv.rewrites.lowering.lower import (
    conv_input,
    low_resolution_conv,
    phase_convs,
    split_convs,
)
from deployconv.rewrites.lowering.plan import Plan, plan_site
from deployconv.rewrites.lowering.shuffle import SHUFFLES, Layout, ShuffleName, write_shuffle
from deployconv.rewrites.lowres.last import LastConv
from deployconv.rewrites.lowres.norm import Normalization
from deployconv.rewrites.lowres.product import Product
from deployconv.rewrites.lowres.region import Region, Step

Array = NDArray[Any]


@dataclass(frozen=True)
class RegionPlan:
    """The plan of each site of the region, and the shuffle at the end.

    ``last`` has the axes of a `LastConv`, empty where the region has none.
    """

    heads: tuple[Plan, ...]
    shuffle: ShuffleName
    layout: Layout
    last: tuple[Polyphase, ...] = ()

    @property
    def head(self) -> Plan:
        """The plan of the first site."""
        return self.heads[0]

    def resized(self, sizes: Sequence[int]) -> RegionPlan:
        """The same plan for inputs of other spatial sizes; what is dynamic stays so."""
        heads = tuple(head.resized(sizes) for head in self.heads)
        made = _with_rows(heads[0].layout.sizes, self.last)
        return replace(self, heads=heads, layout=replace(self.layout, sizes=made))


def _with_rows(
    sizes: tuple[int | None, ...], last: tuple[Polyphase, ...]
) -> tuple[int | None, ...]:
    """The sizes of what is shuffled, where the sites make images of ``sizes``."""
    if not last:
        return sizes
    pairs = zip(sizes, last, strict=True)
    return tuple(None if size is None else size + form.rows for size, form in pairs)


def plan_region(region: Region, head: Plan) -> RegionPlan | None:
    """The plan of ``region`` with its first site in the form ``head``; None where none fits."""
    if head.shuffle is None or head.form == "conv" or head.halves:
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
    last: tuple[Polyphase, ...] = ()
    if region.last is not None:
        last = tuple(map(smallest_kernel, region.last.axes))
        sizes = _with_rows(layout.sizes, last)
        layout = replace(layout, sizes=sizes, crop=tuple(form.crop for form in last), group=1)
    fits = SHUFFLES[head.shuffle].fits(layout)
    return RegionPlan(tuple(plans), head.shuffle, layout, last) if fits else None


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
    if _is_by_phase(region, plan):
        write_shuffle(emitter, _by_phase(emitter, region, plan), plan.shuffle, plan.layout)
        return emitter.finish(region.output)
    # A 0 keeps the size at its place, whatever it is.
    behind = (0,) * (region.head.rank - 1)
    made: dict[str, gs.Tensor] = {}
    width: dict[str, int] = {}
    done: set[str] = set()
    for site, head in zip(region.heads, plan.heads, strict=True):
        phased, output = _phases(emitter, site, head), site.output
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
        if isinstance(step, LastConv):
            stacked = _stacked(emitter, made[name], width[name] * region.head.phases, behind)
            result = write_last(emitter, step, plan.last, [stacked], region.id)
        elif isinstance(step, Normalization):
            result = _normalized(emitter, step, made[name], plan)
        elif isinstance(step, Product):
            result = _product(emitter, step.matrix, made[name], step.channels, plan)
        elif _is_sum(step, plan):
            row = emitter.constant("row", _row(step.node.op, width[name], plan.layout.dtype))
            result = _product(emitter, row, made[name], 1, plan)
        else:
            result = _copied(emitter, step, made)
        made[step.output] = result
    phased = made[region.output]
    if region.last is None:
        phased = _stacked(emitter, phased, region.channels * region.head.phases, behind)
    write_shuffle(emitter, phased, plan.shuffle, plan.layout)
    return emitter.finish(region.output)


def _is_by_phase(region: Region, plan: RegionPlan) -> bool:
    """Whether each phase is an image of its own up to the Conv at the end, which adds them up."""
    split = all(head.form == "split" for head in plan.heads)
    *steps, _ = region.steps
    alone = all(isinstance(step, Step) and not _is_sum(step, plan) for step in steps)
    return split and alone and region.last is not None


def _by_phase(emitter: Emitter, region: Region, plan: RegionPlan) -> gs.Tensor:
    """What the last Conv makes: the sum of what it makes of each phase."""
    assert region.last is not None
    convs = [
        phase_convs(emitter, conv_input(emitter, site), site, head, slice(head.layout.channels))
        for site, head in zip(region.heads, plan.heads, strict=True)
    ]
    images = []
    for phase in zip(*convs, strict=True):
        made = {site.output: conv for site, conv in zip(region.heads, phase, strict=True)}
        for step in region.steps[:-1]:
            assert isinstance(step, Step)
            made[step.output] = _copied(emitter, step, made)
        images.append(made[region.last.reads[0]])
    return write_last(emitter, region.last, plan.last, images, region.id)


def _phases(emitter: Emitter, site: UpsampleSite, head: Plan) -> gs.Tensor:
    """``[N, C * P, H, W]``, by one Conv or by one a phase."""
    if head.form != "split":
        return low_resolution_conv(emitter, site, head)
    whole = slice(head.layout.channels)
    return split_convs(emitter, conv_input(emitter, site), site, head, whole)


def _stacked(emitter: Emitter, image: gs.Tensor, channels: int, behind: Sequence[int]) -> gs.Tensor:
    """``[N, C, P * H, W]`` as ``[N, C * P, H, W]``."""
    return emitter.reshape(image, [0, channels, -1, *behind])


def _normalized(
    emitter: Emitter, step: Normalization, image: gs.Tensor, plan: RegionPlan
) -> gs.Tensor:
    """The normalisation, which sees pixels of a group in the order of the phases."""
    tensor = image
    if step.flatten is not None:
        tensor = emitter.reshape(image, [0, step.groups, -1])
    made = {step.inner[0].inputs[0].name: tensor}
    for node in step.inner:
        inputs = [made.get(given.name, given) for given in node.inputs]
        tensor = made[node.outputs[0].name] = emitter.add(node.op, inputs, **node.attrs)
    if step.unflatten is None:
        return tensor
    return emitter.reshape_to_image(tensor, [0, step.channels], _image(plan), image)


def _image(plan: RegionPlan) -> list[int | None]:
    """The spatial sizes of ``[N, C, P * H, W]``."""
    first, *others = plan.head.layout.sizes
    return [None if first is None else first * prod(plan.layout.stride), *others]


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
    made = emitter.add("MatMul", [matrix, emitter.reshape(image, [0, 0, -1])])
    return emitter.reshape_to_image(made, [0, rows], _image(plan), image)
