"""The Conv at the end of a region: it mixes neighbours, and is an upsampling layer itself.

    phases [N, C * P, h, w] -> shuffle -> Conv k -> y                       is
    phases [N, C * P, h, w] -> ConvTranspose, stride s, on C * P channels -> y

With the phases for channels it multiplies by zeros more than once. That costs nothing where it has
so few output channels that runtimes fill them up to a block anyway, as the last Conv of a decoder
or of super-resolution has, which makes three colours of 64 channels. Then the image of 64 channels
need not be shuffled, but that of three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.view import View
from deployconv.match import UpsampleSite
from deployconv.match.attributes import AttributeReader
from deployconv.polyphase import Axis
from deployconv.rewrites.lowres.follow import is_known


@dataclass(frozen=True, eq=False)
class LastConv:
    """The Conv; ``constants`` by the position of the input, ``axes`` as of the phases."""

    node: gs.Node
    constants: Mapping[int, Constant]
    dilation: tuple[int, ...]
    axes: tuple[Axis, ...]

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """The one node."""
        return (self.node,)

    @property
    def reads(self) -> tuple[str, ...]:
        """The name of the image."""
        return (self.node.inputs[0].name,)

    @property
    def output(self) -> str:
        """The name of the result."""
        return str(self.node.outputs[0].name)

    @property
    def weight(self) -> Constant:
        """``[C_out, C, k_1 .. k_n]``."""
        return self.constants[1]

    @property
    def channels(self) -> int:
        """C_out."""
        return self.weight.shape[0]

    @property
    def taps(self) -> int:
        """Of its kernel, over all axes."""
        return prod(self.weight.shape[2:])


def last_conv_at(node: gs.Node, site: UpsampleSite, view: View, channels: int) -> LastConv | None:
    """``node`` as such a Conv, of an image of ``channels`` that ``site`` begins; else None."""
    scope = site.scope
    if node.op != "Conv" or not is_known(node, scope):
        return None
    constants = {}
    for position, given in enumerate(node.inputs[1:], start=1):
        constant = view.constants.fixed(given, scope) if given.name else None
        if constant is None or constant.dtype != site.weight.dtype:
            return None
        constants[position] = constant
    weight = constants[1]
    conv = AttributeReader(node, f"{scope.path}/{scope.label(node)}").conv(weight, grouped_axis=0)
    if conv.group != 1 or set(conv.strides) != {1} or weight.shape[1] != channels:
        return None
    if conv.rank != site.rank:
        return None
    axes = tuple(
        Axis.behind_shuffle(*axis)
        for axis in zip(site.stride, conv.kernel, conv.dilations, conv.explicit_pads, strict=True)
    )
    if any(size < 1 for size in _trial_sizes(site, axes)):
        return None
    return LastConv(node, constants, conv.dilations, axes)


def _trial_sizes(site: UpsampleSite, axes: tuple[Axis, ...]) -> list[int]:
    """What the Conv leaves of the image that a certificate is bound to, if it is to any."""
    sizes = site.original().sizes
    if sizes is None:
        return []
    pairs = zip(sizes, site.axes, axes, strict=True)
    return [first.output_size(size) + last.extra for size, first, last in pairs]
