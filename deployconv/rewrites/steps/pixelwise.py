"""Layers that compute each pixel from that pixel alone.

These are activations, arithmetic with constants or with other images, Concat, reductions over the
channels, and Softmax over the channels. On phases that are pixels they run as they are. On phases
that are channels only those run that do not mix channels, and what they have per channel they have
once per phase of that channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match import UpsampleSite
from deployconv.match.pointwise import is_pointwise
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.neighbours import is_known, reduces_channels
from deployconv.rewrites.stand_ins import channel_sum, growth, stand_in
from deployconv.rewrites.steps.base import NodeStep, OrderAfter, PhaseImage
from deployconv.rewrites.trial import Draws

Array = NDArray[Any]

_REDUCTIONS = frozenset(
    (
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
        *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
    )
)
_EXACT_REDUCTIONS = frozenset({"ReduceMax", "ReduceMin", "ReduceSum"})
_NORMALISERS = frozenset(["LogSoftmax", "Softmax"])
_ACROSS_CHANNELS = _REDUCTIONS | _NORMALISERS | {"Concat"}
_PRECISE = ("float32", "float64")
"""Element types that hold the weight of a mean closely enough."""


class HasImages(Protocol):
    """The graph that images are in, and their number of spatial axes."""

    @property
    def scope(self) -> Scope: ...

    @property
    def rank(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Pixelwise(NodeStep):
    """A layer that computes each pixel from that pixel alone.

    Attributes:
        node: the layer.
        constants: by the position of the input.
        channels: of its result.
        channels_read: of the first image that it reads.
        parity_only: in a stand-in, the nodes that it does not compute.
    """

    constants: Mapping[int, Constant]
    channels: int
    channels_read: int
    parity_only: tuple[gs.Node, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.node.inputs)

    @property
    def values(self) -> dict[str, Array]:
        return {known.name: known.read() for known in self.constants.values()}

    @property
    def is_elementwise(self) -> bool:
        """Whether it computes each element from that element alone, in whatever shape they are."""
        alone = sum(bool(tensor.name) for tensor in self.node.inputs) == 1 + len(self.constants)
        single = all(prod(constant.shape) == 1 for constant in self.constants.values())
        return alone and single and self.node.op not in _ACROSS_CHANNELS

    @property
    def takes_volume(self) -> bool:
        """Whether it may run on the result of a Conv of a volume."""
        single = all(prod(constant.shape) == 1 for constant in self.constants.values())
        return single and self.node.op != "BatchNormalization"

    @property
    def stride(self) -> None:
        return None

    @property
    def quantizes(self) -> bool:
        return bool(self.node.op == "QuantizeLinear")

    @property
    def dequantizes(self) -> bool:
        return bool(self.node.op == "DequantizeLinear")

    @property
    def beyond_chains(self) -> bool:
        images = [tensor for at, tensor in enumerate(self.node.inputs) if at not in self.constants]
        return len(images) > 1 or self.node.op in _REDUCTIONS

    @property
    def growth(self) -> int:
        if self.node.op in _REDUCTIONS:
            return self.channels_read
        return growth(self.node, self.constants)

    @property
    def plain_growth(self) -> int:
        if self.node.op in _REDUCTIONS:
            return self.channels_read
        return growth(self.node, self.constants, plain=True)

    def channels_after(self, channels: int) -> int:
        return channels

    def runs_per_phase(self, image: PhaseImage) -> bool:
        return not self._is_sum(image)

    def emit_on_channels(
        self, emitter: Emitter, tensor: gs.Tensor, layout: Array, order: OrderAfter, name: str
    ) -> tuple[gs.Tensor, Array]:
        del order, name
        inputs = []
        for position, given in enumerate(self.node.inputs):
            constant = self.constants.get(position)
            if constant is None:
                inputs.append(tensor if given.name else given)
            elif self.node.op != "BatchNormalization" and prod(constant.shape) == 1:
                inputs.append(given)
            else:
                inputs.append(emitter.constant("constant", _spread(constant.read(), layout)))
        return emitter.add(self.node.op, inputs, **self.node.attrs), layout

    def emit_on_pixels(
        self, emitter: Emitter, made: Mapping[str, gs.Tensor], image: PhaseImage
    ) -> gs.Tensor:
        if self._is_sum(image):
            # A reduction along any axis but the last is the slowest way to read an image.
            weight = 1 if self.node.op == "ReduceSum" else 1 / self.channels_read
            row = np.full((1, self.channels_read), weight, image.dtype)
            read = made[self.reads[0]]
            return image.product(emitter, emitter.constant("row", row), read, 1, self.channels_read)
        return self.copied(emitter, made)

    def on_integers(self, draws: Draws, image: Sequence[int]) -> Pixelwise:
        del image
        if self.node.op in _EXACT_REDUCTIONS:
            return self
        if self.node.op in _REDUCTIONS:
            # Not the largest: what is left of a tensor without its largest element has 0 for its
            # largest, which hides everything.
            node, constants = channel_sum(self.node, draws.opset)
            missed = () if self.node.op == "ReduceMean" else (self.node,)
            return self._with(node, constants, missed)
        shapes = {at: known.shape for at, known in self.constants.items()}
        found = stand_in(self.node, shapes, draws)
        return self._with(found.node, found.constants, () if found.exact else (self.node,))

    def _with(
        self, node: gs.Node, constants: Mapping[int, Constant], missed: tuple[gs.Node, ...]
    ) -> Pixelwise:
        return Pixelwise(node, constants, self.channels, self.channels_read, missed)

    def _is_sum(self, image: PhaseImage) -> bool:
        """Whether it is written as a row of weights times the image as a matrix."""
        return self.node.op in ("ReduceMean", "ReduceSum") and image.dtype in _PRECISE


def _spread(values: Array, layout: Array) -> Array:
    """Repeat a constant that has one value per channel for each phase of its channel."""
    axis = int(np.argmax(values.shape))
    spread = np.empty(layout.size, values.dtype)
    spread[layout.reshape(len(layout), -1)] = values.reshape(-1, 1)
    return spread.reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])


def pointwise_at(
    node: gs.Node, tensor: gs.Tensor, channels: int, site: UpsampleSite, view: View
) -> Pixelwise | None:
    """``node``, which reads ``tensor``, as a layer that treats all positions and phases alike."""
    if not is_pointwise(node, site.scope, view):
        return None
    constants: dict[int, Constant] = {}
    for position, given in enumerate(node.inputs):
        if given is tensor or not given.name:
            continue
        constant = view.constants.fixed(given, site.scope)
        if constant is None:
            return None
        per_channel = _width(constant, site.rank + 2) in (1, channels)
        if node.op != "BatchNormalization" and not per_channel:
            return None
        constants[position] = constant
    return Pixelwise(node, constants, channels, channels)


def pixelwise_at(
    node: gs.Node, site: HasImages, view: View, widths: Mapping[str, int]
) -> Pixelwise | None:
    """``node`` as a layer on images of so many channels, by name; None if positions matter."""
    inputs = images_and_constants(node, site, view, widths)
    if inputs is None:
        return None
    data, constants = inputs
    made = _channels(node, site, view, data, constants)
    return None if made is None else Pixelwise(node, constants, made, data[0] if data else made)


def images_and_constants(
    node: gs.Node, site: HasImages, view: View, widths: Mapping[str, int]
) -> tuple[list[int], dict[int, Constant]] | None:
    """The channels of each image that ``node`` reads, and its constants; None if it reads more."""
    if not is_known(node, site.scope) or len(node.outputs) != 1:
        return None
    constants: dict[int, Constant] = {}
    data: list[int] = []
    for position, tensor in enumerate(node.inputs):
        if tensor.name in widths:
            data.append(widths[tensor.name])
        elif tensor.name:
            constant = view.constants.fixed(tensor, site.scope)
            if constant is None:
                return None
            constants[position] = constant
    return data, constants


def _channels(
    node: gs.Node,
    site: HasImages,
    view: View,
    data: Sequence[int],
    constants: Mapping[int, Constant],
) -> int | None:
    """Channels of the result; None if it is not computed from each pixel alone."""
    rank = site.rank + 2
    if node.op == "Concat":
        along = node.attrs.get("axis") in (1, 1 - rank)
        return sum(data) if along and not constants else None
    if node.op in _REDUCTIONS:
        return 1 if reduces_channels(node, constants.get(1), rank) else None
    if node.op in _NORMALISERS:
        # Before opset 13 they flatten all axes from theirs on.
        along = node.attrs.get("axis", -1) in (1, 1 - rank) and site.scope.opset >= 13
        return data[0] if along else None
    if node.op != "Sum" and not is_pointwise(node, site.scope, view):
        return None
    widths: list[int | None] = [*data]
    if node.op != "BatchNormalization":
        widths += [_width(constant, rank) for constant in constants.values()]
    known = [width for width in widths if width is not None]
    return max(known) if len(known) == len(widths) and set(known) <= {1, max(known)} else None


def _width(constant: Constant, rank: int) -> int | None:
    """The channels of a constant that is broadcast over pixels; None if it is not."""
    padded = (1,) * (rank - len(constant.shape)) + constant.shape
    fits = len(padded) == rank and all(size == 1 for at, size in enumerate(padded) if at != 1)
    return padded[1] if fits else None
