"""An upsampling layer that was found in a model, and what all layers found have in common.

The other layers that are found are in `shuffle_site`, `resample_site` and `concat_site`; those that
cannot be rewritten are in `recogniser`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from deployconv.match.attributes import Geometry
from deployconv.match.image_axes import AS_THEY_ARE, ImageAxes
from deployconv.match.operators import Operators, Window, ranked, stated_pads, transposed_pads
from deployconv.polyphase import Axis
from deployconv.restrictions import UNRESTRICTED, Restrictions
from deployconv.results import Pattern, Reason

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from onnx import NodeProto

    from deployconv.graph.constants import Constant
    from deployconv.graph.scope import Scope
    from deployconv.match.weights import Parameter

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Pointwise:
    """Layers that do the same at every position, from one tensor to another, in graph order.

    Attributes:
        nodes: the layers.
        source: what the first one reads.
        target: what the last one makes.
        reshaped: constants that need another shape where the layers will run, by name, with it.
    """

    nodes: tuple[gs.Node, ...]
    source: str
    target: str
    reshaped: Mapping[str, Constant] = field(default_factory=dict)


@dataclass(frozen=True)
class Original:
    """The nodes of a site as the model has them, with what is needed to run them alone.

    Attributes:
        nodes: from the site's input to its output.
        constants: what they read besides the input, the weight and the bias.
        sizes: the input's spatial sizes if the nodes run with no others, else None.
        batch_and_channels: those of the input if the nodes run with no others, else None.
    """

    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, Array]
    sizes: tuple[int, ...] | None = None
    batch_and_channels: tuple[int, int] | None = None


class AxisMove(NamedTuple):
    """A Transpose, Squeeze or Unsqueeze: its operator, and its permutation or axes."""

    op: str
    axes: tuple[int, ...]


class Absorbed(Protocol):
    """A layer after an upsampling layer that becomes part of it, as a crop or a scale does."""

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """Its nodes, in graph order."""

    @property
    def crops(self) -> bool:
        """True if it removes elements, False if it changes the weights."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BaseSite:
    """What all types of sites have.

    Attributes:
        id: the path of the scope and the label of the node that the site ends in.
        pattern: the kind of layer.
        scope: the graph that the nodes are in.
        nodes: the nodes that make up the layer, in graph order.
        reason: why it cannot be rewritten; None if it can.
        unless_faster: why it stays as it is under a policy that does not ask what is faster;
            None for a layer that is rewritten whenever it can be.
        explicit_attributes: for a node that stays, attributes with the same meaning as those it
            has, in the form that every runtime reads alike; None if none are needed.
        restrictions: what may be written in its place.
    """

    id: str
    pattern: Pattern
    scope: Scope
    nodes: tuple[gs.Node, ...]
    reason: Reason | None = None
    unless_faster: Reason | None = None
    explicit_attributes: dict[str, Any] | None = None
    restrictions: Restrictions = UNRESTRICTED

    @property
    def layer(self) -> gs.Node:
        """The node that the site is named after."""
        return self.nodes[-1]

    @property
    def has_integer_weight(self) -> bool:
        """Whether DequantizeLinear makes the weight of integers, as far as this is known."""
        return False

    @property
    def conv_transpose(self) -> UpsampleSite | None:
        """The site itself if its layer is a ConvTranspose; None otherwise."""
        return None


@dataclass(frozen=True, eq=False, kw_only=True)
class UpsampleSite(BaseSite):
    """One upsampling layer: the nodes that it replaces and what they compute.

    Attributes:
        input: name of the low-resolution tensor, ``[N, C_in, i_1 .. i_n]`` or the same in other
            ``input_axes``.
        output: name of the result, ``[N, C_out, o_1 .. o_n]`` before ``tail``.
        axes: per spatial axis, which input a tap reads.
        weight: the kernel, ``[C_in, C_out/group, ...]`` if ``transposed``, else
            ``[C_out, C_in/group, ...]``.
        transposed: True for a ConvTranspose, False for a Conv.
        bias: ``[C_out]`` or None.
        batch: N of the input; None if it does not follow from the model, and so may be 0.
        sizes: the input's spatial sizes; None for each that does not follow from the model.
        original: returns the nodes as the model has them, for the certificate.
        pointwise_before: pointwise layers between the upsampling and the Conv, which will run
            on the low-resolution input instead.
        input_axes: which axes of the input are batch, channels and spatial axes.
        channels_in_batch: True if every channel becomes a batch element of its own first.
        repeats: True if every output pixel of a block is the same, so that the Conv can run
            before the pixels are repeated.
        requantize: True if the caller allows new scales for an integer weight whose taps have
            to be added.
        dequantized: True if integers of the weight have become floats, as the caller allows.
        channel_group: number of channel groups if the kernel has zeros between more groups than
            the node states; None if it does not.
        stored: makes the weight of the node of ``weight``, if the node has it in another layout;
            None if it has it as it is.
        absorbed: the layers at the end of ``nodes`` that have become part of the axes, of the
            weight and of the bias.
        tail: what arranges the axes of the result anew; only a bias may follow it.
        base: this layer without what it absorbed; None if that is nothing.
    """

    input: str
    output: str
    axes: tuple[Axis, ...]
    geometry: Geometry
    weight: Parameter
    transposed: bool
    bias: Parameter | None
    batch: int | None
    sizes: tuple[int | None, ...]
    original: Callable[[], Original]
    pointwise_before: tuple[Pointwise, ...] = ()
    input_axes: ImageAxes = AS_THEY_ARE
    channels_in_batch: bool = False
    repeats: bool = False
    requantize: bool = False
    dequantized: bool = False
    channel_group: int | None = None
    stored: Callable[[Array], Array] | None = None
    absorbed: tuple[Absorbed, ...] = ()
    tail: tuple[AxisMove, ...] = ()
    base: UpsampleSite | None = None

    @property
    def layer(self) -> gs.Node:
        """The Conv or ConvTranspose."""
        absorbed = sum(len(layer.nodes) for layer in self.absorbed)
        return self.nodes[-1 - absorbed]

    @property
    def dtype(self) -> str:
        """Element type of the weight as the model holds it: an integer type if quantized."""
        return self.weight.stored.name

    @property
    def has_integer_weight(self) -> bool:
        """Whether DequantizeLinear makes the weight of integers."""
        return self.weight.quantized is not None

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.axes)

    @property
    def group(self) -> int:
        """Number of channel groups."""
        return self.channel_group or self.geometry.group or 1

    @property
    def channels(self) -> tuple[int, int]:
        """(C_in, C_out)."""
        first, second = self.weight.shape[:2]
        if self.transposed:
            return first, second * self.group
        return second * self.group, first

    def input_shape(self, original: Original, sizes: Sequence[int]) -> tuple[int, ...]:
        """A shape of the input with the spatial ``sizes``, in which ``original`` runs."""
        return self.input_axes.to_tensor(
            (*(original.batch_and_channels or (2, self.channels[0])), *sizes)
        )

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
        return self if self.layer.op == "ConvTranspose" else None

    @property
    def operators(self) -> Operators:
        """The operators of the layer as it stands in the model."""
        return _layer_operators(self)

    @property
    def known_sizes(self) -> tuple[int | None, ...]:
        """The input's spatial sizes, None if not known, and those of the output that are."""
        known = [(axis, size) for axis, size in zip(self.axes, self.sizes, strict=True) if size]
        return (*self.sizes, *(axis.output_size(size) for axis, size in known))

    def phased(self, values: Array, copies: int) -> Array:
        """The value of each phase of each channel, ``[C, copies]``, from those of the bias."""
        return np.repeat(values.reshape(-1, 1), copies, axis=1)

    def kernel(self, values: Array) -> Array:
        """``values`` of the weight in correlation layout ``[C_out, C_in/group, k_1 .. k_n]``."""
        if not self.transposed:
            return values
        c_in, c_out_per_group, *taps = values.shape
        grouped = values.reshape(self.group, c_in // self.group, c_out_per_group, *taps)
        swapped = grouped.swapaxes(1, 2)
        return swapped.reshape(self.group * c_out_per_group, c_in // self.group, *taps)


def _layer_operators(site: UpsampleSite) -> Operators:
    """The operators of an upsampling layer as it stands in the model."""
    if site.layer.op == "Col2Im":
        return Operators(None, ranked(site.nodes), site.dtype)
    transposed = site.pattern == "conv_transpose"
    is_resize = any(node.op in ("Resize", "Upsample") for node in site.nodes)
    window = Window(
        transposed=transposed,
        kernel=tuple(axis.taps for axis in site.axes),
        stride=site.stride if transposed else (1,) * site.rank,
        dilation=tuple(abs(axis.step) for axis in site.axes),
        pads=tuple(map(transposed_pads, site.axes)) if transposed else stated_pads(site.layer),
        group=site.geometry.group or 1,
        channels=site.channels,
        dtype=site.dtype,
    )
    return Operators(
        window,
        others=ranked(site.nodes[:-1]),
        resize=site.stride if site.pattern == "nearest_resize" and is_resize else None,
        sizes=site.known_sizes,
    )
