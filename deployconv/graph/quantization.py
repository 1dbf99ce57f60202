"""What QuantizeLinear and DequantizeLinear compute."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GRIDS = ("int8", "uint8")
"""Element types that convolutions run in."""


def dequantize(values: Array, scale: Array, zero_point: Array) -> Array:
    """What DequantizeLinear computes: the difference in integers, the product in floats."""
    wide = values.astype(np.int64) - zero_point.astype(np.int64)
    product = wide.astype(np.float32) * scale.astype(np.float32)
    return np.asarray(product.astype(scale.dtype))


def quantize(values: Array, scale: Array, zero_point: Array) -> Array | None:
    """What QuantizeLinear computes: rounded half to even, then shifted and saturated.

    None if runtimes differ: some divide float16 as it is, others as float32.
    """
    with np.errstate(all="ignore"):
        rounded = np.rint(values / scale)
        wide = np.rint(values.astype(np.float32) / scale.astype(np.float32))
    if not np.isfinite(wide).all() or not np.array_equal(rounded, wide):
        return None
    limits = np.iinfo(zero_point.dtype)
    shifted = wide.astype(np.float64) + zero_point.astype(np.float64)
    return np.clip(shifted, limits.min, limits.max).astype(zero_point.dtype)


def along(values: Array | None, axis: int, rank: int) -> Array:
    """``values``, one or one per index of ``axis``, so that they broadcast; 0 for None."""
    if values is None:
        return np.zeros((), np.int8)
    if values.size == 1:
        return values.reshape(())
    return values.reshape(-1, *[1] * (rank - axis - 1))
