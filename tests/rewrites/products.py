"""Depthwise layers whose kernels are products of one factor an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto

from tests.build import Array, Size, conv_transpose, integers
from tests.match.graphs import NEAREST, floats, ints, parsed


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


BEHIND = ints(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1)
"""Pads that put a zero behind every pixel of ``[N, C, H, 1, W, 1]``."""


def layers_of(made: Callable[..., Array]) -> dict[str, Callable[[], ModelProto]]:
    """Layers with the kernels ``made(channels, *taps)``, of every kind that can have such."""
    return {
        "unequal_strides": lambda: depthwise(made(2, 4, 6), strides=[2, 3], pads=[1, 0, 2, 1]),
        "output_padding": lambda: depthwise(made(2, 3, 5), output_padding=[1, 0], pads=[1] * 4),
        "kernel_below_stride": lambda: depthwise(made(2, 2, 3), strides=[3, 4]),
        "dilation": lambda: depthwise(made(2, 3, 2), dilations=[3, 2]),
        "one_channel": lambda: depthwise(made(1, 4, 3)),
        "batch": lambda: depthwise(made(3, 4, 3), batch=2),
        "volume": lambda: depthwise(made(2, 4, 3, 2), (3, 2, 4), strides=[2, 3, 2]),
        "pointwise_between": lambda: parsed(
            f"r = Resize<{NEAREST}>(x, , k) z = Relu(r) y = Conv<pads=[2,1,1,2], group=2>(z, fir)",
            {"fir": made(2, 4, 4), "k": floats(1, 1, 2, 2)},
            "1,2,5,3",
            opset=18,
        ),
        "channels_in_the_batch": lambda: parsed(
            "a = Reshape(x, tall) p = Pad(a, behind) z = Reshape(p, flat)"
            " f = Conv<pads=[2,2,1,1]>(z, fir) y = Reshape(f, apart)",
            {
                "fir": made(1, 4, 4),
                "behind": BEHIND,
                "tall": ints(2, 1, 5, 1, 3, 1),
                "flat": ints(2, 1, 10, 6),
                "apart": ints(1, 2, 10, 6),
            },
            "1,2,5,3",
            opset=18,
        ),
        "cropped_behind": lambda: parsed(
            "z = ConvTranspose<strides=[2,2], group=2>(x, fir) y = Slice(z, s, e, a)",
            {"fir": made(2, 4, 4), "s": ints(1, 3), "e": ints(-2, 6), "a": ints(2, 3)},
            "1,2,5,3",
            opset=18,
        ),
        "added_behind": lambda: parsed(
            "z = ConvTranspose<strides=[2,2], group=2>(x, fir) y = Add(z, c)",
            {"fir": made(2, 4, 4), "c": floats(3, -5).reshape(2, 1, 1)},
            "1,2,5,3",
            opset=18,
        ),
    }
