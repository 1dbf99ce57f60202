"""Operators for the ONNX reference evaluator, in place of its own ones of the same name.

Scatter, Resize and Upsample are vectorised: the evaluator loops over elements in Python. Resize is
the nearest one only. ConvTranspose is right with groups. QuantizeLinear and DequantizeLinear are
of every opset. This module imports the whole evaluator, which takes long: `evaluate` imports it if
it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv_transpose import ConvTranspose as _ConvTranspose

from deployconv.graph import tap_by_tap
from deployconv.graph.nearest import resize, upsample
from deployconv.graph.not_evaluated import NotEvaluated
from deployconv.graph.quantization import GRIDS, along, dequantize, quantize

Array = NDArray[Any]

_UNCOMMON = ("block_size", "output_dtype", "precision")
"""Attributes of QuantizeLinear and DequantizeLinear that are not computed here."""


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
    """ScatterND: write or add ``updates`` at indices of the first axes."""

    op_domain = ""

    def _run(
        self, data: Array, indices: Array, updates: Array, reduction: str | None = None
    ) -> tuple[Array]:
        where = tuple(np.moveaxis(indices, -1, 0))
        return (_scattered(data, where, updates, reduction),)


class ScatterElements(OpRun):
    """ScatterElements: write or add ``updates`` at indices along one axis."""

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
        raise NotEvaluated(f"Scatter with reduction {reduction}")
    writes = np.zeros(data.shape, np.int64)
    np.add.at(writes, where, 1)
    if writes.max(initial=0) > 1:
        raise NotEvaluated("Scatter that leaves open which of two writes holds")
    result[where] = updates
    return result


class Resize(OpRun):
    """Nearest Resize of opset 10 and later, by whole factors."""

    op_domain = ""

    def _run(self, data: Array, *inputs: Array | None, **attributes: Any) -> tuple[Array]:
        return (resize(data, inputs, attributes),)


class Upsample(OpRun):
    """Nearest Upsample of opset 7 to 9."""

    op_domain = ""

    def _run(self, data: Array, *inputs: Array | None, **attributes: Any) -> tuple[Array]:
        return (upsample(data, inputs, attributes),)


class QuantizeLinear(OpRun):
    """QuantizeLinear to int8 or uint8, of every opset: the evaluator's own begins at 19."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, zero_point: Array | None = None, axis: int = 1, **rest: Any
    ) -> tuple[Array]:
        zero = np.zeros((), np.uint8) if zero_point is None else zero_point
        if zero.dtype.name not in GRIDS or any(rest.get(name) for name in _UNCOMMON):
            raise NotEvaluated("QuantizeLinear to another type, or in blocks")
        result = quantize(x, along(scale, axis, x.ndim), along(zero, axis, x.ndim))
        if result is None:
            raise NotEvaluated("QuantizeLinear that leaves the result open")
        return (result,)


class DequantizeLinear(OpRun):
    """DequantizeLinear from integers, of every opset: the evaluator's own begins at 19."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, zero_point: Array | None = None, axis: int = 1, **rest: Any
    ) -> tuple[Array]:
        if x.dtype.kind not in "iu" or any(rest.get(name) for name in _UNCOMMON):
            raise NotEvaluated("DequantizeLinear from another type, or in blocks")
        return (dequantize(x, along(scale, axis, x.ndim), along(zero_point, axis, x.ndim)),)


OPERATORS = [
    tap_by_tap.ConvTranspose,
    DequantizeLinear,
    QuantizeLinear,
    Resize,
    Scatter,
    ScatterElements,
    ScatterND,
    Upsample,
]
"""All operators of this module, for the evaluator; ConvTranspose is the quick one."""
