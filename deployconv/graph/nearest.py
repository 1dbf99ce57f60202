"""Nearest Resize and Upsample as onnxruntime computes them, with exact coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.graph.not_evaluated import NotEvaluated

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

    Evaluated in exact fractions of the float32 scale. Raises NotEvaluated for a mode
    that it does not know, or whose map depends on rounding: runtimes compute in float32, so a
    coordinate that falls onto a rounding's edge must do so exactly.
    """
    if coordinates not in _COORDINATES or rounding not in _ROUNDINGS:
        raise NotEvaluated(f"Resize with {coordinates} and {rounding}")
    exact = Fraction(scale)
    if exact.denominator != 1:
        raise NotEvaluated(f"Resize by {scale}")
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
    given = attributes.get("axes")
    given = range(len(shape)) if given is None else [int(axis) for axis in given]
    axes = [axis % len(shape) for axis in given]
    found = [(size, 1.0) for size in shape]
    policy = attributes.get("keep_aspect_ratio_policy") or "stretch"
    if sizes is not None and sizes.size and policy != "stretch":
        # One scale for all axes, for which the result is just not larger, or not smaller.
        # onnxruntime ignores negative axes then, which keep their sizes.
        pairs = [pair for pair in zip(given, sizes.tolist(), strict=True) if pair[0] >= 0]
        fractions = [Fraction(int(resized), shape[axis]) for axis, resized in pairs]
        scale = (min if policy == "not_larger" else max)(fractions, default=Fraction(1))
        for axis, _ in pairs:
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


def resize(data: Array, inputs: Sequence[Array | None], attributes: Mapping[str, Any]) -> Array:
    """Nearest Resize of ``data``, of opset 10 and later, by whole factors.

    ``inputs`` are the ones after the first: (scales) in opset 10, then (roi, scales, sizes).
    """
    if attributes.get("mode") != "nearest":
        raise NotEvaluated(f"Resize with mode {attributes.get('mode')}")
    scales, sizes = (inputs[0], None) if len(inputs) == 1 else (*inputs[1:], None, None)[:2]
    return _nearest(data, scales, sizes, attributes)


def upsample(data: Array, inputs: Sequence[Array | None], attributes: Mapping[str, Any]) -> Array:
    """Nearest Upsample of ``data``, of opset 7 to 9; ``inputs`` may have its scales."""
    if attributes.get("mode") not in (None, "nearest"):
        raise NotEvaluated(f"Upsample with mode {attributes.get('mode')}")
    given = attributes["scales"] if not inputs or inputs[0] is None else inputs[0]
    plain = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return _nearest(data, np.asarray(given, np.float32), None, plain)


def _nearest(
    data: Array, scales: Array | None, sizes: Array | None, attributes: Mapping[str, Any]
) -> Array:
    resized = resize_sizes(data.shape, scales, sizes, attributes)
    if prod(max(size, 1) for size, _ in resized) > LARGEST:
        raise NotEvaluated(f"Resize to {[size for size, _ in resized]}")
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
