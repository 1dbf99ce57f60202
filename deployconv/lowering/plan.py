"""Which form a site takes: the polyphase form of each axis and the spelling of the shuffle.

- ``crop``: every phase at its own taps, the smallest kernel; the front is cropped.
- ``pad``: nothing cropped in front; the kernel is the union of all phases' taps.
- ``conv``: stride 1 everywhere; a plain Conv with the flipped kernel, no shuffle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from deployconv.lowering.shuffle import Layout, ShuffleName, spelling
from deployconv.options import Form, Shuffle
from deployconv.polyphase import Polyphase, multiplications, smallest_kernel, without_shift
from deployconv.results import Macs, Reason
from deployconv.sites import UpsampleSite

FormName = Literal["crop", "pad", "conv"]


@dataclass(frozen=True)
class Plan:
    """How one site is lowered; ``shuffle`` is None for stride 1."""

    form: FormName
    shuffle: ShuffleName | None
    axes: tuple[Polyphase, ...]
    layout: Layout
    macs: Macs

    @property
    def conv_kernel(self) -> tuple[int, ...]:
        """Kernel of the low-resolution Conv."""
        return tuple(form.span for form in self.axes)

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
    the portable one that does; the plan tells which.
    """
    choose = without_shift if form == "pad" else smallest_kernel
    axes = tuple(choose(axis) for axis in site.axes)
    layout = _layout(site, axes)
    if site.phases == 1:
        return Plan("conv", None, axes, layout, _macs(site, axes))
    spelled = spelling(layout, shuffle)
    if isinstance(spelled, Reason):
        return spelled
    named: FormName = "crop" if any(axis.shift for axis in axes) else "pad"
    return Plan(named if form == "auto" else form, spelled, axes, layout, _macs(site, axes))


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


def _macs(site: UpsampleSite, axes: tuple[Polyphase, ...]) -> Macs:
    """Per low-resolution pixel; a ConvTranspose multiplies each input with each tap once."""
    c_in, c_out = site.channels
    pairs = c_in // site.group * c_out
    taps = prod(axis.taps for axis in site.axes)
    before = taps if site.pattern == "conv_transpose" else taps * site.phases
    return Macs(pairs * before, pairs * multiplications(axes))


__all__ = ["FormName", "Plan", "plan_site"]
