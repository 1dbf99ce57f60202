"""The layers that a chain is made of: what they do to the channels and to the phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.match import Parameter, ShuffleSite

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PointwiseLink:
    """A layer that treats all positions alike; ``constants`` by the position of the input."""

    node: gs.Node
    constants: Mapping[int, Constant]

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """The one node."""
        return (self.node,)


@dataclass(frozen=True, eq=False)
class MixLink:
    """A layer that works on each pixel alone, and may make a block of ``stride`` of it.

    ``transposed`` tells the layout of the weight, as in `UpsampleSite`.
    """

    node: gs.Node
    stride: tuple[int, ...]
    weight: Parameter
    bias: Parameter | None
    transposed: bool

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """The one node."""
        return (self.node,)

    @property
    def channels(self) -> tuple[int, int]:
        """(C_in, C_out)."""
        first, second = self.weight.shape[:2]
        return (first, second) if self.transposed else (second, first)

    @property
    def phases(self) -> int:
        """Pixels made of each."""
        return prod(self.stride)

    def kernel(self, values: Array) -> Array:
        """``values`` of the weight as ``[C_out, s_1 .. s_n, C_in]``."""
        if self.transposed:
            return np.moveaxis(values, 0, -1)
        return values.reshape(*values.shape[:2], *self.stride).swapaxes(1, -1)


@dataclass(frozen=True, eq=False)
class ShuffleLink:
    """A pixel shuffle: it computes nothing, and says of some channels that they are phases."""

    site: ShuffleSite

    @property
    def node(self) -> gs.Node:
        """The node that it ends in."""
        return self.site.layer

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """Those of the shuffle, without a Conv in front."""
        return self.site.nodes if self.site.conv is None else self.site.nodes[1:]

    @property
    def stride(self) -> tuple[int, ...]:
        """Pixels made of each, per axis."""
        return self.site.stride

    @property
    def phases(self) -> int:
        """Channels that become pixels."""
        return prod(self.stride)


Link = PointwiseLink | MixLink | ShuffleLink
