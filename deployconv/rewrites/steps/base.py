"""What a step of a chain or of a region can be asked, and the images that steps run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.polyphase import Polyphase
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.trial import Draws

Array = NDArray[Any]


class Step(Protocol):
    """A layer after an upsampling layer that can run before its shuffle."""

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """Its nodes in graph order; the last one makes its output."""

    @property
    def output(self) -> str:
        """The name of its result."""

    @property
    def values(self) -> Mapping[str, Array]:
        """The constants that its nodes read, by name."""

    @property
    def parity_only(self) -> tuple[gs.Node, ...]:
        """The nodes that this step, a stand-in, does not compute."""

    @property
    def growth(self) -> int:
        """By how much its stand-in may enlarge values, apart from drawn weights."""

    @property
    def plain_growth(self) -> int:
        """`growth` in a trial that has Identity in place of layers that scale values."""

    @property
    def terms(self) -> tuple[int, ...]:
        """How many products with drawn weights each of its sums has; empty if it has no weights."""


class RegionStep(Step, Protocol):
    """A step of a region: it runs on pixels in the order of the phases."""

    @property
    def channels(self) -> int:
        """Channels of its result."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the images that it reads."""

    @property
    def beyond_chains(self) -> bool:
        """Whether only a region can run this step, and no chain."""

    @property
    def needs_whole_image(self) -> bool:
        """Whether it would read pixels that the crop removes later."""

    @property
    def ends_region(self) -> bool:
        """Whether no step may follow it."""

    @property
    def is_elementwise(self) -> bool:
        """True if it computes each element from that element alone, in whatever shape they are."""

    def runs_per_phase(self, image: PhaseImage) -> bool:
        """Whether it can run on each phase as an image of its own."""

    def emit_on_pixels(
        self, emitter: Emitter, made: Mapping[str, gs.Tensor], image: PhaseImage
    ) -> gs.Tensor:
        """Write its nodes for images ``[N, C, P * m_1, m_2 .. m_n]``, given by name in ``made``."""

    def on_integers(self, draws: Draws, image: Sequence[int]) -> RegionStep:
        """Its stand-in, for an image of these spatial sizes at high resolution."""


class ChainStep(Step, Protocol):
    """A step of a chain: it runs on phases that are channels."""

    @property
    def node(self) -> gs.Node:
        """The node that makes its output."""

    @property
    def stride(self) -> tuple[int, ...] | None:
        """Pixels that it makes of each pixel, per axis; None for a pointwise layer."""

    @property
    def mixes_channels(self) -> bool:
        """True if it computes an output channel from all input channels."""

    @property
    def takes_volume(self) -> bool:
        """True if it may run on the result of a Conv of a volume (`conv.PolyphaseConv.volume`)."""

    @property
    def quantizes(self) -> bool:
        """True for a QuantizeLinear."""

    @property
    def dequantizes(self) -> bool:
        """True for a DequantizeLinear."""

    def channels_after(self, channels: int) -> int:
        """Channels of its result if it reads ``channels``."""

    def weight_elements(self, phases: int) -> int:
        """Elements of its weight on so many phases."""

    def order_after(self, layout: Array) -> Array:
        """The channel layout of its result, if it computes nothing per channel."""

    def emit_on_channels(
        self, emitter: Emitter, tensor: gs.Tensor, layout: Array, order: OrderAfter, name: str
    ) -> tuple[gs.Tensor, Array]:
        """Write its nodes; the result, and the channel layout that it has.

        Args:
            emitter: collects the nodes.
            tensor: ``[N, C * P, m_1 .. m_n]``.
            layout: where its channels and phases are.
            order: gives the order in which a convolution should put its output channels.
            name: what errors call the layer.
        """

    def on_integers(self, draws: Draws, image: Sequence[int]) -> ChainStep:
        """Its stand-in in a trial."""


class Defaults:
    """What a step answers unless its layer is special: see `Step`, `RegionStep`, `ChainStep`."""

    @property
    def growth(self) -> int:
        return 1

    @property
    def plain_growth(self) -> int:
        return self.growth

    @property
    def terms(self) -> tuple[int, ...]:
        return ()

    @property
    def values(self) -> Mapping[str, Array]:
        return {}

    @property
    def is_elementwise(self) -> bool:
        return False

    @property
    def mixes_channels(self) -> bool:
        return False

    @property
    def takes_volume(self) -> bool:
        return False

    @property
    def quantizes(self) -> bool:
        return False

    @property
    def dequantizes(self) -> bool:
        return False

    @property
    def beyond_chains(self) -> bool:
        return True

    @property
    def needs_whole_image(self) -> bool:
        return False

    @property
    def ends_region(self) -> bool:
        return False

    def runs_per_phase(self, image: PhaseImage) -> bool:
        del image
        return False

    def weight_elements(self, phases: int) -> int:
        del phases
        return 0

    def order_after(self, layout: Array) -> Array:
        return layout


@dataclass(frozen=True, eq=False)
class NodeStep(Defaults):
    """A step of a single node."""

    node: gs.Node

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (self.node,)

    @property
    def reads(self) -> tuple[str, ...]:
        return (str(self.node.inputs[0].name),)

    @property
    def output(self) -> str:
        return str(self.node.outputs[0].name)

    def copied(self, emitter: Emitter, made: Mapping[str, gs.Tensor]) -> gs.Tensor:
        """The node as it is, on what has been made of its inputs by name."""
        inputs = [made.get(given.name, given) for given in self.node.inputs]
        return emitter.add(self.node.op, inputs, **self.node.attrs)


class OrderAfter(Protocol):
    """A function from a channel layout to the order of the output channels of a Conv."""

    def __call__(self, layout: Array) -> Array: ...


@dataclass(frozen=True)
class PhaseImage:
    """A low-resolution image whose pixels are grouped by phase.

    Attributes:
        sizes: spatial sizes of one phase, None if dynamic.
        stride: phases per axis.
        dtype: element type.
        batch: N, None if dynamic.
        last: the polyphase form of each axis of the Conv that ends the region, if one does.
        name: what errors call the region.
        phased: a tensor ``[N, .., m_1 .. m_n]``, once it is written.
    """

    sizes: tuple[int | None, ...]
    stride: tuple[int, ...]
    dtype: str
    batch: int | None
    last: tuple[Polyphase, ...]
    name: str
    phased: gs.Tensor | None = None

    @property
    def rank(self) -> int:
        return len(self.stride)

    @property
    def phases(self) -> int:
        return prod(self.stride)

    @property
    def spatial(self) -> list[int | None]:
        """The spatial sizes of ``[N, C, P * m_1, m_2 .. m_n]``."""
        first, *others = self.sizes
        return [None if first is None else first * self.phases, *others]

    def on_pixels(self, emitter: Emitter, phased: gs.Tensor, channels: int) -> gs.Tensor:
        """Reshape phases to rows: ``[N, C * P, m_1, ..]`` to ``[N, C, P * m_1, ..]``."""
        return self._reshaped(emitter, phased, channels, self.spatial[0], phased, self.phases)

    def stacked(self, emitter: Emitter, image: gs.Tensor, channels: int) -> gs.Tensor:
        """Reshape phases to channels: ``[N, C, P * m_1, ..]`` to ``[N, C * P, m_1, ..]``."""
        assert self.phased is not None
        return self._reshaped(emitter, image, channels, self.sizes[0], self.phased, 1)

    def _reshaped(
        self,
        emitter: Emitter,
        image: gs.Tensor,
        channels: int,
        first: int | None,
        measured: gs.Tensor,
        factor: int,
    ) -> gs.Tensor:
        """Move the phases between the channels and the first spatial axis.

        If its new size ``first`` is unknown, it is that of ``measured`` times ``factor``.
        """
        # A 0 keeps the size at its place, whatever it is.
        others = (0,) * (self.rank - 1)
        if first is None and not self.batch:
            factors, added = [0, 0, factor, *others], [0, channels, 0, *others]
            return emitter.reshape_by(image, measured, factors, added)
        size = -1 if first is None else first
        return emitter.reshape(image, [0, channels, size, *others])

    def product(
        self, emitter: Emitter, matrix: gs.Tensor, image: gs.Tensor, rows: int, channels: int
    ) -> gs.Tensor:
        """``matrix``, ``[T, C]`` or ``[N, T, C]``, times ``image``, ``[N, C, P * m_1, ..]``."""
        if self.rank == 1:
            return emitter.add("MatMul", [matrix, image])
        known = [size for size in self.spatial if size is not None]
        if len(known) == self.rank:
            flat = emitter.reshape(image, [0, 0, prod(known)])
            return emitter.reshape(emitter.add("MatMul", [matrix, flat]), [0, rows, *known])
        made = emitter.add("MatMul", [matrix, emitter.flatten_pixels(image, channels)])
        return emitter.reshape(made, [0, rows, emitter.spatial_shape(image)])
