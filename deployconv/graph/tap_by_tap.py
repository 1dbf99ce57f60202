"""ConvTranspose for the ONNX reference evaluator, tap by tap.

The evaluator's own one loops over all elements in Python in three dimensions. This one is for
`evaluate`, which runs the layers of a model to see what they move. A certificate is computed by the
evaluator's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from deployconv.graph.not_evaluated import NotEvaluated

Array = NDArray[Any]


class ConvTranspose(OpRun):
    """ConvTranspose with explicit padding."""

    op_domain = ""

    def _run(
        self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any
    ) -> tuple[Array]:
        stated = attributes["output_shape"] or attributes["auto_pad"] not in ("NOTSET", "VALID")
        if stated or min(attributes["pads"] or [0]) < 0:
            raise NotEvaluated("ConvTranspose without explicit pads")
        result = _transposed(x, weight, attributes["group"], attributes)
        if bias is not None:
            result = result + bias.astype(np.float64).reshape(-1, *[1] * (x.ndim - 2))
        return (result.astype(x.dtype),)


def _transposed(x: Array, weight: Array, groups: int, attributes: Mapping[str, Any]) -> Array:
    """ConvTranspose without a bias, in float64: each tap adds the image to every s-th place."""
    rank = x.ndim - 2
    strides = attributes["strides"] or [1] * rank
    dilations = attributes["dilations"] or [1] * rank
    pads = attributes["pads"] or [0] * 2 * rank
    extra = attributes["output_padding"] or [0] * rank
    batch, channels, *sizes = x.shape
    _, made, *kernel = weight.shape
    images = x.astype(np.float64).reshape(batch, groups, channels // groups, *sizes)
    kernels = weight.astype(np.float64).reshape(groups, channels // groups, made, *kernel)
    axes = list(zip(sizes, kernel, strides, dilations, strict=True))
    whole = [s * (size - 1) + d * (taps - 1) + 1 for size, taps, s, d in axes]
    result = np.zeros((batch, groups, made, *map(sum, zip(whole, extra, strict=True))))
    for tap in np.ndindex(*kernel):
        at = zip(tap, axes, strict=True)
        places = (slice(d * t, d * t + s * (size - 1) + 1, s) for t, (size, _, s, d) in at)
        part = np.einsum("ngc...,gcm->ngm...", images, kernels[_inner(tap)])
        result[_inner(places)] += part
    result = result.reshape(batch, groups * made, *result.shape[3:])
    ends = zip(pads[:rank], pads[rank:], result.shape[2:], strict=True)
    return np.asarray(result[_inner(slice(begin, size - end) for begin, end, size in ends)])


def _inner(places: Iterable[int | slice]) -> Any:
    """An index of the last axes."""
    return ..., *places
