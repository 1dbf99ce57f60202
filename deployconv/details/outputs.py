"""Describe how the outputs of two models differ: a histogram, and maps of one plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

import numpy as np
from numpy.typing import NDArray

from deployconv.results import OutputDetail, OutputMaps
from deployconv.runtimes.base import Array

_SIDE = 64
"""Rows and columns of a map at most."""
_SMALLEST_SIDE = 4
"""An output whose last two axes are shorter is no image."""
_DIGITS = 5
"""Significant digits that a map keeps."""
_EXPONENTS = range(-45, 39)
"""Powers of ten that a float32 difference can have."""

Plane = NDArray[np.float64]


def compare_in_detail(
    reference: Mapping[str, Array], candidate: Mapping[str, Array]
) -> tuple[OutputDetail, ...]:
    """Return one entry for each output that is numeric and of the same shape in both models."""
    return tuple(
        _detail(name, array, candidate[name])
        for name, array in reference.items()
        if name in candidate
        and array.shape == candidate[name].shape
        and array.size
        and _is_numeric(array)
        and _is_numeric(candidate[name])
    )


def _is_numeric(array: Array) -> bool:
    return array.dtype.kind in "biufV" and array.dtype.names is None


def _detail(name: str, reference: Array, candidate: Array) -> OutputDetail:
    left, right = reference.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # Equal infinities, and NaN in both, are no difference; other ones cannot be counted.
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        difference = np.where(same, 0.0, np.abs(right - left))
    finite = difference[np.isfinite(difference) & (difference > 0)]
    found = np.floor(np.log10(finite)).astype(int) if finite.size else np.zeros(0, int)
    exponents = [exponent for exponent in _EXPONENTS if np.any(found == exponent)]
    bins = range(exponents[0], exponents[-1] + 1) if exponents else ()
    return OutputDetail(
        name,
        equal=int(np.count_nonzero(difference == 0)),
        exponents=tuple(bins),
        counts=tuple(int(np.count_nonzero(found == exponent)) for exponent in bins),
        maps=_maps(left, right, difference),
    )


def _maps(left: Plane, right: Plane, difference: Plane) -> OutputMaps | None:
    """The plane of an image-like output in which the difference is largest; None if it is none."""
    if left.ndim < 3 or min(left.shape[-2:]) < _SMALLEST_SIDE:
        return None
    planes = left.shape[:-2]
    largest = np.nan_to_num(difference).reshape(-1, *left.shape[-2:]).max(axis=(1, 2))
    index = np.unravel_index(int(largest.argmax()), planes)
    return OutputMaps(
        plane=f"[{', '.join(map(str, index))}, :, :]",
        reference=_rows(_smaller(left[index], np.mean)),
        candidate=_rows(_smaller(right[index], np.mean)),
        difference=_rows(_smaller(difference[index], np.max)),
    )


def _smaller(plane: Plane, reduce: Callable[..., Plane]) -> Plane:
    """Reduce blocks of a plane so that no side is longer than `_SIDE`."""
    for axis in (0, 1):
        step = ceil(plane.shape[axis] / _SIDE)
        if step > 1:
            starts = range(0, plane.shape[axis], step)
            blocks = np.split(plane, starts[1:], axis)
            plane = np.stack([reduce(block, axis=axis) for block in blocks], axis)
    return plane


def _rows(plane: Plane) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{value:.{_DIGITS}g}") for value in row) for row in plane.tolist())
