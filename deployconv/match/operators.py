"""The operators of a layer with their parameters, for rules such as "the DLA takes no group"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from deployconv.match.attributes import ConvAttributes, Geometry
    from deployconv.polyphase import Axis

Pads = tuple[tuple[int, int], ...]
"""(begin, end) of each spatial axis."""

Ranked = tuple[tuple[str, int | None], ...]
"""Names of operators, each with the dimensions of its largest tensor, None if not known."""


@dataclass(frozen=True)
class Window:
    """The parameters of a Conv or ConvTranspose, one value per spatial axis.

    Attributes:
        transposed: True for ConvTranspose.
        kernel, stride, dilation: as the node states them.
        pads: of a ConvTranspose less its output_padding at the end, so that a negative number
            adds a border; None if not known.
        group: number of channel groups.
        channels: (C_in, C_out).
        dtype: element type of the weight, of its integers if it is quantized; None if not known.
    """

    transposed: bool
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Pads | None
    group: int
    channels: tuple[int, int]
    dtype: str | None


@dataclass(frozen=True)
class Operators:
    """The operators that compute a layer, as far as they are known.

    Attributes:
        window: the Conv or ConvTranspose; None if there is none or its kernel is not known.
        others: all other operators but those of ``prelude`` and ``resize``.
        dtype: element type, needed without ``window`` only.
        resize: the factors of a nearest Resize.
        pointwise_before: operators before the upsampling that run at low resolution.
        sizes: spatial sizes of input and output, as far as they are known.
        channels_to_batch: True if every channel becomes a batch element of its own first.
    """

    window: Window | None
    others: Ranked
    dtype: str | None = None
    resize: tuple[int, ...] | None = None
    pointwise_before: Ranked = ()
    sizes: tuple[int | None, ...] = ()
    channels_to_batch: bool = False


def ranked(nodes: Iterable[gs.Node]) -> Ranked:
    """The operator of each node with the dimensions of its largest tensor."""
    found = []
    for node in nodes:
        tensors = (*node.inputs[:1], *node.outputs)
        ranks = [len(tensor.shape) for tensor in tensors if tensor.shape is not None]
        found.append((str(node.op), max(ranks, default=None)))
    return tuple(found)


def stated_pads(node: gs.Node) -> Pads | None:
    """The pads of ``node`` if it states them as numbers."""
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    pads = node.attrs.get("pads")
    if not isinstance(pads, (list, tuple)):
        return None
    half = len(pads) // 2
    return tuple(zip(pads[:half], pads[half:], strict=True))


def transposed_pads(axis: Axis) -> tuple[int, int]:
    """What a ConvTranspose cuts off at the beginning, and at the end less its output_padding."""
    extent = abs(axis.step) * (axis.taps - 1) + 1
    return axis.origin, extent - axis.stride - axis.origin - axis.extra


def conv_window(
    node: gs.Node, attributes: ConvAttributes, channels: tuple[int, int], dtype: str
) -> Window:
    """The parameters of a Conv with these (C_in, C_out) and this element type of its weight."""
    return Window(
        transposed=False,
        kernel=attributes.kernel,
        stride=attributes.strides,
        dilation=attributes.dilations,
        pads=stated_pads(node),
        group=attributes.group,
        channels=channels,
        dtype=dtype,
    )


def stated_operators(
    nodes: Sequence[gs.Node], geometry: Geometry | None, dtype: str | None
) -> Operators:
    """The operators of a layer that ends in the last of ``nodes``, as far as these state them.

    The channels are taken as (1, 1).
    """
    last = nodes[-1]
    if geometry is None or geometry.kernel is None:
        return Operators(None, ranked(nodes), dtype)
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
        dtype=dtype,
    )
    return Operators(window, ranked(nodes[:-1]))
