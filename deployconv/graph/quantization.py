"""QuantizeLinear and DequantizeLinear as numbers, and for the reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

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


class QuantizeLinear(OpRun):
    """To int8 or uint8, of every opset: the evaluator's own begins at 19."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, zero_point: Array | None = None, axis: int = 1, **rest: Any
    ) -> tuple[Array]:
        zero = np.zeros((), np.uint8) if zero_point is None else zero_point
        if zero.dtype.name not in GRIDS or any(rest.get(name) for name in _UNCOMMON):
            raise NotImplementedError("QuantizeLinear to another type, or in blocks")
        result = quantize(x, along(scale, axis, x.ndim), along(zero, axis, x.ndim))
        if result is None:
            raise NotImplementedError("QuantizeLinear that leaves the result open")
        return (result,)


class DequantizeLinear(OpRun):
    """From int8, uint8 or int32, of every opset: the evaluator's own begins at 19."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, zero_point: Array | None = None, axis: int = 1, **rest: Any
    ) -> tuple[Array]:
        if x.dtype.kind not in "iu" or any(rest.get(name) for name in _UNCOMMON):
            raise NotImplementedError("DequantizeLinear from another type, or in blocks")
        return (dequantize(x, along(scale, axis, x.ndim), along(zero_point, axis, x.ndim)),)


_UNCOMMON = ("block_size", "output_dtype", "precision")
