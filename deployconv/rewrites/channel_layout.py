"""Which channel of a low-resolution tensor holds which channel and phase of the image.

A channel layout is an integer array ``[C, s_1 .. s_n, t_1 .. t_n, ..]``: for each channel and for
the phases of each layer so far, coarse to fine, the index of the low-resolution channel that holds
it. A convolution may put its output channels in any order. A pixel shuffle after it moves no data:
it only reads the same channels as fewer channels with more phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.restrictions import ChannelOrder

Array = NDArray[Any]


def in_order(channels: int, *levels: Sequence[int]) -> Array:
    """The channel layout in which phases change fastest, those of the last level most so."""
    split = [size for level in levels for size in level]
    return np.arange(channels * prod(split)).reshape(channels, *split)


def after_pixel_shuffle(layout: Array, stride: Sequence[int], order: ChannelOrder) -> Array:
    """The same layout as seen after a pixel shuffle by ``stride``."""
    channels, rank = len(layout) // prod(stride), len(stride)
    if order == "CRD":
        split, first = (channels, *stride), 1
    else:
        split, first = (*stride, channels), 0
    apart = layout.reshape(*split, *layout.shape[1:])
    return np.moveaxis(apart, range(first, first + rank), range(-rank, 0))


def shuffle_order(layout: Array, rank: int, order: ChannelOrder, steps: bool = False) -> Array:
    """The channels in the order that one shuffle by all strides together reads, ``[C * P]``.

    The phases of all layers are joined axis by axis, coarse to fine; they change faster than the
    channel for ``CRD`` and slower for ``DCR``. With ``steps`` the shuffle is one by each prime
    factor of a stride that all axes have: each step moves the phases that are the slowest (DCR) or
    the fastest (CRD) of those that are left.
    """
    phases = [axis for start in range(1, rank + 1) for axis in range(start, layout.ndim, rank)]
    joined = layout.transpose(0, *phases)
    if steps:
        stride = round(prod(joined.shape[1:]) ** (1 / rank))
        factors = prime_factors(stride)
        joined = joined.reshape(len(layout), *factors * rank)
        levels = range(len(factors)) if order == "DCR" else reversed(range(len(factors)))
        count = len(factors)
        joined = joined.transpose(
            0, *(1 + axis * count + level for level in levels for axis in range(rank))
        )
    return (np.moveaxis(joined, 0, -1) if order == "DCR" else joined).ravel()


def prime_factors(number: int) -> list[int]:
    """The prime factors of ``number``, the smallest first."""
    found, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return found


def reordered(layout: Array, order: Array) -> Array:
    """The layout after channel ``order[i]`` has become channel ``i``."""
    return np.argsort(order)[layout]


def keeps_groups(order: Array, group: int) -> bool:
    """Whether a permutation moves no channel to another group of a grouped Conv."""
    size = len(order) // group
    return bool((order // size == np.arange(len(order)) // size).all())
