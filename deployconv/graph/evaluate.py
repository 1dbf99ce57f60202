"""Run a few nodes of a model by the ONNX reference evaluator, with operators corrected.

The evaluator goes by the names of operators, so that classes of the same name take the place
of its own. Scatter, Resize and Upsample are vectorised: the evaluator loops over elements in
Python. Resize is the nearest one only. ConvTranspose is right with groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv_transpose import ConvTranspose as _ConvTranspose

from deployconv.graph.quantization import DequantizeLinear, QuantizeLinear

Array = NDArray[Any]

Coordinate = Callable[[Fraction, Fraction, int, int], Fraction]

_HALF = Fraction(1, 2)


def _align_corners(o: Fraction, scale: Fraction, size: int, resized: int) -> Fraction:
    return o * Fraction(size - 1, resized - 1) if resized > 1 else Fraction(0)


def _pytorch_half_pixel(o: Fraction, scale: Fraction, size: int, resized: int) -> Fraction:
    return (o + _HALF) / scale - _HALF if resized > 1 else Fraction(0)


def _half_pixel_symmetric(o: Fraction, scale: Fraction, size: int, resized: int) -> Fraction:
    adjustment = Fraction(resized) / (scale * size)
    offset = Fraction(size, 2) * (1 - adjustment)
    return offset + (o + _HALF) / scale - _HALF


_COORDINATES: dict[str, Coordinate] = {
    "asymmetric": lambda o, scale, size, resized: o / scale,
    "half_pixel": lambda o, scale, size, resized: (o + _HALF) / scale - _HALF,
    "tf_half_pixel_for_nn": lambda o, scale, size, resized: (o + _HALF) / scale,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "align_corners": _align_corners,
}

_ROUNDINGS: dict[str, Callable[[Fraction], int]] = {
    "floor": floor,
    "ceil": ceil,
    "round_prefer_floor": lambda x: ceil(x - _HALF),
    "round_prefer_ceil": lambda x: floor(x + _HALF),
}


def nearest_sources(
    size: int, resized: int, scale: float, coordinates: str, rounding: str
) -> Array:
    """Which input index each of ``resized`` outputs reads, from ``size`` inputs.

    Evaluated in exact fractions of the float32 scale. Raises NotImplementedError for a mode
    that it does not know, or whose map depends on rounding: runtimes compute in float32, so a
    coordinate that falls onto a rounding's edge must do so exactly.
    """
    if coordinates not in _COORDINATES or rounding not in _ROUNDINGS:
        raise NotImplementedError(f"Resize with {coordinates} and {rounding}")
    exact = Fraction(scale)
    if exact.denominator != 1:
        raise NotImplementedError(f"Resize by {scale}")
    where = [_COORDINATES[coordinates](Fraction(o), exact, size, resized) for o in range(resized)]
    sources = [_ROUNDINGS[rounding](x) for x in where]
    return np.clip(np.array(sources, np.int64), 0, size - 1)


def resize_sizes(
    shape: Sequence[int],
    scales: Array | None,
    sizes: Array | None,
    attributes: Mapping[str, Any],
) -> list[tuple[int, float]]:
    """Per axis of ``shape``: the resized size and the scale."""
    axes = attributes.get("axes")
    axes = range(len(shape)) if axes is None else [int(axis) % len(shape) for axis in axes]
    found = [(size, 1.0) for size in shape]
    policy = attributes.get("keep_aspect_ratio_policy") or "stretch"
    if sizes is not None and sizes.size and policy != "stretch":
        # One scale for all axes, for which the result is just not larger, or not smaller.
        pairs = zip(axes, sizes.tolist(), strict=True)
        fractions = [Fraction(int(resized), shape[axis]) for axis, resized in pairs]
        scale = min(fractions) if policy == "not_larger" else max(fractions)
        for axis in axes:
            found[axis] = (floor(scale * shape[axis] + _HALF), float(scale))
    elif sizes is not None and sizes.size:
        for axis, resized in zip(axes, sizes.tolist(), strict=True):
            found[axis] = (int(resized), resized / shape[axis])
    elif scales is not None and scales.size:
        for axis, scale in zip(axes, scales.tolist(), strict=True):
            found[axis] = (floor(shape[axis] * scale), float(scale))
    return found


LARGEST = 1 << 26
"""Tensors of more elements than this are not computed."""


class ConvTranspose(_ConvTranspose):
    """The evaluator's own ConvTranspose, run group by group.

    By itself it gives every group the biases of the first (onnx 1.23), and stops if a group has
    more than one output channel.
    """

    op_domain = ""

    def _run(  # type: ignore[override]
        self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any
    ) -> tuple[Array]:
        groups = attributes.pop("group")
        biases = [None] * groups if bias is None else np.split(bias, groups)
        split = zip(np.split(x, groups, axis=1), np.split(weight, groups), biases, strict=True)
        compute: Callable[..., tuple[Array]] = super()._run
        parts = [compute(*operands, group=1, **attributes)[0] for operands in split]
        return (np.concatenate(parts, axis=1),)


class ScatterND(OpRun):
    """Updates at indices of the first axes."""

    op_domain = ""

    def _run(
        self, data: Array, indices: Array, updates: Array, reduction: str | None = None
    ) -> tuple[Array]:
        where = tuple(np.moveaxis(indices, -1, 0))
        return (_scattered(data, where, updates, reduction),)


class ScatterElements(OpRun):
    """Updates at indices along one axis; there may be fewer of them than the others have rows."""

    op_domain = ""

    def _run(
        self,
        data: Array,
        indices: Array,
        updates: Array,
        axis: int = 0,
        reduction: str | None = None,
    ) -> tuple[Array]:
        where: list[Array] = list(np.indices(indices.shape))
        where[axis] = indices
        return (_scattered(data, tuple(where), updates, reduction),)


class Scatter(ScatterElements):
    """ScatterElements before opset 11."""


def _scattered(
    data: Array, where: tuple[Array, ...], updates: Array, reduction: str | None
) -> Array:
    """A copy of ``data``, with ``updates`` written or added ``where`` they belong."""
    result = data.copy()
    if reduction == "add":
        np.add.at(result, where, updates)
        return result
    if reduction not in (None, "none"):
        raise NotImplementedError(f"Scatter with reduction {reduction}")
    writes = np.zeros(data.shape, np.int64)
    np.add.at(writes, where, 1)
    if writes.max(initial=0) > 1:
        raise NotImplementedError("Scatter that leaves open which of two writes holds")
    result[where] = updates
    return result


class Resize(OpRun):
    """Nearest Resize of opset 10 and later, by whole factors."""

    op_domain = ""

    def _run(self, data: Array, *inputs: Array | None, **attributes: Any) -> tuple[Array]:
        if attributes.get("mode") != "nearest":
            raise NotImplementedError(f"Resize with mode {attributes.get('mode')}")
        # Opset 10 has (X, scales), later ones (X, roi, scales, sizes).
        scales, sizes = (inputs[0], None) if len(inputs) == 1 else (*inputs[1:], None, None)[:2]
        return (_nearest(data, scales, sizes, attributes),)


class Upsample(OpRun):
    """Nearest Upsample of opset 7 to 9."""

    op_domain = ""

    def _run(self, data: Array, scales: Array | None = None, **attributes: Any) -> tuple[Array]:
        if attributes.get("mode") not in (None, "nearest"):
            raise NotImplementedError(f"Upsample with mode {attributes.get('mode')}")
        given = attributes["scales"] if scales is None else scales
        plain = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return (_nearest(data, np.asarray(given, np.float32), None, plain),)


def _nearest(
    data: Array, scales: Array | None, sizes: Array | None, attributes: Mapping[str, Any]
) -> Array:
    resized = resize_sizes(data.shape, scales, sizes, attributes)
    if prod(max(size, 1) for size, _ in resized) > LARGEST:
        raise NotImplementedError(f"Resize to {[size for size, _ in resized]}")
    for axis, (size, scale) in enumerate(resized):
        if (size, scale) != (data.shape[axis], 1.0):
            sources = nearest_sources(
                data.shape[axis],
                size,
                scale,
                # Opset 10 had one mode and no attribute for it.
                attributes.get("coordinate_transformation_mode") or "asymmetric",
                attributes.get("nearest_mode") or "floor",
            )
            data = data.take(sources, axis=axis)
    return data


_REPLACED = [
    ConvTranspose,
    DequantizeLinear,
    QuantizeLinear,
    Resize,
    Scatter,
    ScatterElements,
    ScatterND,
    Upsample,
]


def evaluate(
    nodes: Sequence[NodeProto], opset: int, feeds: Mapping[str, Array], outputs: Sequence[str]
) -> list[Array]:
    """The values of ``outputs`` after ``nodes`` ran on ``feeds``, which name all their inputs.

    Raises whatever the evaluator raises for nodes that it cannot run, and NotImplementedError
    for a ConvTranspose whose padding runtimes compute differently.
    """
    for node in nodes:
        stated = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        same = stated.get("auto_pad", b"").startswith(b"SAME")
        if node.op_type == "ConvTranspose" and (same or stated.get("output_shape")):
            raise NotImplementedError("ConvTranspose without explicit pads")
    unknown = onnx.TypeProto()
    graph = onnx.helper.make_graph(
        list(nodes),
        "evaluate",
        [onnx.helper.make_value_info(name, unknown) for name in feeds],
        [onnx.helper.make_value_info(name, unknown) for name in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    evaluator = ReferenceEvaluator(model, new_ops=_REPLACED)
    # Infinity and NaN are results like others.
    with np.errstate(all="ignore"):
        return [np.asarray(array) for array in evaluator.run(None, dict(feeds))]
