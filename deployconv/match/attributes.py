"""Read the attributes of convolution nodes, with their defaults; refuse invalid ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.errors import ModelError
from deployconv.graph.constants import Constant
from deployconv.graph.tensors import dtype_name, is_onnx
from deployconv.match.image_axes import AS_THEY_ARE, ImageAxes

_AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


class Held(Protocol):
    """A tensor of known type and shape, as weights and biases are."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


@dataclass(frozen=True)
class Geometry:
    """The attributes of the layer as its node states them, for reports."""

    stride: tuple[int, ...]
    kernel: tuple[int, ...] | None
    dilation: tuple[int, ...] | None
    group: int | None


@dataclass(frozen=True)
class ConvAttributes:
    """The attributes that Conv and ConvTranspose share, one value per spatial axis.

    ``pads`` has the beginnings of all axes, then the ends. They may be negative.
    """

    strides: tuple[int, ...]
    kernel: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str
    group: int

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def geometry(self) -> Geometry:
        """The attributes that reports show."""
        return Geometry(self.strides, self.kernel, self.dilations, self.group)

    @property
    def cropping(self) -> tuple[int, ...] | None:
        """By how much ``pads`` are below zero, in the same order; None if none is."""
        below = tuple(max(-pad, 0) for pad in self.pads)
        return below if any(below) else None

    @property
    def allowed_pads(self) -> tuple[int, ...]:
        """``pads`` with 0 for those below zero."""
        return tuple(max(pad, 0) for pad in self.pads)

    @property
    def explicit_pads(self) -> tuple[tuple[int, int], ...]:
        """Padding (begin, end) per axis of a Conv of stride 1; SAME_* keeps its input's size."""
        pairs = []
        for axis in range(self.rank):
            total = self.dilations[axis] * (self.kernel[axis] - 1)
            if self.auto_pad == "SAME_UPPER":
                pairs.append((total // 2, total - total // 2))
            elif self.auto_pad == "SAME_LOWER":
                pairs.append((total - total // 2, total // 2))
            else:
                pairs.append((self.pads[axis], self.pads[self.rank + axis]))
        return tuple(pairs)


_LARGEST = (1 << 31) - 1


class AttributeReader:
    """Reads the attributes of ``node``; errors name it as ``name``.

    ``inputs`` are attributes that the node has as inputs.
    """

    def __init__(
        self, node: gs.Node, name: str, inputs: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self._node = node
        self._name = name
        self._attributes = {**node.attrs, **(inputs or {})}

    def invalid(self, what: str) -> ModelError:
        """A ModelError which says ``what`` is wrong with the node."""
        return ModelError(f"{self._name}: {self._node.op} {what}: export the model again")

    def ints(self, attribute: str, count: int, default: int, least: int) -> tuple[int, ...]:
        """The ``count`` integers of ``attribute``, or ``default`` for each if it is not stated.

        Raises ModelError if one is below ``least`` or larger than any runtime can hold.
        """
        values = tuple(self._attributes.get(attribute, [default] * count))
        if len(values) != count:
            raise self.invalid(f"attribute '{attribute}' has {len(values)} values, not {count}")
        if min(values) < least:
            raise self.invalid(f"attribute '{attribute}' is {list(values)}, below {least}")
        if max(values) > _LARGEST:
            raise self.invalid(f"attribute '{attribute}' is {list(values)}, above {_LARGEST}")
        return values

    def conv(self, weight: Constant, grouped_axis: int) -> ConvAttributes:
        """The attributes that Conv and ConvTranspose share.

        ``grouped_axis`` is the axis of the weight that is divided among the groups. Raises
        ModelError for what no runtime could accept.
        """
        kernel = weight.shape[2:]
        rank = len(kernel)
        if rank < 1 or 0 in weight.shape:
            raise self.invalid(f"weight '{weight.name}' has shape {list(weight.shape)}")
        stated = self._attributes.get("kernel_shape")
        if stated is not None and self.ints("kernel_shape", rank, 1, 1) != kernel:
            raise self.invalid(f"attribute 'kernel_shape' is {stated}, its weight's {list(kernel)}")
        group = self._attributes.get("group", 1)
        channels = weight.shape[grouped_axis]
        if group < 1 or channels % group:
            raise self.invalid(f"attribute 'group' is {group} for {channels} channels")
        auto_pad = self._attributes.get("auto_pad", "NOTSET")
        if auto_pad not in _AUTO_PADS:
            known = ", ".join(_AUTO_PADS)
            raise self.invalid(f"attribute 'auto_pad' is '{auto_pad}', none of {known}")
        return ConvAttributes(
            self.ints("strides", rank, 1, 1),
            kernel,
            self.ints("dilations", rank, 1, 1),
            self.ints("pads", 2 * rank, 0, -_LARGEST),
            auto_pad,
            group,
        )

    def check_operands(
        self, x: gs.Tensor, weight: Constant, bias: Held | None, channels: tuple[int, int]
    ) -> None:
        """Check that input, weight and bias fit each other, before anything relies on it.

        ``channels`` are the (C_in, C_out) of the weight. Raises ModelError if they do not fit.
        """
        shape, rank = x.shape, len(weight.shape)
        if shape is not None and len(shape) != rank:
            raise self.invalid(
                f"input '{x.name}' has {len(shape)} dimensions where the weight '{weight.name}'"
                f" needs {rank}"
            )
        if shape is not None and isinstance(shape[1], int) and shape[1] != channels[0]:
            raise self.invalid(
                f"input '{x.name}' has {shape[1]} channels where the weight '{weight.name}' has"
                f" {channels[0]}"
            )
        dtype = dtype_name(x.dtype)
        if dtype is not None and dtype != weight.dtype.name:
            raise self.invalid(
                f"input '{x.name}' is {dtype} where the weight '{weight.name}' is"
                f" {weight.dtype.name}"
            )
        if bias is not None and (bias.shape != channels[1:] or bias.dtype != weight.dtype):
            raise self.invalid(
                f"bias '{bias.name}' is {bias.dtype.name}{list(bias.shape)} where the weight"
                f" '{weight.name}' needs {weight.dtype.name}[{channels[1]}]"
            )


def is_standard(node: gs.Node, *ops: str) -> bool:
    """Whether ``node`` is a standard ONNX operator, one of ``ops`` if any are named."""
    return is_onnx(node.domain) and (not ops or node.op in ops)


def has_references(node: gs.Node) -> bool:
    """Whether an attribute of ``node`` is a parameter of the function that it belongs to."""
    return any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values())


def batch_size(tensor: gs.Tensor, axes: ImageAxes = AS_THEY_ARE) -> int | None:
    """N of ``[N, C, i_1 .. i_n]``; None if it is dynamic or unknown.

    The ``axes`` say which axes of ``tensor`` these are.
    """
    size = axes.of_tensor(tensor.shape)[0] if tensor.shape else None
    return size if isinstance(size, int) else None


def spatial_sizes(
    tensor: gs.Tensor, rank: int, axes: ImageAxes = AS_THEY_ARE
) -> tuple[int | None, ...]:
    """The sizes ``i_1 .. i_n`` of ``[N, C, i_1 .. i_n]``; None for each dynamic or unknown one.

    The ``axes`` say which axes of ``tensor`` these are.
    """
    if tensor.shape is None:
        return (None,) * rank
    return tuple(
        size if isinstance(size, int) else None for size in axes.of_tensor(tensor.shape)[2:]
    )
