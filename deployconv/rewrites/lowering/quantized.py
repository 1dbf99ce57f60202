"""Integers stay integers: a weight or bias behind DequantizeLinear, arranged anew.

    arranged integers, repeated scale, repeated zero point -> DequantizeLinear -> ...

Nothing is requantized unless the caller allows it: the integers are moved, and what belongs to
a channel (its scale, its zero point) goes where the channel goes.

    Conv -> QuantizeLinear -> DequantizeLinear -> shuffle -> QuantizeLinear

The same scale all along: what has been on the grid comes back to the same integers. Spelled so,
onnxruntime makes an integer Conv of the left part and moves integers in the right one, for
signed and unsigned alike; without the inner pair it runs the Conv in float where the integers
are signed, and TensorRT takes no DepthToSpace of unsigned ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.errors import ModelError
from deployconv.match import Parameter, Quantized
from deployconv.rewrites.lowering.emit import Emitter

Array = NDArray[Any]


def write_dequantized(
    emitter: Emitter,
    suffix: str,
    quantized: Quantized,
    integers: Array,
    by_channel: Callable[[Array], Array],
) -> gs.Tensor:
    """``integers`` behind a DequantizeLinear.

    Args:
        emitter: what writes the nodes.
        suffix: what the integers are called.
        quantized: their scale and zero point, of the channels in their old order.
        integers: the new initializer, its output channels on axis 0.
        by_channel: from one value per old channel to one per new channel.
    """
    inputs = [emitter.constant(suffix, integers)]
    scales = {"scale": quantized.scale, "zero_point": quantized.zero_point}
    for name, values in scales.items():
        if values is not None:
            spread = values if values.ndim == 0 else by_channel(values)
            inputs.append(emitter.constant(f"{suffix}_{name}", spread))
    axis = {} if quantized.scale.ndim == 0 else {"axis": 0}
    return emitter.add("DequantizeLinear", inputs, f"{suffix}_dequantized", **axis)


def requantized(weight: Array) -> tuple[Array, Array]:
    """int8 integers and float32 scales, one per output channel on axis 0, nearest to ``weight``.

    Symmetric: the largest magnitude of a channel becomes 127, zero stays zero.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    steps = weight / scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(steps), -127, 127).astype(np.int8), scale


def write_requantized(emitter: Emitter, suffix: str, weight: Array) -> gs.Tensor:
    """``weight``, summed in float64, in new integers and scales behind a DequantizeLinear."""
    integers, scale = requantized(weight)
    quantized = Quantized(
        integers.dtype, lambda: integers, scale, np.zeros(scale.shape, np.int8), None
    )
    return write_dequantized(emitter, suffix, quantized, integers, np.asarray)


def dequantized(emitter: Emitter, tensor: gs.Tensor, quantize: gs.Node) -> gs.Tensor:
    """``tensor``, which ``quantize`` has made integers, in floats again."""
    return emitter.add("DequantizeLinear", [tensor, *quantize.inputs[1:]])


def quantized(emitter: Emitter, tensor: gs.Tensor, quantize: gs.Node) -> gs.Tensor:
    """``tensor``, which is on the grid of ``quantize`` already, as integers: exactly these."""
    return emitter.add("QuantizeLinear", [tensor, *quantize.inputs[1:]], **quantize.attrs)


def integers_of(parameter: Parameter, quantized: Quantized, site: str) -> Array:
    """The integers of ``parameter``; ModelError where they or the scales cannot be used."""
    values = quantized.read()
    if values.shape != parameter.shape:
        raise ModelError(
            f"{site}: '{parameter.name}' has shape {list(values.shape)}, declared"
            f" {list(parameter.shape)}: export the model again"
        )
    if not np.isfinite(quantized.scale).all():
        raise ModelError(
            f"{site}: '{parameter.name}' has a scale that is NaN or infinite: check the"
            f" calibration that made it"
        )
    return values
