"""The separable form: one upsampling layer per axis, one after the other.

    W[c] = u[c] (x) v[c]

    x -> Conv(v, along the last axis) -> shuffle -> Conv(u, along the first) -> shuffle -> crop -> y

It fits a layer whose kernels are outer products. Each step is a polyphase Conv with phases along a
single axis. Bilinear k16 s8 takes 2 * 8 multiplications for each input pixel, and as many for each
of the eight that it becomes: 144 in all, where the smallest kernel of the whole takes 4 * 64. The
factors must give the elements of the kernels exactly, and each group must have one input channel:
more would be added up in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deployconv.match import AS_THEY_ARE, Parameter, UpsampleSite
from deployconv.options import Shuffle
from deployconv.polyphase import Axis, Polyphase
from deployconv.results import Macs, Reason
from deployconv.rewrites.base import OfOneLayer, Rewrite, Summary, Trial
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.conv_emit import emit_conv
from deployconv.rewrites.emit import Emitter, finish_layer
from deployconv.rewrites.factors import factors
from deployconv.rewrites.site_on_integers import SiteOnIntegers
from deployconv.rewrites.trial import trial_sizes

Array = NDArray[Any]

_UNTOUCHED = Axis(1, 1, 1, 0, 0)
"""An axis along which nothing happens."""
_DTYPES = ("float16", "float32", "float64")
"""bfloat16 has too few digits to round the image in between once more."""


@dataclass(frozen=True, eq=False)
class SeparableConv(OfOneLayer[UpsampleSite]):
    """One upsampling layer as a polyphase Conv per axis, the last axis first.

    ``axes`` and ``macs`` are those of the whole layer, the latter for one input pixel.
    """

    steps: tuple[PolyphaseConv, ...]
    axes: tuple[Polyphase, ...]
    macs: Macs

    @property
    def summary(self) -> Summary:
        kernel = tuple(form.span for form in self.axes)
        return Summary("separable", self.steps[0].shuffle, kernel, self.macs)

    def emit(self, emitter: Emitter) -> None:
        found = factors_of(self.site)
        assert found is not None
        for site, step in zip(_steps(self.site, found, emitter.fresh), self.steps, strict=True):
            emit_conv(emitter, replace(step, site=site))
            finish_layer(emitter, site)

    def at_sizes(self, sizes: Sequence[int]) -> SeparableConv:
        """The same rewrite for an input of other spatial sizes; what is dynamic stays so."""
        steps = []
        for step in self.steps:
            steps.append(step.at_sizes(sizes))
            sizes = [
                form.axis.output_size(size) for form, size in zip(step.axes, sizes, strict=True)
            ]
        return replace(self, steps=tuple(steps))

    def on(self, site: UpsampleSite) -> SeparableConv:
        """The same rewrite for a layer that differs in its weights only."""
        return replace(self, site=site)

    def trial(self, rng: np.random.Generator) -> Trial:
        return product_trial(self, rng, alike=False)


def plan_separable(site: UpsampleSite, shuffle: Shuffle = "auto") -> SeparableConv | None:
    """The separable form of ``site``; None if it is no product, or has no shuffle along an axis."""
    found = factors_of(site)
    whole = plan_conv(site, "crop", shuffle)
    if found is None or isinstance(whole, Reason):
        return None
    steps, multiplications, pixels = [], 0, 1
    for step in _steps(site, found, str):
        planned = plan_conv(step, "crop", shuffle)
        if isinstance(planned, Reason):
            return None
        steps.append(planned)
        multiplications += planned.macs.after * pixels
        pixels *= step.phases
    macs = Macs(whole.macs.before, multiplications)
    return SeparableConv(site, tuple(steps), whole.axes, macs)


class ByFactors(Protocol):
    """A rewrite of a layer by the factors of its kernels."""

    @property
    def site(self) -> UpsampleSite: ...
    @property
    def axes(self) -> tuple[Polyphase, ...]: ...
    @property
    def macs(self) -> Macs: ...
    def on(self, site: UpsampleSite) -> Rewrite: ...


def product_trial(planned: ByFactors, rng: np.random.Generator, alike: bool) -> Trial:
    """Build the trial of a rewrite by factors: the kernels are products of integers.

    The factors are then found as those of the real kernels are. If ``alike``, all channels have
    the same kernel.
    """
    site = planned.site
    original = site.original()
    macs = max(planned.macs.before, planned.macs.after)
    sizes = trial_sizes(site, planned.axes, macs, original)
    # A term of a sum is the product of one integer per axis and one of the image.
    taps = [axis.taps for axis in site.axes]
    own = SiteOnIntegers.of(site)
    draws = own.draws(rng, site.rank + 1)
    draws = replace(draws, alike=alike)
    weight = draws.product((site.base or site).weight, taps)
    drawn = own.draw(draws, weight=weight)
    x = draws.image(site.input_shape(original, sizes))
    rewrite = planned.on(drawn.site).at_sizes(sizes)
    return drawn.trial(rewrite, {site.input: x}, site.batch)


def factors_of(site: UpsampleSite) -> tuple[Array, ...] | None:
    """The factors ``[C_out, k]`` of each axis; None if the kernels of ``site`` have none."""
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
    """Split a layer into one layer per axis, the last axis first."""
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
            tail=() if axis else site.tail,
        )
        yield step
        sizes = zip(axes, step.sizes, strict=True)
        step = replace(
            step,
            pointwise_before=(),
            input_axes=AS_THEY_ARE,
            channels_in_batch=False,
            geometry=replace(site.geometry, group=channels),
            sizes=tuple(None if size is None else own.output_size(size) for own, size in sizes),
        )
