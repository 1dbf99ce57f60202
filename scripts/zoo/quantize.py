"""Static int8 quantization as onnxruntime's users do it; needs onnxruntime, no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from .sample import Quantization

Feeds = Mapping[str, NDArray[np.generic]]

BATCHES = 8
"""How many inputs the ranges of the activations are taken from."""

_SYMMETRIC = {"ActivationSymmetric": True, "QuantizeBias": False}


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    """Hands out the calibration inputs, once."""

    def __init__(self, batches: Sequence[Feeds]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Feeds | None:
        return next(self._batches, None)


def random_batches(
    shapes: Mapping[str, Sequence[int]], seed: int, count: int = BATCHES
) -> list[Feeds]:
    """Standard normal float32 inputs of ``shapes``, ``count`` of them."""
    generator = np.random.default_rng(seed)
    return [
        {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        for _ in range(count)
    ]


def quantize(
    model: onnx.ModelProto, batches: Sequence[Feeds], how: Quantization = "int8"
) -> onnx.ModelProto:
    """``model`` in Q/DQ form: int8 weights per channel, activations by the ranges in ``batches``.

    What onnxruntime recommends is done first: constants are folded and shapes inferred. All
    operators that its quantizer knows are quantized; ``model`` is not changed.
    """
    with TemporaryDirectory() as folder, _quiet():
        original, prepared, quantized = (Path(folder, f"{step}.onnx") for step in range(3))
        # As a file: a ModelProto goes through external data, whose shapes it then cannot read.
        onnx.save(model, original)
        quant_pre_process(original, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8 if how == "uint8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options=_SYMMETRIC if how == "symmetric" else {},
        )
        return onnx.load(quantized)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice to do what has just been done."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
