"""Which channel of a convolution at low resolution holds which channel and phase.

Places are an integer array ``[C, s_1 .. s_n, t_1 .. t_n, ..]``: for each channel and the phases
of each layer so far, coarse to fine, the channel that holds it. A convolution puts its output
channels anywhere; a pixel shuffle behind it moves nothing, it only takes the places for those of
fewer channels and more phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.match.site import ChannelOrder

Array = NDArray[Any]


def in_order(channels: int, *levels: Sequence[int]) -> Array:
    """The places of channels that have their phases fastest, those of the last level most so."""
    split = [size for level in levels for size in level]
    return np.arange(channels * prod(split)).reshape(channels, *split)


def shuffled(places: Array, stride: Sequence[int], order: ChannelOrder) -> Array:
    """The same places behind a pixel shuffle by ``stride``."""
    channels, rank = len(places) // prod(stride), len(stride)
    if order == "CRD":
        split, first = (channels, *stride), 1
    else:
        split, first = (*stride, channels), 0
    apart = places.reshape(*split, *places.shape[1:])
    return np.moveaxis(apart, range(first, first + rank), range(-rank, 0))


def interleaved(places: Array, rank: int, phases_first: bool) -> Array:
    """The channels in the order that a shuffle by all strides together reads, ``[C * P]``.

    Axis by axis, the phases of all layers, coarse to fine; in front of or behind the channel.
    """
    phases = [axis for start in range(1, rank + 1) for axis in range(start, places.ndim, rank)]
    order = [*phases, 0] if phases_first else [0, *phases]
    return places.transpose(order).ravel()


def put(places: Array, order: Array) -> Array:
    """Where ``places`` are once channel ``order[i]`` has become channel ``i``."""
    return np.argsort(order)[places]


def keeps_groups(order: Array, group: int) -> bool:
    """True where no output channel leaves its group of a grouped Conv."""
    size = len(order) // group
    return bool((order // size == np.arange(len(order)) // size).all())
