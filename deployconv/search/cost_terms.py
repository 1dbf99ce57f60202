"""Count the work of single nodes, in units whose times `cost_table` has.

The work is that of onnxruntime's CPU kernels. There are two kinds of convolution. One works on
images whose channels are stored in blocks; it needs two spatial axes and a suitable number of
channels. The other writes the columns of a matrix (im2col) and multiplies. A ConvTranspose
multiplies first and then adds its columns up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import prod
from typing import Any, Literal

import onnx
from onnx import NodeProto

from deployconv.graph.shapes import Instance

Term = Literal[
    "launches",
    "forks",
    "blocked",
    "depthwise",
    "gemm",
    "gemm_calls",
    "read",
    "columns",
    "scattered",
    "scattered_nd",
    "integer",
    "integer_columns",
    "quantized",
    "integer_layout",
    "weights",
    "uncached",
    "reordered",
    "reordered_part",
    "pointwise",
    "transcendental",
    "prelu",
    "reduced",
    "reduced_pages",
    "copied",
    "repeated",
    "repeated_blocks",
    "linear",
    "linear_blocks",
    "cubic",
    "antialiased",
    "depth_to_space",
    "depth_to_space_runs",
    "col2im",
    "col2im_pairs",
    "col2im_rows",
    "col2im_nd",
    "transposed",
    "transposed_axis",
    "transposed_rows",
]
"""Kinds of work; multiplications and elements are counted in millions.

- ``launches``: nodes, one by one; ``forks``: nodes that wake other threads; ``gemm_calls``:
  matrix multiplications, in thousands; ``read``: elements of the second matrix of a MatMul.
- ``blocked``: multiplications of a blocked Conv, its channels filled up to whole blocks.
- ``depthwise``: multiplications of a blocked Conv with one channel per group.
- ``gemm``: multiplications of the others; ``columns``: elements that im2col writes;
  ``scattered``: elements that a 2-D ConvTranspose adds up, ``_nd`` for one that is not 2-D.
- ``integer``: multiplications of a Conv between DequantizeLinear and QuantizeLinear, with its
  ``integer_columns``; ``quantized``: elements of such nodes that are not part of a Conv;
  ``integer_layout``: integers moved from channels first to channels last or back.
- ``weights``: elements of the weight, which count if the image is small.
- ``uncached``: elements, counted elsewhere too, beyond what a cache holds of one tensor.
- ``reordered``: elements brought into blocks or out of them; ``_part`` if the last block is not
  full.
- ``pointwise``, ``transcendental``: elements of such layers; ``reduced``: elements that a
  reduction reads, along any axis but the last, ``_pages`` if what it adds up lies whole pages of
  memory apart, which a cache holds little of.
- ``copied``: elements of whatever else moves data; ``repeated``: elements that a nearest Resize
  makes, ``_blocks`` if the channels stay in blocks; ``linear``, ``cubic``: elements that such a
  Resize makes, ``_blocks`` as before; ``antialiased``: elements that one with antialias reads and
  makes.
- the rest: elements that a shuffle moves, one term for each way to do it.
"""

Work = dict[Term, float]

_MILLION = 1e6
FUSED = frozenset({"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
"""Activations that the Conv before them applies."""
FOLDED = frozenset({"Add", "BatchNormalization", "Mul"})
"""Layers that become part of the weights of a Conv, if their other inputs are constant."""
_TERMS: Mapping[str, Term] = {
    **dict.fromkeys(
        (
            *("Abs", "Add", "BatchNormalization", "Cast", "Clip", "Div", "HardSigmoid"),
            *("HardSwish", "LeakyRelu", "Max", "Min", "Mul", "Neg", "Relu", "Sub", "Where"),
        ),
        "pointwise",
    ),
    **dict.fromkeys(
        (
            *("Celu", "Elu", "Erf", "Exp", "Gelu", "Log", "Mish", "Pow", "Selu", "Sigmoid"),
            *("Softplus", "Sqrt", "Tanh"),
        ),
        "transcendental",
    ),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), "quantized"),
    "PRelu": "prelu",
}
"""The term of each operator whose work is the number of elements that it makes."""
_FREE = frozenset(
    (
        *("Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze"),
        "Unsqueeze",
    )
)
_CACHED = 1.0
"""Millions of elements of a tensor that a cache holds."""
_SHARED = 0.2
"""Millions of multiplications from which on threads share a MatMul."""
_UNSHARED = 0.13
"""What a smaller MatMul takes in addition, as a part of the time to wake threads."""
_PAGE = 1024
"""Elements of a page of memory."""
_ALIGNED = 4
"""The number of channels must be a multiple of this to be stored in blocks."""


def work_of(node: NodeProto, shapes: Instance, block: int) -> Work | None:
    """The work of one node by itself; None if a shape that it depends on is not known.

    Args:
        node: the node.
        shapes: of all tensors of its graph.
        block: channels in a block; 0 if no Conv works on blocks.
    """
    if node.op_type in _FREE:
        return {}
    try:
        return {"launches": 1.0, **_work(node, shapes, block)}
    except KeyError:
        return None


def _work(node: NodeProto, shapes: Instance, block: int) -> Work:
    if node.op_type == "Conv":
        return _conv(node, shapes, block)
    if node.op_type == "ConvTranspose":
        return _conv_transpose(node, shapes)
    if node.op_type == "MatMul":
        return _matmul(node, shapes)
    if node.op_type.startswith("Reduce"):
        return _reduction(node, shapes)
    outputs = node.output if node.op_type == "Split" else node.output[:1]
    made = sum(prod(shapes[name]) for name in outputs) / _MILLION
    return _moved(node, shapes, made) | uncached(made)


def uncached(amount: float) -> Work:
    """The part of ``amount`` million elements of a tensor that a cache does not hold, as work."""
    return {"uncached": amount - _CACHED} if amount > _CACHED else {}


def _moved(node: NodeProto, shapes: Instance, made: float) -> Work:
    """The work of a layer that makes ``made`` million elements."""
    if node.op_type == "DepthToSpace":
        runs = made / int(attributes(node)["blocksize"])
        return {"depth_to_space": made, "depth_to_space_runs": runs}
    if node.op_type in ("Resize", "Upsample"):
        return _resized(node, shapes, made)
    if node.op_type == "Col2Im":
        return {_col2im(node, len(shapes[node.output[0]])): made}
    if node.op_type == "Transpose":
        return {_transposed(node, shapes[node.input[0]]): made}
    return {_TERMS.get(node.op_type, "copied"): made}


def _resized(node: NodeProto, shapes: Instance, made: float) -> Work:
    """The work of a Resize that makes ``made`` million elements."""
    given = attributes(node)
    mode = given.get("mode", b"nearest")
    if given.get("antialias"):
        return {"antialiased": made + prod(shapes[node.input[0]]) / _MILLION}
    if mode == b"linear":
        # Threads share the channels.
        images = prod(shapes[node.output[0]][:2])
        return {"linear": made, **({"forks": 1.0} if images > 1 else {})}
    return {"cubic" if mode == b"cubic" else "repeated": made}


def resizes_blocks(node: NodeProto, shapes: Instance) -> bool:
    """Whether onnxruntime can run a Resize on channels in blocks.

    Its graph transformer does so for a nearest and a linear Resize by whole factors.
    """
    given = attributes(node)
    mode = str(given.get("mode", b"nearest"), "ascii")
    if mode != "linear":
        return mode == "nearest"
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    if before is None or after is None or given.get("antialias") or given.get("axes"):
        return False
    by_whole = not any(new % old for old, new in zip(before, after, strict=True))
    coordinates = given.get("coordinate_transformation_mode", b"half_pixel")
    return by_whole and coordinates in (b"align_corners", b"asymmetric", b"half_pixel")


def _conv(node: NodeProto, shapes: Instance, block: int) -> Work:
    weight, y = shapes[node.input[1]], shapes[node.output[0]]
    given = attributes(node)
    group = int(given.get("group", 1))
    taps, pixels = prod(weight[2:]), y[0] * prod(y[2:])
    inner, c_out = weight[1], weight[0]
    work: Work = {"weights": prod(weight) / _MILLION, "forks": 1.0}
    if not is_blocked(node, shapes, block):
        work["gemm"] = inner * c_out * taps * pixels / _MILLION
        work["gemm_calls"] = group * y[0] / 1e3
        if taps > 1 or any(given.get("pads", ())) or set(given.get("strides", ())) - {1}:
            work["columns"] = inner * group * taps * pixels / _MILLION
        return work
    if group > 1 and inner == 1:
        work["depthwise"] = whole_blocks(c_out, block) * taps * pixels / _MILLION
        return work
    outer = group * whole_blocks(c_out // group, block)
    inner = whole_blocks(inner, block) if reads_blocks(node, shapes, block) else inner
    work["blocked"] = inner * outer * taps * pixels / _MILLION
    return work


def integer_conv(node: NodeProto, shapes: Instance) -> Work | None:
    """The work of a Conv of integers to integers; None if a shape is not known."""
    weight, y = shapes.get(node.input[1]), shapes.get(node.output[0])
    if weight is None or y is None:
        return None
    group = int(attributes(node).get("group", 1))
    taps, pixels = prod(weight[2:]), y[0] * prod(y[2:]) / _MILLION
    work: Work = {"launches": 1.0, "forks": 1.0, "integer": prod(weight) * pixels}
    if taps > 1:
        work["integer_columns"] = weight[1] * group * taps * pixels
    return work


def _conv_transpose(node: NodeProto, shapes: Instance) -> Work:
    x, weight = (shapes[name] for name in node.input[:2])
    group = int(attributes(node).get("group", 1))
    pixels = x[0] * prod(x[2:])
    columns = group * prod(weight[1:]) * pixels / _MILLION
    work: Work = {
        "forks": 1.0,
        "weights": prod(weight) / _MILLION,
        "gemm": prod(weight) * pixels / _MILLION,
        "gemm_calls": group * x[0] / 1e3,
    }
    if len(x) == 4:
        work["scattered"] = columns
    else:
        work["scattered_nd"] = columns
    return work | uncached(columns / group)


def _matmul(node: NodeProto, shapes: Instance) -> Work:
    """A MatMul: few rows times a large matrix take as long as reading the matrix."""
    one, other = (shapes[name] for name in node.input)
    y = shapes[node.output[0]]
    read = prod(other) / _MILLION
    calls = prod(y[:-2]) / 1e3
    multiplied = prod(y) * one[-1] / _MILLION
    work: Work = {"gemm": multiplied, "gemm_calls": calls, "read": read}
    return work | {"forks": 1.0 if multiplied >= _SHARED else _UNSHARED}


def _reduction(node: NodeProto, shapes: Instance) -> Work:
    """A reduction: adjacent elements are added as quickly as a pointwise layer reads them."""
    x, y = shapes[node.input[0]], shapes[node.output[0]]
    kept = list(takewhile(lambda sizes: sizes[0] == sizes[1], zip(x[::-1], y[::-1], strict=False)))
    apart = prod(size for size, _ in kept)
    term: Term = "pointwise"
    if apart > 1:
        term = "reduced" if apart % _PAGE else "reduced_pages"
    return {term: prod(x) / _MILLION}


def is_blocked(node: NodeProto, shapes: Instance, block: int) -> bool:
    """Whether onnxruntime runs a Conv on channels in blocks.

    Its graph transformer does so for two spatial axes, groups of whole blocks or of one channel,
    and a number of input channels that is a multiple of four, or below a block: fewer channels are
    read as they are stored.
    """
    weight = shapes[node.input[1]]
    if not block or len(weight) != 4:
        return False
    group = int(attributes(node).get("group", 1))
    c_out, inner = weight[:2]
    if group == 1:
        return inner < block or inner % _ALIGNED == 0
    if c_out % _ALIGNED:
        return False
    return (inner == 1 and c_out == group) or not (inner % block or c_out // group % block)


def reads_blocks(node: NodeProto, shapes: Instance, block: int) -> bool:
    """Whether a blocked Conv reads its input in blocks."""
    group = int(attributes(node).get("group", 1))
    return shapes[node.input[1]][1] * group >= block


def _col2im(node: NodeProto, rank: int) -> Term:
    """The term of a Col2Im: whole rows, and uncropped blocks of two by two, are quicker."""
    if rank != 4:
        return "col2im_nd"
    given = attributes(node)
    if given["strides"][1] == 1:
        return "col2im_rows"
    quick = list(given["strides"]) == [2, 2] and not any(given.get("pads", ()))
    return "col2im_pairs" if quick else "col2im"


def _transposed(node: NodeProto, shape: Sequence[int]) -> Term:
    """The term of a Transpose, by what it moves: whole rows, one axis, or single elements."""
    order = attributes(node).get("perm") or tuple(reversed(range(len(shape))))
    axes = [axis for axis in order if shape[axis] != 1]
    merged = [axes[:1]] if axes else []
    for axis in axes[1:]:
        if axis == merged[-1][-1] + 1:
            merged[-1].append(axis)
        else:
            merged.append([axis])
    moved = [sorted(merged).index(run) for run in merged]
    if moved == sorted(moved):
        return "copied"
    if moved[-1] == len(moved) - 1:
        return "transposed_rows"
    return "transposed_axis" if len(moved) <= 3 else "transposed"


def whole_blocks(channels: int, block: int) -> int:
    """``channels`` rounded up to whole blocks."""
    return -(-channels // block) * block


def attributes(node: NodeProto) -> Mapping[str, Any]:
    """The attributes of a node by name."""
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
