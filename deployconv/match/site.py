"""What every recogniser speaks: one upsampling layer, ready to lower, or a reason why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from deployconv.match.operators import Operators, Window, ranked, stated_pads, transposed_pads
from deployconv.polyphase import Axis
from deployconv.results import Pattern, Reason

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from onnx import NodeProto

    from deployconv.graph.constants import Constant
    from deployconv.graph.view import Scope

Array = NDArray[Any]

ChannelOrder = Literal["CRD", "DCR"]

Skip = Reason
"""Why a node that looks like an upsampling layer is left alone."""


@dataclass(frozen=True)
class Quantized:
    """Integers behind a parameter: each of its values is ``(integer - zero_point) * scale``.

    Attributes:
        dtype: of the integers.
        read: gives them, in the layout of the parameter.
        scale: ``[]``, or ``[C_out]`` for one per output channel.
        zero_point: likewise, of ``dtype``; None for zero, where the model states none.
        group: of a ConvTranspose, whose weight is ``[C_in, C_out/group, ..]``; None where
            axis 0 has the output channels.
    """

    dtype: np.dtype[Any]
    read: Callable[[], Array]
    scale: Array
    zero_point: Array | None
    group: int | None

    def along(self, values: Array, shape: Sequence[int]) -> Array:
        """``values``, one or one per output channel, for a parameter of ``shape``."""
        if values.ndim == 0:
            return values
        rest = [1] * (len(shape) - 2)
        if self.group is None:
            return values.reshape(-1, *[1] * (len(shape) - 1))
        per_group = values.reshape(self.group, 1, -1)
        repeated = np.repeat(per_group, shape[0] // self.group, axis=1)
        return repeated.reshape(shape[0], -1, *rest)


@dataclass(frozen=True)
class Parameter:
    """A weight or bias: the tensor that holds it and how to read its values.

    ``quantized`` has the integers where DequantizeLinear makes the values of such. ``scaled`` has a
    weight without the factors that layers behind it have given it, and these: float64, one for
    each output channel or one for all.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array]
    quantized: Quantized | None = None
    scaled: tuple[Parameter, Array] | None = None

    @property
    def stored(self) -> np.dtype[Any]:
        """The element type of what the model holds: the integers where there are such."""
        return self.dtype if self.quantized is None else self.quantized.dtype

    @classmethod
    def of(cls, constant: Constant) -> Parameter:
        """The parameter that ``constant`` holds."""
        return cls(constant.name, constant.shape, constant.dtype, constant.read)


@dataclass(frozen=True)
class Geometry:
    """The layer as its node states it, for reports."""

    stride: tuple[int, ...]
    kernel: tuple[int, ...] | None
    dilation: tuple[int, ...] | None
    group: int | None


@dataclass(frozen=True, eq=False)
class Pointwise:
    """Layers that treat all positions alike, from one tensor to another, in graph order."""

    nodes: tuple[gs.Node, ...]
    source: str
    target: str


@dataclass(frozen=True)
class Original:
    """The nodes of a site as they stand in the model, runnable by themselves.

    Attributes:
        nodes: from the site's input to its output.
        constants: what they read besides the input, the weight and the bias.
        sizes: the input's spatial sizes where the nodes fit no other; None where any do.
        front: likewise its batch size and channels.
    """

    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, Array]
    sizes: tuple[int, ...] | None = None
    front: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class UpsampleSite:
    """One upsampling layer: the nodes that it replaces and what they compute.

    Attributes:
        nodes: the nodes that make it up, in graph order; the last one makes ``output``.
        input: name of the low-resolution tensor, ``[N, C_in, i_1 .. i_n]``.
        output: name of the result, ``[N, C_out, o_1 .. o_n]``.
        axes: per spatial axis, which input a tap reads.
        weight: the kernel; ``transposed`` tells its layout, ``[C_in, C_out/group, ...]`` where
            True, ``[C_out, C_in/group, ...]`` where False.
        bias: ``[C_out]`` or None.
        sizes: the input's spatial sizes where they follow from the model's inputs, else None.
        original: gives the nodes as they stand, for the certificate.
        prelude: pointwise layers that stand between the upsampling and the Conv, and will run
            on the low-resolution input instead.
        folded: True where every channel becomes a batch element of its own first.
        repeats: True where every output pixel of a block is the same, so that the Conv can
            run before the pixels are repeated.
        requantize: True where the caller allows new scales for an integer weight whose taps
            have to be added.
        explicit_attributes: for a node that stays, attributes that say the same as those it
            has, in the form that every runtime reads alike; None where nothing needs saying.
        trims, folds: the Slices and affine layers at the end of ``nodes``, which have become
            part of the axes, of the weight and the bias.
    """

    id: str
    pattern: Pattern
    scope: Scope
    nodes: tuple[gs.Node, ...]
    input: str
    output: str
    axes: tuple[Axis, ...]
    geometry: Geometry
    weight: Parameter
    transposed: bool
    bias: Parameter | None
    sizes: tuple[int | None, ...]
    original: Callable[[], Original]
    prelude: tuple[Pointwise, ...] = ()
    folded: bool = False
    repeats: bool = False
    explicit_attributes: dict[str, Any] | None = None
    requantize: bool = False
    trims: tuple[gs.Node, ...] = ()
    folds: tuple[gs.Node, ...] = ()

    @property
    def layer(self) -> gs.Node:
        """The node that multiplies."""
        return self.nodes[-1 - len(self.trims) - len(self.folds)]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.axes)

    @property
    def group(self) -> int:
        """Number of channel groups."""
        return self.geometry.group or 1

    @property
    def channels(self) -> tuple[int, int]:
        """(C_in, C_out)."""
        first, second = self.weight.shape[:2]
        if self.transposed:
            return first, second * self.group
        return second * self.group, first

    @property
    def stride(self) -> tuple[int, ...]:
        """Upsampling factor of each spatial axis."""
        return tuple(axis.stride for axis in self.axes)

    @property
    def phases(self) -> int:
        """Number of phases over all axes."""
        return prod(self.stride)

    @property
    def conv_transpose(self) -> UpsampleSite | None:
        """The site itself if its layer is a ConvTranspose; None otherwise."""
        return self if self.pattern == "conv_transpose" else None

    @property
    def operators(self) -> Operators:
        """The operators of the layer as it stands in the model."""
        transposed = self.pattern == "conv_transpose"
        resized = self.pattern == "nearest_resize" and any(
            node.op in ("Resize", "Upsample") for node in self.nodes
        )
        return Operators(
            Window(
                transposed=transposed,
                kernel=tuple(axis.taps for axis in self.axes),
                stride=self.stride if transposed else (1,) * self.rank,
                dilation=tuple(abs(axis.step) for axis in self.axes),
                pads=(
                    tuple(map(transposed_pads, self.axes))
                    if transposed
                    else stated_pads(self.layer)
                ),
                group=self.group,
                channels=self.channels,
                dtype=self.weight.stored.name,
            ),
            others=ranked(self.nodes[:-1]),
            resize=self.stride if resized else None,
            sizes=self.known_sizes,
        )

    @property
    def known_sizes(self) -> tuple[int | None, ...]:
        """The input's spatial sizes, None if not known, and those of the output that are."""
        known = [(axis, size) for axis, size in zip(self.axes, self.sizes, strict=True) if size]
        return (*self.sizes, *(axis.output_size(size) for axis, size in known))

    def phased(self, values: Array, copies: int) -> Array:
        """What belongs to a channel belongs to each of its phases: ``[C, copies]``."""
        return np.repeat(values.reshape(-1, 1), copies, axis=1)

    def kernel(self, values: Array) -> Array:
        """``values`` of the weight in correlation layout ``[C_out, C_in/group, k_1 .. k_n]``."""
        if not self.transposed:
            return values
        c_in, c_out_per_group, *taps = values.shape
        grouped = values.reshape(self.group, c_in // self.group, c_out_per_group, *taps)
        swapped = grouped.swapaxes(1, 2)
        return swapped.reshape(self.group * c_out_per_group, c_in // self.group, *taps)


@dataclass(frozen=True, eq=False)
class ConvInFront:
    """The Conv whose output channels a pixel shuffle moves into space, for nothing else.

    ``original`` gives it and the shuffle as they stand. ``layer`` is the Conv by itself, as one
    of stride 1; None where its own stride or dilation is not 1.
    """

    node: gs.Node
    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    group: int
    weight: Parameter
    bias: Parameter | None
    original: Callable[[], Original]
    layer: UpsampleSite | None

    @property
    def window(self) -> Window:
        """The parameters of the Conv."""
        outputs, inputs = self.weight.shape[:2]
        return Window(
            transposed=False,
            kernel=self.kernel,
            stride=tuple(self.node.attrs.get("strides", (1,) * len(self.kernel))),
            dilation=self.dilation,
            pads=stated_pads(self.node),
            group=self.group,
            channels=(inputs * self.group, outputs),
            dtype=self.weight.stored.name,
        )


@dataclass(frozen=True, eq=False)
class ShuffleSite:
    """A pixel shuffle, and the Conv in front of it if there is one of its own.

    Attributes:
        nodes: the Conv if any, and the nodes of the shuffle; the last one makes ``output``.
        source: name of the tensor that is shuffled, ``[N, C * s_1 * .. * s_n, i_1 .. i_n]``.
        output: name of the result, ``[N, C, s_1 * i_1 .. s_n * i_n]``.
        stride: ``s_1 .. s_n``.
        order: which runs fastest in the channels: the phase (CRD) or the channel (DCR).
        channels: ``C * s_1 * .. * s_n``, None where unknown.
        sizes: spatial sizes of ``source`` where they follow from the model's inputs.
        spelled: True for several nodes, False for one DepthToSpace.
        conv: the Conv in front.
        original: gives the nodes of the shuffle as they stand, for the certificate.
        behind: the same, with sizes and front of a tensor somewhere in front of ``source``; None
            where these are not known.
    """

    id: str
    pattern: Pattern
    scope: Scope
    nodes: tuple[gs.Node, ...]
    source: str
    output: str
    geometry: Geometry
    stride: tuple[int, ...]
    order: ChannelOrder
    dtype: str | None
    channels: int | None
    sizes: tuple[int | None, ...]
    spelled: bool
    conv: ConvInFront | None
    original: Callable[[], Original]
    behind: Callable[[gs.Tensor], Original | None]

    @property
    def layer(self) -> gs.Node:
        """The node that the site ends in."""
        return self.nodes[-1]

    @property
    def conv_transpose(self) -> UpsampleSite | None:
        """None: the layer is no ConvTranspose."""
        return None

    @property
    def operators(self) -> Operators:
        """The operators of the shuffle and its Conv as they stand in the model."""
        if self.conv is None:
            return Operators(None, ranked(self.nodes), self.dtype)
        return Operators(self.conv.window, ranked(self.nodes[1:]))


@dataclass(frozen=True, eq=False)
class SkippedSite:
    """A node that looks like an upsampling layer and cannot be rewritten exactly."""

    id: str
    pattern: Pattern
    scope: Scope
    nodes: tuple[gs.Node, ...]
    geometry: Geometry | None
    dtype: str | None
    reason: Skip

    @property
    def layer(self) -> gs.Node:
        """The node that the site ends in."""
        return self.nodes[-1]

    @property
    def conv_transpose(self) -> UpsampleSite | None:
        """None: what the layer computes is not known."""
        return None

    @property
    def operators(self) -> Operators:
        """The operators as far as the nodes state them: the channels are taken as (1, 1)."""
        geometry, last = self.geometry, self.nodes[-1]
        if geometry is None or geometry.kernel is None:
            return Operators(None, ranked(self.nodes), self.dtype)
        ones = (1,) * len(geometry.kernel)
        transposed = last.op == "ConvTranspose"
        pads = stated_pads(last)
        if transposed and any(last.attrs.get("output_padding", ())):
            stated = pads or ((0, 0),) * len(geometry.kernel)
            added = last.attrs["output_padding"]
            pads = tuple((b, e - more) for (b, e), more in zip(stated, added, strict=False))
        window = Window(
            transposed=transposed,
            kernel=geometry.kernel,
            stride=geometry.stride if transposed else ones,
            dilation=geometry.dilation or ones,
            pads=pads,
            group=geometry.group or 1,
            channels=(1, 1),
            dtype=self.dtype,
        )
        return Operators(window, ranked(self.nodes[:-1]))


Site = UpsampleSite | ShuffleSite | SkippedSite
