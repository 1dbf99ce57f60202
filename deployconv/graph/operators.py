"""Operators in place of those of the ONNX reference evaluator, which goes by their names.

Scatter, Resize and Upsample are vectorised: the evaluator's own loop over elements in Python.
Resize is the nearest one only. ConvTranspose is right with groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv_transpose import ConvTranspose as _ConvTranspose

from deployconv.graph.nearest import nearest_sources, resize_sizes

Array = NDArray[Any]

LARGEST = 1 << 26
"""Elements of a tensor, above which nothing is run."""


class ConvTranspose(_ConvTranspose):
    """The reference's own, group by group.

    By itself it gives every group the first biases (onnx 1.23), and stops where a group has
    more than one output channel. What a group is leaves no doubt, so each is run alone.
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
    """Its name before opset 11."""


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
