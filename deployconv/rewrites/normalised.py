"""A ConvTranspose that stays, with its padding as explicit pads.

    ConvTranspose(auto_pad=SAME_UPPER)     becomes     ConvTranspose(pads=[0, 0, 1, 1])
    ConvTranspose(output_shape=[..])       becomes     ConvTranspose(pads, output_padding)

If the target takes no pads, it has none, and a Slice removes what they would have removed. Several
runtimes misread ``auto_pad`` and ``output_shape``, or refuse them, and take explicit pads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deployconv.match import UpsampleSite
from deployconv.polyphase import Axis, without_shift
from deployconv.results import Reason
from deployconv.rewrites.base import OfOneLayer, Summary, Trial
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.site_on_integers import SiteOnIntegers
from deployconv.rewrites.trial import trial_sizes


@dataclass(frozen=True)
class _Ends:
    """What one axis removes at the begin and at the end, and what it adds at the end."""

    begin: int
    end: int
    added: int

    @classmethod
    def of(cls, axis: Axis) -> _Ends:
        """Return these numbers for ``axis``, see `Axis.transposed`; ``end`` or ``added`` is 0."""
        natural = abs(axis.step) * (axis.taps - 1) + 1 - axis.stride
        grown = axis.extra + axis.origin - natural
        return cls(axis.origin, max(0, -grown), max(0, grown))


@dataclass(frozen=True, eq=False)
class NormalisedLayer(OfOneLayer[UpsampleSite]):
    """A ConvTranspose with explicit pads, or with none and a Slice.

    Attributes:
        sliced: True if the pads are a Slice.
    """

    sliced: bool = False

    @property
    def summary(self) -> Summary:
        return Summary("normalised")

    def emit(self, emitter: Emitter) -> None:
        layer, site = self.site.layer, self.site
        ends = [_Ends.of(axis) for axis in site.axes]
        x, weight, *rest = layer.inputs
        bias = rest[-1:] if site.bias is not None else []
        attributes = {name: layer.attrs[name] for name in _KEPT if name in layer.attrs}
        if any(one.added for one in ends):
            attributes["output_padding"] = [one.added for one in ends]
        pads = [one.begin for one in ends] + [one.end for one in ends]
        if any(pads) and not self.sliced:
            attributes["pads"] = pads
        tensor = emitter.add("ConvTranspose", [x, weight, *bias], **attributes)
        if self.sliced:
            emitter.crop(tensor, [(one.begin, one.end) for one in ends])
        emitter.finish(site.output)

    def at_sizes(self, sizes: Sequence[int]) -> NormalisedLayer:
        """The rewrite itself: nothing in it depends on the sizes."""
        del sizes
        return self

    def trial(self, rng: np.random.Generator) -> Trial:
        site, original = self.site, self.site.original()
        own = SiteOnIntegers.of(site)
        draws = own.draws(rng, 2)
        drawn = own.draw(draws)
        axes = tuple(map(without_shift, site.axes))
        work = site.channels[0] * site.channels[1] // site.group
        for axis in site.axes:
            work *= axis.taps
        x = draws.image(site.input_shape(original, trial_sizes(site, axes, work, original)))
        return drawn.trial(replace(self, site=drawn.site), {site.input: x}, site.batch)


_KEPT = ("dilations", "group", "kernel_shape", "strides")
"""The attributes that say nothing of the padding."""


def plan_normalised(site: UpsampleSite) -> NormalisedLayer | Reason:
    """Plan the ConvTranspose of ``site`` with explicit pads, or return why it stays as it is."""
    site = site.base or site
    layer = site.layer
    if site.pattern != "conv_transpose" or not layer.op.startswith("ConvTranspose"):
        return Reason("already-explicit", "it is no ConvTranspose")
    ends = [_Ends.of(axis) for axis in site.axes]
    if any(
        one.begin < 0 or one.added >= axis.stride for one, axis in zip(ends, site.axes, strict=True)
    ):
        text = "runtimes take no output_padding as large as its stride"
        return Reason("already-explicit", f"its padding cannot be explicit pads: {text}")
    sliced = not site.restrictions.transposed_pads and any(one.begin or one.end for one in ends)
    implied = layer.op != "ConvTranspose" or _states_padding_otherwise(layer.attrs)
    if not sliced and not implied:
        return Reason("already-explicit", "its pads are explicit already")
    return NormalisedLayer(site, sliced)


def _states_padding_otherwise(attributes: dict[str, Any]) -> bool:
    """Whether the padding is stated by ``auto_pad`` or ``output_shape``."""
    return attributes.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in attributes
