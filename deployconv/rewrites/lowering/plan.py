"""Which form a site takes: the polyphase form of each axis and the spelling of the shuffle.

- ``crop``: every phase at its own taps, the smallest kernel; the front is cropped.
- ``pad``: nothing cropped in front; the kernel is the union of all phases' taps.
- ``split``: nothing cropped in front; one Conv a phase, with its own taps only. Where the kernel
  is no multiple of the stride the phases have unequal numbers of taps, and this saves the rest.
- ``conv``: no shuffle. Stride 1 everywhere is a plain Conv with the flipped kernel; a 1x1 Conv
  behind a nearest Resize moves in front of it.

Where onnxruntime would copy a large image into blocks of channels for the Conv and out of them
for Col2Im, the Conv is written as that of a volume one voxel deep: see `Plan.volume`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from deployconv.match import UpsampleSite
from deployconv.options import Form, FormName, Shuffle
from deployconv.polyphase import (
    Axis,
    Polyphase,
    multiplications,
    smallest_kernel,
    split_multiplications,
    without_shift,
)
from deployconv.results import Macs, Reason
from deployconv.rewrites.lowering.shuffle import Layout, ShuffleName, spelling


@dataclass(frozen=True)
class Plan:
    """How one site is lowered.

    ``shuffle`` is None for stride 1, and where the result of the Conv is repeated instead:
    then ``repeat`` has the factors. ``requantized`` where an integer weight gets new scales.
    ``volume`` where the Conv sees its image as a volume one voxel deep: onnxruntime has no blocks
    of channels for that, but a product of matrices, which reads and leaves the channels as they
    lie in memory. ``halves`` where a `split` layer is computed half by half of its output channels,
    so that parts and whole of only one half have to be held at once.
    """

    form: FormName
    shuffle: ShuffleName | None
    axes: tuple[Polyphase, ...]
    layout: Layout
    macs: Macs
    repeat: tuple[int, ...] | None = None
    requantized: bool = False
    volume: bool = False
    halves: bool = False

    @property
    def conv_kernel(self) -> tuple[int, ...]:
        """Kernel of the low-resolution Conv; of several, the largest."""
        if self.form != "split":
            depth = (1,) if self.volume else ()
            return (*depth, *(form.span for form in self.axes))
        places = ([form.places(q) for q in range(form.axis.stride)] for form in self.axes)
        return tuple(max(last - first + 1 for first, last in axis) for axis in places)

    @property
    def copies(self) -> int:
        """Output channels of the Conv per channel of the site."""
        return prod(axis.axis.stride for axis in self.axes)

    def resized(self, sizes: Sequence[int]) -> Plan:
        """The same plan for an input of other spatial sizes; what is dynamic stays so."""
        rows = tuple(
            None if known is None else size + form.rows
            for known, size, form in zip(self.layout.sizes, sizes, self.axes, strict=True)
        )
        return replace(self, layout=replace(self.layout, sizes=rows))


def plan_site(site: UpsampleSite, form: Form = "auto", shuffle: Shuffle = "auto") -> Plan | Reason:
    """The plan for ``site``, or the reason why its shuffle cannot be spelled.

    A ``shuffle`` that does not fit the site (say DepthToSpace for three axes) gives way to
    the portable one that does, a form ``split`` to that with fewer multiplications; the plan
    tells which. So do ``separable`` and ``matrix``, which are no plans for a layer as a whole
    (`lowering.separable`, `lowering.matrix`).
    """
    if site.repeats and site.scope.opset >= _FIRST_UPSAMPLE and form == shuffle == "auto":
        return _pointwise_plan(site)
    if (needed := _weight_bytes(site)) > _LARGEST:
        text = f"its low-resolution weight would take {needed / 1e9:.3g} GB"
        return Reason("too-large", text)
    if form == "separable" or form == "matrix" or (form == "split" and not _fits_split(site)):
        form = "auto"
    choose = smallest_kernel if form in ("auto", "crop") else without_shift
    axes = tuple(choose(axis) for axis in site.axes)
    sums = site.weight.quantized is not None and any(axis.sums for axis in axes)
    if sums and not site.requantize:
        text = (
            "several taps of its integer weight are added, and sums leave its grid;"
            " --allow-requantize gives them new scales"
        )
        return Reason("needs-requantize", text)
    layout = _layout(site, axes)
    if site.phases == 1:
        return Plan("conv", None, axes, layout, _macs(site, multiplications(axes)))
    spelled = spelling(layout, shuffle)
    if isinstance(spelled, Reason):
        return spelled
    named: FormName = "crop" if any(axis.shift for axis in axes) else "pad"
    count = split_multiplications if form == "split" else multiplications
    chosen = named if form == "auto" else form
    macs = _macs(site, count(axes))
    plan = Plan(chosen, spelled, axes, layout, macs, requantized=sums)
    return replace(plan, volume=_fits_volume(site, plan))


_LARGE = 1 << 20
"""With as many elements a copy of an image costs more than the blocks, which it is for, gain."""
_MANY_INPUTS, _MANY_OUTPUTS = 32, 128
"""Channels with which a product of matrices runs about as quickly as a Conv on blocks."""


def _fits_volume(site: UpsampleSite, plan: Plan) -> bool:
    """Whether the copies of a Conv on blocks would take more than the blocks gain, or much room.

    The columns of a kernel with several taps have to be written first, for which a product of
    few rows is too short. In groups there would be one product each.
    """
    spelled = plan.shuffle == "col2im" and plan.form != "split" and site.rank == 2
    if not spelled or site.group > 1 or site.weight.dtype != np.float32:
        return False
    made = plan.layout.channels * plan.copies
    pointwise = all(form.span == 1 for form in plan.axes)
    large = plan.layout.static is not None and made * prod(plan.layout.static) >= _LARGE
    return large and site.channels[0] >= _MANY_INPUTS and (pointwise or made >= _MANY_OUTPUTS)


_MOST_CONVS = 16
"""More Convs than this cost more to call than any taps are worth."""


def _fits_split(site: UpsampleSite) -> bool:
    """Few phases, float weights, and shapes that a Reshape can name or be given."""
    few = 1 < site.phases <= _MOST_CONVS and site.weight.quantized is None
    named = sum(size is None for size in site.sizes) <= 1
    return few and (named or site.scope.opset >= _FIRST_GIVEN_SHAPE)


_FIRST_GIVEN_SHAPE = 5
"""The first opset whose Reshape takes the shape as an input."""


_LARGEST = 1 << 31
"""Bytes of the largest tensor that a model file can hold."""


def _weight_bytes(site: UpsampleSite) -> int:
    """Of the new weight, at least: no shift saves more than one tap of the union."""
    c_in, c_out = site.channels
    spans = [max(1, without_shift(axis).span - 1) for axis in site.axes]
    return c_in // site.group * c_out * site.phases * prod(spans) * site.weight.stored.itemsize


_FIRST_UPSAMPLE = 7
"""The first opset that can repeat pixels."""


def _pointwise_plan(site: UpsampleSite) -> Plan:
    """A 1x1 Conv computes the same for every copy of a pixel: run it before they are made."""
    plain = tuple(Axis(1, 1, 1, 0, 0) for _ in site.axes)
    axes = tuple(without_shift(axis) for axis in plain)
    macs = _macs(site, multiplications(axes))
    return Plan("conv", None, axes, _layout(site, axes), macs, site.stride)


def _layout(site: UpsampleSite, axes: tuple[Polyphase, ...]) -> Layout:
    return Layout(
        channels=site.channels[1],
        stride=site.stride,
        sizes=tuple(
            None if size is None else size + form.rows
            for size, form in zip(site.sizes, axes, strict=True)
        ),
        crop=tuple(form.crop for form in axes),
        group=site.group,
        opset=site.scope.opset,
        dtype=site.weight.dtype.name,
    )


def _macs(site: UpsampleSite, after: int) -> Macs:
    """Per low-resolution pixel; a ConvTranspose multiplies each input with each tap once."""
    c_in, c_out = site.channels
    pairs = c_in // site.group * c_out
    taps = prod(axis.taps for axis in site.axes)
    before = taps if site.pattern == "conv_transpose" else taps * site.phases
    return Macs(pairs * before, pairs * after)


__all__ = ["FormName", "Plan", "plan_site"]
