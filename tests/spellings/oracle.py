"""What the hand-made graphs must compute, in NumPy alone, from the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

import numpy as np

from tests.spellings.corpus import Array, Shape


def weight(shape: Shape) -> Array:
    """Whole numbers, no two taps near each other alike."""
    flat = np.arange(np.prod(shape))
    return ((flat * 3 + flat // 4) % 7 - 3).reshape(shape).astype(np.float32)


def bias(channels: int) -> Array:
    return (np.arange(channels) * 2 - 1).astype(np.float32)


def conv(x: Array, kernel: Array, offsets: Array) -> Array:
    """A 2-D Conv with one row and column of zeros around ``x``, stride 1."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], (2, 3))
    y = np.einsum("nchwrs,ocrs->nohw", windows, kernel) + offsets.reshape(1, -1, 1, 1)
    return np.asarray(y, dtype=np.float32)


def insert_zeros(x: Array, first: int = 0, tight: bool = False) -> Array:
    """``y[..., first::2, first::2] = x`` into zeros of 2*H, or 2*(H-1)+1 if ``tight``."""
    n, c, h, w = x.shape
    y = np.zeros((n, c, 2 * h - tight, 2 * w - tight), np.float32)
    y[..., first::2, first::2] = x
    return y


def copies(x: Array, stride: Sequence[int]) -> Array:
    """Nearest upsampling: element ``o`` is ``x[o // r]`` on every axis."""
    for axis, r in enumerate(stride):
        x = np.repeat(x, r, axis=axis + 2)
    return x


def take(x: Array, maps: Sequence[Sequence[int]]) -> Array:
    """Element ``o`` of a spatial axis is ``x[map[o]]``."""
    for axis, indices in enumerate(maps):
        x = np.take(x, list(indices), axis=axis + 2)
    return x


def shuffle(x: Array, stride: Sequence[int], order: str) -> Array:
    """Pixel shuffle of any rank, channels before (CRD) or behind (DCR) the phases."""
    n, channels, *sizes = x.shape
    rank, c = len(stride), channels // int(np.prod(stride))
    if order == "CRD":
        y = x.reshape(n, c, *stride, *sizes)
        first, phase = 1, 2
    else:
        y = x.reshape(n, *stride, c, *sizes)
        first, phase = rank + 1, 1
    axes = [0, first]
    for axis in range(rank):
        axes += [2 + rank + axis, phase + axis]
    return y.transpose(axes).reshape(n, c, *(r * s for r, s in zip(stride, sizes, strict=True)))


_HALF = Fraction(1, 2)


def _position(mode: str, o: int, size: int, out: int) -> Fraction:
    """Where output index ``o`` falls in the input (ONNX operator Resize, without a roi)."""
    scale = Fraction(out, size)
    if mode in ("half_pixel", "half_pixel_symmetric"):  # alike where size * scale is whole
        return (o + _HALF) / scale - _HALF
    if mode == "pytorch_half_pixel":
        return (o + _HALF) / scale - _HALF if out > 1 else Fraction(0)
    if mode == "align_corners":
        return Fraction(o * (size - 1), out - 1)
    if mode == "tf_half_pixel_for_nn":
        return (o + _HALF) / scale
    return o / scale


def index_map(mode: str, rounding: str, size: int, out: int) -> list[int]:
    """Input index of each output index of a nearest Resize, kept inside the input."""
    indices = []
    for o in range(out):
        x = _position(mode, o, size, out)
        index = {
            "floor": floor(x),
            "ceil": ceil(x),
            "round_prefer_floor": ceil(x - _HALF),
            "round_prefer_ceil": floor(x + _HALF),
        }[rounding]
        indices.append(min(max(index, 0), size - 1))
    return indices
