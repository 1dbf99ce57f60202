"""A Conv after a Concat of channels, taken apart by the images that the Concat joins.

    Conv(Concat(repeat(x), skip)) = Conv_x(repeat(x)) + Conv_skip(skip)

Each Conv has the weights of the channels of its image, and one of them has the bias. The Conv of a
repeated image is then an upsampling layer, written as a `PolyphaseConv`. Images of one size are
joined again, and have one Conv. With several groups, each Conv makes other output channels: their
results are concatenated instead of added.

The result is the same up to the rounding of the sum, which is added up in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.match import ConcatInput, ConcatSite, Parameter, UpsampleSite
from deployconv.match.axis_map import AxisMap
from deployconv.options import Form, Shuffle
from deployconv.polyphase import Axis
from deployconv.results import Macs, Reason
from deployconv.rewrites.base import OfOneLayer, Summary, Trial
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.conv_emit import conv_input, emit_conv
from deployconv.rewrites.emit import Emitter, finite
from deployconv.rewrites.site_on_integers import SiteOnIntegers
from deployconv.rewrites.trial import AFFORDABLE

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Part:
    """The Conv of the ``members`` among the inputs of a Concat, which are repeated alike."""

    members: tuple[int, ...]
    conv: PolyphaseConv


@dataclass(frozen=True, eq=False)
class SplitConv(OfOneLayer[ConcatSite]):
    """A Conv after a Concat as one Conv for each of the images, or for several of one size.

    Attributes:
        site: the Conv, with what it has absorbed.
        parts: the new Convs, in the order of their first inputs.
    """

    parts: tuple[Part, ...]

    @property
    def lead(self) -> PolyphaseConv:
        """The Conv of the image that is smallest."""
        return max((part.conv for part in self.parts), key=lambda conv: conv.site.phases)

    @cached_property
    def summary(self) -> Summary:
        lead = self.lead
        return Summary(lead.form, lead.shuffle, lead.conv_kernel, self.macs)

    @property
    def macs(self) -> Macs:
        """Multiplications for one pixel of the smallest image."""
        conv, phases = self.site.conv, self.lead.site.phases
        taps = prod(axis.taps for axis in conv.axes)
        pairs = conv.channels[0] // conv.group * conv.channels[1]
        work = (part.conv.macs.after * phases // part.conv.site.phases for part in self.parts)
        return Macs(pairs * taps * phases, sum(work))

    def emit(self, emitter: Emitter) -> None:
        made = []
        for part in self.parts:
            emit_conv(emitter, replace(part.conv, site=self._read(emitter, part)))
            made.append(emitter.nodes[-1].outputs[0])
        if self.site.conv.group > 1 and len(made) > 1:
            emitter.add("Concat", made, axis=1)
        else:
            total = made[0]
            for other in made[1:]:
                total = emitter.add("Add", [total, other])
        emitter.finish(self.site.conv.output)

    def _read(self, emitter: Emitter, part: Part) -> UpsampleSite:
        """The layer of one part, which reads one image; several are joined first."""
        own = part.conv.site
        layers = {layer.target: layer for layer in self.site.conv.pointwise_before}
        after = tuple(layers[name] for name in self.site.after)
        read = [self.site.inputs[at] for at in part.members]
        sites = [
            replace(own, input=one.source, pointwise_before=tuple(layers[at] for at in one.layers))
            for one in read
        ]
        if len(sites) == 1:
            before = (*sites[0].pointwise_before, *after)
            return replace(sites[0], pointwise_before=before)
        joined = emitter.add("Concat", [conv_input(emitter, one) for one in sites], axis=1)
        return replace(own, input=joined.name, pointwise_before=after)

    def at_sizes(self, sizes: Sequence[int]) -> SplitConv:
        """The same rewrite for other spatial sizes of the joined image."""
        parts = []
        for part in self.parts:
            maps = self.site.inputs[part.members[0]].maps
            image = [(size - m.tail) // m.stride for size, m in zip(sizes, maps, strict=True)]
            parts.append(replace(part, conv=part.conv.at_sizes(image)))
        return replace(self, parts=tuple(parts))

    def on(self, conv: UpsampleSite) -> SplitConv:
        """The same rewrite for a Conv of other weights and, if of one group, other outputs."""
        site = replace(self.site, conv=conv)
        parts = []
        for part in self.parts:
            own = _layer(site, part.members, part.conv.site.bias is not None)
            parts.append(replace(part, conv=part.conv.on(own, own.channels[1])))
        return SplitConv(site, tuple(parts))

    def trial(self, rng: np.random.Generator) -> Trial:
        conv = self.site.conv
        original = conv.original()
        assert original.sizes is not None
        assert original.batch_and_channels is not None
        own = SiteOnIntegers.of(conv, original)
        draws = own.draws(rng, 2)
        sizes, batch = original.sizes, original.batch_and_channels[0]
        work = prod(sizes) * self.macs.before // self.lead.site.phases
        channels = conv.channels[1]
        if work > AFFORDABLE and conv.group == 1:
            # All output channels are computed alike: the first ones do.
            channels = max(1, channels * AFFORDABLE // work)
        drawn = own.draw(draws, channels)
        feeds = {}
        for one in self.site.inputs:
            image = [(size - m.tail) // m.stride for size, m in zip(sizes, one.maps, strict=True)]
            feeds[one.source] = draws.image((batch, len(one.channels), *image))
        return drawn.trial(self.on(drawn.site).at_sizes(sizes), feeds)


def plan_split(
    site: ConcatSite, form: Form = "auto", shuffle: Shuffle = "auto", channel_split: bool = False
) -> SplitConv | Reason:
    """Take a Conv apart, its upsampled parts in one form; or the reason why that has no such form.

    ``channel_split`` as in `PolyphaseConv`.
    """
    groups = _alike(site)
    plain = [at for at, group in enumerate(groups) if not site.inputs[group[0]].upsampled]
    parts = []
    for at, members in enumerate(groups):
        # The bias costs least where no channels are repeated for the phases.
        has_bias = site.conv.group > 1 or at == (plain[0] if plain else 0)
        planned = plan_conv(_layer(site, members, has_bias), form, shuffle)
        if isinstance(planned, Reason):
            return planned
        split = channel_split and planned.form == "split"
        parts.append(Part(members, replace(planned, channel_split=split)))
    return SplitConv(site, tuple(parts))


def lead_of(site: ConcatSite) -> UpsampleSite:
    """The layer of the smallest image, by which the forms of all parts are chosen."""
    layers = (_layer(site, members, has_bias=False) for members in _alike(site))
    return max(layers, key=lambda layer: layer.phases)


def _alike(site: ConcatSite) -> list[tuple[int, ...]]:
    """The inputs of the Concat by how they are repeated.

    A Conv of several groups keeps the order of the channels, so only neighbours are put together.
    """

    def repeated(at: int) -> tuple[tuple[int, int, int, bool, bool], ...]:
        return site.inputs[at].repetition

    order = list(range(len(site.inputs)))
    if site.conv.group == 1:
        order.sort(key=repeated)
    groups = [tuple(members) for _, members in groupby(order, repeated)]
    return sorted(groups)


def _layer(site: ConcatSite, members: Sequence[int], has_bias: bool) -> UpsampleSite:
    """The Conv of some inputs of the Concat, as an upsampling layer of its own."""
    conv, read = site.conv, [site.inputs[at] for at in members]
    channels = [channel for one in read for channel in one.channels]
    weight, bias, group = conv.weight, conv.bias if has_bias else None, 1
    if conv.group == 1:
        weight = _taken(weight, channels, 1, site.id)
    else:
        inputs, outputs = (count // conv.group for count in conv.channels)
        first, group = channels[0] // inputs, len(channels) // inputs
        rows = range(first * outputs, (first + group) * outputs)
        weight = _taken(weight, rows, 0, site.id)
        bias = None if bias is None else _taken(bias, rows, 0, site.id)
    axes = tuple(map(_after_repetition, conv.axes, read[0].maps))
    plain = all((axis.taps, axis.origin, axis.extra) == (1, 0, 0) for axis in conv.axes)
    stride = tuple(axis.stride for axis in axes)
    return replace(
        conv,
        nodes=(conv.layer,),
        input=read[0].source,
        axes=axes,
        geometry=replace(conv.geometry, stride=stride, group=group),
        weight=weight,
        bias=bias,
        sizes=_sizes(read),
        pointwise_before=(),
        repeats=plain and read[0].only_repeats,
        absorbed=(),
        base=None,
    )


def _sizes(read: Sequence[ConcatInput]) -> tuple[int | None, ...]:
    """The spatial sizes of images that are alike: each is known if it is known of one of them."""
    by_axis = zip(*(one.sizes for one in read), strict=True)
    return tuple(next((size for size in sizes if size is not None), None) for sizes in by_axis)


def _after_repetition(conv: Axis, found: AxisMap) -> Axis:
    """The axis of a Conv of stride 1 that reads an image which is repeated as ``found`` says."""
    return Axis(
        stride=found.stride,
        taps=conv.taps,
        step=conv.step,
        origin=conv.origin - found.begin,
        extra=conv.extra + found.tail,
        hold=found.hold,
        edge=found.edge,
    )


def _taken(parameter: Parameter, places: Sequence[int], axis: int, site: str) -> Parameter:
    """Some channels of a weight or bias."""
    shape = list(parameter.shape)
    shape[axis] = len(places)

    def read() -> Array:
        return finite(parameter, site).take(list(places), axis)

    return replace(parameter, shape=tuple(shape), read=read, scaled=None)
