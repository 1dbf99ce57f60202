"""A layer whose kernels are products, as one upsampling layer an axis, one behind the other.

    W[c] = u[c] (x) v[c]

    x -> Conv(v, along the last axis) -> shuffle -> Conv(u, along the first) -> shuffle -> crop -> y

Each is a polyphase Conv like any other, with phases along a single axis. Bilinear k16 s8 takes
2 * 8 multiplications for each input pixel and as many for each of the eight that it becomes, 144
altogether, where its smallest kernel as a whole takes 4 * 64. It needs factors that give exactly
the elements of the kernels, and one input channel a group: others would be summed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.match import Parameter, UpsampleSite
from deployconv.options import Shuffle
from deployconv.polyphase import Axis, Polyphase
from deployconv.results import Macs
from deployconv.rewrites.lowering.factors import factors
from deployconv.rewrites.lowering.lower import lower
from deployconv.rewrites.lowering.plan import Plan, plan_site
from deployconv.rewrites.lowering.shuffle import ShuffleName

Array = NDArray[Any]

_UNTOUCHED = Axis(1, 1, 1, 0, 0)
"""An axis along which nothing happens."""
_DTYPES = ("float16", "float32", "float64")
"""bfloat16 has too few digits to round the image in between once more."""


@dataclass(frozen=True)
class SeparablePlan:
    """How each axis is lowered, the last one first.

    ``axes`` and ``macs`` are those of the whole layer, the latter for an input pixel.
    """

    steps: tuple[Plan, ...]
    axes: tuple[Polyphase, ...]
    macs: Macs
    form: Literal["separable"] = "separable"

    @property
    def shuffle(self) -> ShuffleName | None:
        """The spelling that every axis has."""
        return self.steps[0].shuffle

    @property
    def conv_kernel(self) -> tuple[int, ...]:
        """Taps of the Conv along each axis."""
        return tuple(form.span for form in self.axes)

    def resized(self, sizes: Sequence[int]) -> SeparablePlan:
        """The same plan for an input of other spatial sizes; what is dynamic stays so."""
        steps = []
        for step in self.steps:
            steps.append(step.resized(sizes))
            sizes = [
                form.axis.output_size(size) for form, size in zip(step.axes, sizes, strict=True)
            ]
        return replace(self, steps=tuple(steps))


def plan_separable(site: UpsampleSite, shuffle: Shuffle = "auto") -> SeparablePlan | None:
    """The plan for ``site``; None where it is no product, or has no shuffle along one axis."""
    found = factors_of(site)
    whole = plan_site(site, "crop", shuffle)
    if found is None or not isinstance(whole, Plan):
        return None
    steps, multiplications, pixels = [], 0, 1
    for step in _steps(site, found, str):
        plan = plan_site(step, "crop", shuffle)
        if not isinstance(plan, Plan):
            return None
        steps.append(plan)
        multiplications += plan.macs.after * pixels
        pixels *= step.phases
    return SeparablePlan(tuple(steps), whole.axes, Macs(whole.macs.before, multiplications))


def lower_separable(
    site: UpsampleSite, plan: SeparablePlan, fresh: Callable[[str], str]
) -> list[gs.Node]:
    """The nodes that compute ``site.output`` from ``site.input``, axis by axis."""
    found = factors_of(site)
    assert found is not None
    steps = zip(_steps(site, found, fresh), plan.steps, strict=True)
    return [node for step, own in steps for node in lower(step, own, fresh)]


def factors_of(site: UpsampleSite) -> tuple[Array, ...] | None:
    """``[C_out, k]`` for each axis, as far as the layer is one that has such."""
    own = site.weight
    depthwise = site.channels[0] == site.group and own.quantized is None
    upsampled = site.rank > 1 and all(step > 1 for step in site.stride)
    if not depthwise or not upsampled or own.dtype.name not in _DTYPES:
        return None
    stored, scale = own.scaled or (own, None)
    values = stored.read()
    found = factors(site.kernel(values)[:, 0]) if values.shape == stored.shape else None
    if found is None or scale is None:
        return found
    first = (found[0].astype(np.float64) * scale.reshape(-1, 1)).astype(own.dtype)
    return (first, *found[1:]) if np.isfinite(first).all() else None


def _steps(
    site: UpsampleSite, found: Sequence[Array], fresh: Callable[[str], str]
) -> Iterator[UpsampleSite]:
    """``site`` as layers of one axis each, the last axis first, while the others are small."""
    step = replace(site, bias=None, transposed=False, repeats=False, output=site.input)
    for axis in reversed(range(site.rank)):
        channels, taps = found[axis].shape
        shape = [channels, 1, *[1] * site.rank]
        shape[2 + axis] = taps
        values = found[axis].reshape(shape)
        axes = [_UNTOUCHED] * site.rank
        axes[axis] = site.axes[axis]
        step = replace(
            step,
            input=step.output,
            output=fresh("along") if axis else site.output,
            axes=tuple(axes),
            weight=Parameter(
                site.weight.name, values.shape, values.dtype, partial(np.asarray, values)
            ),
            bias=None if axis else site.bias,
        )
        yield step
        sizes = zip(axes, step.sizes, strict=True)
        step = replace(
            step,
            prelude=(),
            folded=False,
            geometry=replace(site.geometry, group=channels),
            sizes=tuple(None if size is None else own.output_size(size) for own, size in sizes),
        )
