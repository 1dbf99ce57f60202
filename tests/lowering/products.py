"""Depthwise layers whose kernels are products of one factor an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto

from tests.build import Array, Size, conv_transpose, integers


def products(channels: int, *taps: int, seed: int = 0) -> Array:
    """``[channels, 1, *taps]``: whole numbers, a product in each channel, no two taps alike."""
    drawn = np.random.default_rng(seed)
    made = np.ones((channels, 1))
    for k in taps:
        own = np.stack([drawn.permutation(np.arange(1, k + 1)) for _ in range(channels)])
        made = (made[:, :, None] * own[:, None, :]).reshape(channels, -1)
    return np.asarray(made.reshape(channels, 1, *taps), np.float32)


def depthwise(
    weight: Array, sizes: Sequence[Size] = (5, 6), bias: bool = True, **rest: Any
) -> ModelProto:
    """A ConvTranspose of one channel a group, of stride 2 unless said."""
    rank = len(sizes)
    added = integers(weight.shape[0] * weight.shape[1], seed=7, dtype=weight.dtype)
    return conv_transpose(
        weight,
        sizes,
        added if bias else None,
        **{"strides": [2] * rank, "group": len(weight), "opset": 18, **rest},
    )


def bilinear(channels: int, stride: int, sizes: Sequence[Size], **rest: Any) -> ModelProto:
    """As FCN and HED have it."""
    taps = 1 - np.abs((np.arange(2 * stride) + 0.5) / stride - 1)
    weight = np.tile(np.outer(taps, taps), (channels, 1, 1, 1)).astype(np.float32)
    pads = [stride // 2] * 4
    return depthwise(weight, sizes, bias=False, strides=[stride] * 2, pads=pads, **rest)
