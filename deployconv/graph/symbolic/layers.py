"""Layers of a network, on what is known at all sizes: the shape of what they make."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from deployconv.graph.symbolic.known import Call, Known, Unproven, extents, filled, joined, number
from deployconv.graph.symbolic.size import Size

_ZERO, _ONE = Size.of(0), Size.of(1)
KEEP_SHAPE = frozenset(
    [
        "Abs",
        "BatchNormalization",
        "Celu",
        "Clip",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Hardmax",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Mish",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softmax",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
        "ThresholdedRelu",
    ]
)
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
    rank = len(x.shape) - 2
    kernel, channels = call.attributes.get("kernel_shape"), x.shape[1]
    if call.op == "Conv":
        channels, _, *taps = call.given(1).shape
        kernel = [number(size) for size in taps]
    padding = call.attributes.get("auto_pad", b"NOTSET")
    if kernel is None or padding not in (b"", b"NOTSET", b"VALID"):
        raise Unproven
    strides = call.attributes.get("strides", [1] * rank)
    dilations = call.attributes.get("dilations", [1] * rank)
    pads = call.attributes.get("pads", [0] * 2 * rank)
    shape = [x.shape[0], channels]
    for axis in range(rank):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        extent = x.shape[2 + axis] + Size.of(pads[axis] + pads[rank + axis] - reach)
        steps = (extent * Size.of(Fraction(1, strides[axis]))).floored()
        if steps is None or (call.attributes.get("ceil_mode") and strides[axis] > 1):
            raise Unproven
        shape.append(steps + _ONE)
    return Known(tuple(shape), None, whole=False)


def _conv_transpose(call: Call) -> Known:
    x, weight = call.given(0), call.given(1)
    if call.attributes.get("output_shape") or call.attributes.get("auto_pad", b"") not in (
        b"",
        b"NOTSET",
        b"VALID",
    ):
        raise Unproven
    rank = len(x.shape) - 2
    strides = call.attributes.get("strides", [1] * rank)
    dilations = call.attributes.get("dilations", [1] * rank)
    extra = call.attributes.get("output_padding", [0] * rank)
    pads = call.attributes.get("pads", [0] * 2 * rank)
    shape = [x.shape[0], weight.shape[1] * Size.of(call.attributes.get("group", 1))]
    for axis in range(rank):
        reach = dilations[axis] * (number(weight.shape[2 + axis]) - 1) + 1
        tail = extra[axis] + reach - strides[axis] - pads[axis] - pads[rank + axis]
        shape.append(x.shape[2 + axis] * Size.of(strides[axis]) + Size.of(tail))
    return Known(extents(shape, 0))


def _resize(call: Call) -> Known:
    x = call.given(0)
    if call.attributes.get("coordinate_transformation_mode") == b"align_corners":
        raise Unproven  # what it repeats depends on the size
    rank = len(x.shape)
    axes = call.attributes.get("axes", range(rank))
    shape = list(x.shape)
    scales = 2 if call.op == "Resize" and len(call.inputs) > 2 else 1
    if call.has(3):
        ratios = set()
        for axis, size in zip(axes, call.given(3).sizes(), strict=True):
            ratio = size.divided(shape[axis])
            if ratio is None or ratio.constant is None:
                raise Unproven
            ratios.add(ratio)
            shape[axis] = size
        if (
            len(ratios) > 1
            and call.attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
        ):
            raise Unproven  # one of them holds for all
    else:
        for axis, scale in zip(axes, call.sizes("scales", scales), strict=True):
            if scale.constant is None or scale.denominator != 1:
                raise Unproven
            shape[axis] = shape[axis] * scale
    return Known(tuple(shape), x.rule, x.whole)


def _pad(call: Call) -> Known:
    x = call.given(0)
    if call.attributes.get("mode", b"constant") != b"constant":
        raise Unproven
    rank = len(x.shape)
    pads, axes = call.sizes("pads", 1), call.ints("axes", 3)
    axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    shape = list(x.shape)
    for position, axis in enumerate(axes):
        shape[axis] = shape[axis] + pads[position] + pads[position + len(axes)]
    value = call.given(2).rule if call.has(2) else filled((), _ZERO, x.whole).rule
    if call.attributes.get("value"):
        value = None
    return Known(extents(shape, 0), joined(x.rule, value), x.whole)


OPERATORS: dict[str, Callable[[Call], Known]] = {
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
