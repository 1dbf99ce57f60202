"""Run layers of a network on shapes whose sizes are polynomials in the open sizes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from deployconv.graph.symbolic.known import Call, Known, Unproven, extents, filled, joined, number
from deployconv.graph.symbolic.size import Size

_ZERO, _ONE = Size.of(0), Size.of(1)
UNARY = frozenset(
    [
        "Abs",
        "Celu",
        "Ceil",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
        "ThresholdedRelu",
    ]
)
"""Operators that compute each element from one element, and have no other input."""
_KEEP_SHAPE = UNARY | {
    "BatchNormalization",
    "Clip",
    "Dropout",
    "GroupNormalization",
    "Hardmax",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
    "LogSoftmax",
    "LpNormalization",
    "MeanVarianceNormalization",
    "Softmax",
}
"""Operators whose first output has the shape of their first input."""


def _depth_to_space(call: Call) -> Known:
    batch, channels, *sizes = call.given(0).shape
    block = Size.of(call.attributes["blocksize"])
    left = channels.divided(block * block)
    if left is None or left.denominator != 1:
        raise Unproven
    return Known((batch, left, *(size * block for size in sizes)))


def _einsum(call: Call) -> Known:
    operands, result = call.attributes["equation"].decode().replace(" ", "").split("->")
    sizes: dict[str, Size] = {}
    for letters, known in zip(operands.split(","), call.all(), strict=True):
        for letter, size in zip(letters, known.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise Unproven
    return Known(tuple(sizes[letter] for letter in result))


def _window(call: Call) -> Known:
    """Conv and pooling: ``(size + pads - reach) / stride + 1``, rounded down."""
    x = call.given(0)
    kernel, channels = call.attributes.get("kernel_shape"), x.shape[1]
    if call.op == "Conv":
        channels, _, *taps = call.given(1).shape
        kernel = [number(size) for size in taps]
    same = call.attributes.get("auto_pad", b"").startswith(b"SAME")
    if same and set(call.attributes.get("strides", [1])) == {1}:
        return Known((x.shape[0], channels, *x.shape[2:]), None, whole=False)
    if kernel is None:
        raise Unproven
    shape = [x.shape[0], channels]
    for size, taps, axis in zip(x.shape[2:], kernel, _axes(call), strict=True):
        extent = size + Size.of(axis.pads - axis.reach(taps))
        steps = (extent * Size.of(Fraction(1, axis.stride))).floored()
        if steps is None or (call.attributes.get("ceil_mode") and axis.stride > 1):
            raise Unproven
        shape.append(steps + _ONE)
    return Known(tuple(shape), None, whole=False)


def _conv_transpose(call: Call) -> Known:
    """ConvTranspose: ``stride * (size - 1) + reach - pads + output_padding``."""
    x, (_, channels, *kernel) = call.given(0), call.given(1).shape
    if call.attributes.get("output_shape"):
        raise Unproven
    shape = [x.shape[0], channels * Size.of(call.attributes.get("group", 1))]
    extra = call.attributes.get("output_padding", [0] * len(kernel))
    for size, taps, axis, more in zip(x.shape[2:], kernel, _axes(call), extra, strict=True):
        tail = more + axis.reach(number(taps)) - axis.stride - axis.pads
        shape.append(size * Size.of(axis.stride) + Size.of(tail))
    return Known(extents(shape, 0))


class _Axis(NamedTuple):
    """Attributes of a Conv, ConvTranspose or pooling along one axis; ``pads`` of both ends."""

    stride: int
    dilation: int
    pads: int

    def reach(self, taps: int) -> int:
        """The number of inputs from the first to the last tap."""
        return self.dilation * (taps - 1) + 1


def _axes(call: Call) -> list[_Axis]:
    """The attributes along each spatial axis; Unproven if the padding follows from the size."""
    if call.attributes.get("auto_pad", b"NOTSET") not in (b"", b"NOTSET", b"VALID"):
        raise Unproven
    rank = len(call.given(0).shape) - 2
    strides = call.attributes.get("strides", [1] * rank)
    dilations = call.attributes.get("dilations", [1] * rank)
    pads = call.attributes.get("pads", [0] * 2 * rank)
    both = [begin + end for begin, end in zip(pads[:rank], pads[rank:], strict=True)]
    return [_Axis(*axis) for axis in zip(strides, dilations, both, strict=True)]


def _resize(call: Call) -> Known:
    x = call.given(0)
    if call.attributes.get("coordinate_transformation_mode") == b"align_corners":
        raise Unproven  # how often it repeats an element depends on the size
    rank = len(x.shape)
    axes = call.attributes.get("axes", range(rank))
    shape = list(x.shape)
    scales = 2 if call.op == "Resize" and len(call.inputs) > 2 else 1
    if call.has(3):
        keeps = call.attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
        if keeps and min(axes, default=0) < 0:
            raise Unproven  # onnxruntime ignores such axes
        ratios = set()
        for axis, size in zip(axes, call.given(3).sizes(), strict=True):
            ratio = size.divided(shape[axis])
            if ratio is None or ratio.constant is None:
                raise Unproven
            ratios.add(ratio)
            shape[axis] = size
        if len(ratios) > 1 and keeps:
            raise Unproven  # one ratio holds for all axes, and which depends on the sizes
    else:
        for axis, scale in zip(axes, call.sizes("scales", scales), strict=True):
            if scale.constant is None or scale.denominator != 1:
                raise Unproven
            shape[axis] = shape[axis] * scale
    return Known(tuple(shape), x.rule, x.whole)


def _pad(call: Call) -> Known:
    x = call.given(0)
    mode = call.attributes.get("mode", b"constant")
    if mode not in (b"constant", b"edge", b"reflect"):
        raise Unproven
    rank = len(x.shape)
    pads, axes = call.sizes("pads", 1), call.ints("axes", 3)
    axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    shape = list(x.shape)
    for position, axis in enumerate(axes):
        shape[axis] = shape[axis] + pads[position] + pads[position + len(axes)]
    value = call.given(2).rule if call.has(2) else filled((), _ZERO, x.whole).rule
    if call.attributes.get("value") or mode != b"constant":
        value = None
    return Known(extents(shape, 0), joined(x.rule, value), x.whole)


def _keep_shape(call: Call) -> Known:
    return Known(call.given(0).shape, None, whole=False)


OPERATORS: dict[str, Callable[[Call], Known]] = {
    **dict.fromkeys(_KEEP_SHAPE, _keep_shape),
    "AveragePool": _window,
    "Conv": _window,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Einsum": _einsum,
    "MaxPool": _window,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
}
