"""A pixel shuffle that was found in a model, with the Conv before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployconv.match.attributes import ConvAttributes, Geometry
from deployconv.match.operators import Operators, Window, conv_window, ranked
from deployconv.match.site import BaseSite, Original, UpsampleSite
from deployconv.restrictions import ChannelOrder

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from deployconv.match.weights import Parameter


@dataclass(frozen=True, eq=False)
class ConvBefore:
    """The Conv before a pixel shuffle, if nothing but the shuffle reads its output.

    Attributes:
        original: returns the Conv and the shuffle as the model has them.
        layer: the Conv alone, as an upsampling layer of stride 1; None if its own stride or
            dilation is not 1.
    """

    node: gs.Node
    attributes: ConvAttributes
    weight: Parameter
    bias: Parameter | None
    original: Callable[[], Original]
    layer: UpsampleSite | None

    @property
    def window(self) -> Window:
        """The parameters of the Conv, as an operator."""
        outputs, inputs = self.weight.shape[:2]
        channels = inputs * self.attributes.group, outputs
        return conv_window(self.node, self.attributes, channels, self.weight.stored.name)


@dataclass(frozen=True, eq=False, kw_only=True)
class ShuffleSite(BaseSite):
    """A pixel shuffle, and the Conv before it if nothing else reads that.

    Attributes:
        nodes: the Conv if any, and the nodes of the shuffle; the last one makes ``output``.
        source: name of the tensor that is shuffled, ``[N, C * s_1 * .. * s_n, i_1 .. i_n]``.
        output: name of the result, ``[N, C, s_1 * i_1 .. s_n * i_n]``.
        stride: ``s_1 .. s_n``.
        order: which runs fastest in the channels: the phase (CRD) or the channel (DCR).
        channel_map: the channel of ``source`` at each place of ``order``; None if that is the
            channel of the same number. There is a ``conv`` then.
        dtype: element type of ``source``, None if unknown.
        channels: ``C * s_1 * .. * s_n``, None if unknown.
        batch: N of ``source``; None if it does not follow from the model, and so may be 0.
        sizes: spatial sizes of ``source``; None for each that does not follow from the model.
        composite: True for several nodes, as Reshape and Transpose; False for a DepthToSpace.
        movable: False if the channels of ``source`` are its last axis: then it stays as it is.
        channels_last: True if ``output`` is ``[N, s_1 * i_1 .. s_n * i_n, C]``.
        conv: the Conv before the shuffle.
        original: returns the nodes of the shuffle as the model has them, for the certificate.
        original_from: returns the same nodes, with the sizes, batch and channels of a tensor
            somewhere before ``source``; None if these are not known.
    """

    source: str
    output: str
    geometry: Geometry
    stride: tuple[int, ...]
    order: ChannelOrder
    channel_map: tuple[int, ...] | None
    dtype: str | None
    channels: int | None
    batch: int | None
    sizes: tuple[int | None, ...]
    composite: bool
    movable: bool
    channels_last: bool
    conv: ConvBefore | None
    original: Callable[[], Original]
    original_from: Callable[[gs.Tensor], Original | None]

    @property
    def is_depth_to_space(self) -> bool:
        """Whether it does what a DepthToSpace does, and nothing more."""
        return self.movable and not self.channels_last and self.channel_map is None

    @property
    def operators(self) -> Operators:
        """The operators of the shuffle and its Conv as they stand in the model."""
        if self.conv is None:
            return Operators(None, ranked(self.nodes), self.dtype)
        return Operators(self.conv.window, ranked(self.nodes[1:]))
