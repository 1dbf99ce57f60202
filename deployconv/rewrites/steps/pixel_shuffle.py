"""A pixel shuffle after an upsampling layer: it says of some channels that they are phases, too.

Nothing is computed for it: the shuffle at the end of the chain moves the phases of both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.match import ShuffleSite, UpsampleSite
from deployconv.rewrites.channel_layout import after_pixel_shuffle
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.neighbours import leads_only_to
from deployconv.rewrites.steps.base import Defaults, OrderAfter
from deployconv.rewrites.trial import Draws

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PixelShuffle(Defaults):
    """A pixel shuffle after an upsampling layer, merged into the shuffle at the end."""

    site: ShuffleSite

    parity_only: tuple[gs.Node, ...] = ()

    @property
    def node(self) -> gs.Node:
        return self.site.layer

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """The nodes of the shuffle, without a Conv before it."""
        return self.site.nodes if self.site.conv is None else self.site.nodes[1:]

    @property
    def output(self) -> str:
        return str(self.node.outputs[0].name)

    @property
    def stride(self) -> tuple[int, ...]:
        """Pixels that it makes of each pixel, per axis."""
        return self.site.stride

    def channels_after(self, channels: int) -> int:
        return channels // prod(self.stride)

    def order_after(self, layout: Array) -> Array:
        return after_pixel_shuffle(layout, self.stride, self.site.order)

    def emit_on_channels(
        self, emitter: Emitter, tensor: gs.Tensor, layout: Array, order: OrderAfter, name: str
    ) -> tuple[gs.Tensor, Array]:
        del emitter, order, name
        return tensor, self.order_after(layout)

    def on_integers(self, draws: Draws, image: Sequence[int]) -> PixelShuffle:
        del draws, image
        return self


def pixel_shuffle_at(
    tensor: gs.Tensor, channels: int, site: UpsampleSite, shuffles: Collection[ShuffleSite]
) -> PixelShuffle | None:
    """The one of ``shuffles`` that reads ``tensor`` with its ``channels``, if it fits a chain."""
    for shuffle in shuffles:
        if shuffle.source != tensor.name or shuffle.scope is not site.scope:
            continue
        if not shuffle.is_depth_to_space:
            continue
        fits = len(shuffle.stride) == site.rank and channels % prod(shuffle.stride) == 0
        if fits and leads_only_to(tensor, shuffle.layer, site.scope):
            return PixelShuffle(shuffle)
    return None
