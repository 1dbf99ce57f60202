"""A pixel shuffle written in another encoding, or in the other channel order.

The order of the channels is a matter of the Conv that makes them: its output channels are permuted,
nothing else. Without a Conv of its own the shuffle keeps its order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.view import View
from deployconv.match import ShuffleSite
from deployconv.match.operators import Operators
from deployconv.match.pixel_shuffle import shuffled_conv
from deployconv.match.shuffle_site import ConvBefore
from deployconv.options import Form, Shuffle
from deployconv.results import Reason, ShuffleName
from deployconv.rewrites.base import OfOneLayer, Summary, Trial
from deployconv.rewrites.chain import Chain, ChainScope, chain_after
from deployconv.rewrites.channel_layout import in_order
from deployconv.rewrites.conv import plan_conv
from deployconv.rewrites.emit import Emitter, write_parameter
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.region import Region
from deployconv.rewrites.region_search import region_after
from deployconv.rewrites.shuffles import SHUFFLES, channel_order
from deployconv.rewrites.trial import Draws, build_trial

Array = NDArray[Any]

_UNEQUAL_SIZES = (5, 6, 7)


@dataclass(frozen=True, eq=False)
class Reshuffle(OfOneLayer[ShuffleSite]):
    """A pixel shuffle in a new encoding.

    Attributes:
        site: the shuffle, and the Conv before it if it has one of its own.
        shuffle: the new encoding.
        layout: what it moves.
        reorders: True if the output channels of the Conv are permuted.
    """

    shuffle: ShuffleName
    layout: Layout
    reorders: bool

    @property
    def summary(self) -> Summary:
        return Summary(shuffle=self.shuffle, conv_kernel=self.site.geometry.kernel)

    @property
    def operators(self) -> Operators:
        conv = self.site.conv
        others = SHUFFLES[self.shuffle].operators(self.layout.stride)
        if self.site.channels_last:
            others = (*others, ("Transpose", len(self.site.stride) + 2))
        return Operators(conv.window if conv else None, others, self.site.dtype)

    def emit(self, emitter: Emitter) -> None:
        site = self.site
        tensor: gs.Tensor = gs.Variable(site.source)
        if self.reorders and site.conv is not None:
            conv = site.conv
            moved = partial(_permuted, site, self.shuffle)
            weight = write_parameter(emitter, "weight", conv.weight, site.id, moved)
            inputs = [conv.node.inputs[0], weight]
            if conv.bias is not None:
                inputs.append(write_parameter(emitter, "bias", conv.bias, site.id, moved))
            tensor = emitter.add("Conv", inputs, **conv.node.attrs)
        made = SHUFFLES[self.shuffle].emit(emitter, tensor, self.layout)
        if site.channels_last:
            emitter.add("Transpose", [made], perm=[0, *range(2, 2 + len(site.stride)), 1])
        emitter.finish(site.output)

    def at_sizes(self, sizes: Sequence[int]) -> Reshuffle:
        """The same rewrite for a shuffled tensor of other sizes; what is dynamic stays so."""
        return replace(self, layout=self.layout.at_sizes(sizes))

    def trial(self, rng: np.random.Generator) -> Trial:
        site, rank = self.site, len(self.site.stride)
        opset = site.scope.opset
        if not self.reorders or site.conv is None:
            original = site.original()
            sizes = original.sizes or _UNEQUAL_SIZES[:rank]
            x = Draws(1 << 20, opset, rng).image(
                (*(original.batch_and_channels or (2, site.channels or 1)), *sizes)
            )
            return build_trial(
                self.at_sizes(sizes),
                original.nodes,
                original.constants,
                {site.source: x},
                batch=site.batch,
            )
        conv = site.conv
        original = conv.original()
        draws = Draws.fitting(rng, opset, [prod(conv.weight.shape[1:])], 1, 2)
        weight, bias = draws.parameter(conv.weight), draws.bias(conv.bias)
        constants = {**original.constants, weight.name: weight.read()}
        if bias is not None:
            constants[bias.name] = bias.read()
        reach = zip(conv.attributes.kernel, conv.attributes.dilations, range(rank), strict=True)
        sizes = original.sizes or tuple(d * (k - 1) + 4 + i for k, d, i in reach)
        x = draws.image(
            (*(original.batch_and_channels or (2, weight.shape[1] * conv.attributes.group)), *sizes)
        )
        drawn = replace(site, conv=replace(conv, weight=weight, bias=bias))
        return build_trial(
            replace(self, site=drawn).at_sizes(_sizes_after(conv, sizes)),
            original.nodes,
            constants,
            {conv.node.inputs[0].name: x},
            batch=site.batch,
        )


def plan_reshuffle(site: ShuffleSite, shuffle: Shuffle = "auto") -> Reshuffle | Reason:
    """The new encoding of ``site``, or the reason why it stays as it is."""
    if not site.movable:
        text = "its channels are the last axis: a DepthToSpace would need Transposes around it"
        return Reason("already-lowered", text)
    layout = shuffle_layout(site)
    if layout is None:
        return Reason("already-lowered", "it is a pixel shuffle already, of unknown shape")
    named: ShuffleName = "crd" if site.order == "CRD" else "dcr"
    asked: tuple[ShuffleName, ...] = (named,) if shuffle == "auto" else (shuffle, named)
    for name in (*asked, "dcr"):
        row = SHUFFLES[name]
        reorders = site.channel_map is not None or row.steps or row.channel_order != site.order
        possible = SHUFFLES[name].takes(layout) and (not reorders or _reorderable(site))
        if possible and name == named and not site.composite:
            return Reason("already-lowered", "it is a DepthToSpace already")
        if possible:
            return Reshuffle(site, name, layout, reorders)
    return Reason(
        "already-lowered", "DepthToSpace does not fit, and no other way to write it does less work"
    )


def shuffle_layout(site: ShuffleSite) -> Layout | None:
    """What a pixel shuffle moves; None if its channels or its element type are not known."""
    if site.channels is None or site.dtype is None:
        return None
    return Layout(
        channels=site.channels // prod(site.stride),
        stride=site.stride,
        sizes=site.sizes,
        crop=((0, 0),) * len(site.stride),
        group=site.conv.attributes.group if site.conv else 1,
        opset=site.scope.opset,
        dtype=site.dtype,
        batch=site.batch,
    )


def chain_from(
    site: ShuffleSite,
    view: View,
    fusion: ChainScope,
    shuffle: Shuffle,
    others: Collection[ShuffleSite] = (),
    excluded: Collection[int] = (),
) -> Chain | None:
    """The Conv of ``site``, its pixel shuffle and the layers after it as a chain.

    The Conv heads the chain as a layer of stride 1. None if nothing follows the shuffle.
    The arguments are those of `chain_after`.
    """
    layer = site.conv.layer if site.conv is not None and site.is_depth_to_space else None
    head = plan_conv(layer) if layer is not None else None
    if head is None or isinstance(head, Reason):
        return None
    chain = chain_after(head, view, fusion, shuffle, [site, *others], excluded)
    if chain is None or len(chain.steps) < 2:
        return None
    return replace(chain, summary=Summary(None, chain.shuffle, site.geometry.kernel))


def region_from(
    site: ShuffleSite, view: View, form: Form, shuffle: Shuffle, excluded: Collection[int] = ()
) -> Region | None:
    """The Conv of ``site`` and its pixel shuffle as one layer that heads a region.

    The region ends in a Conv that mixes neighbouring pixels; None if there is no such.
    """
    layer = shuffled_conv(site) if site.is_depth_to_space else None
    head = plan_conv(layer, form, shuffle) if layer is not None else None
    if head is None or isinstance(head, Reason):
        return None
    region = region_after(head, view, (), excluded, ends_in_conv=True)
    if region is None:
        return None
    return replace(region, summary=Summary(head.form, region.shuffle, head.conv_kernel))


def _sizes_after(conv: ConvBefore, sizes: Sequence[int]) -> tuple[int, ...]:
    """The spatial sizes that ``conv`` makes of an input of ``sizes``."""
    rank = len(sizes)
    own = conv.attributes
    reach = [d * (k - 1) for k, d in zip(own.kernel, own.dilations, strict=True)]
    if own.auto_pad.startswith("SAME"):
        return tuple(-(-size // step) for size, step in zip(sizes, own.strides, strict=True))
    return tuple(
        (size + own.pads[axis] + own.pads[rank + axis] - reach[axis] - 1) // own.strides[axis] + 1
        for axis, size in enumerate(sizes)
    )


def _reorderable(site: ShuffleSite) -> bool:
    """Whether the output channels of the Conv may be permuted: with groups only CRD keeps them."""
    return site.conv is not None and site.conv.attributes.group == 1


def _permuted(site: ShuffleSite, shuffle: ShuffleName, values: Array) -> Array:
    """The output channels, axis 0, in the order that ``shuffle`` reads."""
    if site.channel_map is not None:
        values = values[list(site.channel_map)]
    phases = prod(site.stride)
    channels = values.shape[0] // phases
    layout = in_order(channels, site.stride)
    if site.order == "DCR":
        layout = np.moveaxis(in_order(1, [*site.stride, channels])[0], -1, 0)
    order = channel_order(shuffle, layout, len(site.stride))
    return np.ascontiguousarray(values[order])
