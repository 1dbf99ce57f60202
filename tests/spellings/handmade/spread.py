"""What the hand-made zero insertions share: sizes, the Conv behind, masks, one-hot kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.spellings import oracle
from tests.spellings.corpus import Array, Shape
from tests.spellings.handmade.graph import IMAGE, Graph, conv

CONV = "y = Conv<pads=[1,1,1,1]>(z, w, b)"
N, C, H, W = IMAGE


def spread(x: Array) -> Array:
    """Zero insertion by 2 to the size r*H, then the Conv."""
    return conv(oracle.insert_zeros(x))


def graph(name: str, opset: int, body: str, **more: Any) -> Graph:
    """A graph whose nodes make ``z`` from ``x``, with the Conv behind."""
    return Graph(name, "zero_insertion", opset, f"{body} {CONV}", **{"oracle": spread, **more})


def mask(height: int, width: int, dtype: type = np.float32) -> Any:
    """``[1, 1, height, width]``, one at every second row and column."""
    values: Any = np.zeros((1, 1, height, width), dtype)
    values[..., ::2, ::2] = 1
    return values


def one_hot(kernel: Shape, *taps: tuple[int, int]) -> Array:
    """A depthwise kernel ``[C, 1, k_1, k_2]`` with ones at ``taps``."""
    values: Array = np.zeros((C, 1, *kernel), np.float32)
    for row, column in taps:
        values[:, 0, row, column] = 1
    return values
