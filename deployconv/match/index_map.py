"""From where does each element come? The map of a data movement, and what it is per axis.

Spellings are many; what they do is one thing. A chain of Reshape, Transpose, Pad, ScatterND
and the like is run on its own element numbers, and the map that comes out is compared with
the maps that an upsampling layer can have. No operator's name decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.match.movement import ZERO

Array = NDArray[Any]


@dataclass(frozen=True)
class AxisMap:
    """Along one axis, output ``o`` reads input ``(o - begin) / stride``.

    Attributes:
        stride: 1 where the axis is not upsampled.
        begin: output index that reads input 0 first; negative where the front is cut off.
        hold: True where the division rounds down, False where a remainder is a zero.
        size: output elements.
        input_size: input elements.
    """

    stride: int
    begin: int
    hold: bool
    size: int
    input_size: int

    def source(self, index: int) -> int:
        """The input index that ``index`` reads, for any integer; ZERO where none."""
        source, remainder = divmod(index - self.begin, self.stride)
        inside = 0 <= source < self.input_size
        return source if inside and (self.hold or remainder == 0) else ZERO

    @property
    def tail(self) -> int:
        """Output size minus stride times input size."""
        return self.size - self.stride * self.input_size


def fit_axes(sources: Array, input_shape: Sequence[int]) -> tuple[AxisMap, ...] | None:
    """The map of each spatial axis, if ``sources`` is made of one per axis and nothing else.

    Args:
        sources: ``[N, C, o_1 .. o_n]``, flat input index of each output element, or ZERO.
        input_shape: ``[N, C, i_1 .. i_n]``.

    Returns:
        One map per spatial axis; None where batch or channels move or the axes do not
        separate.
    """
    if sources.ndim != len(input_shape) or sources.shape[:2] != tuple(input_shape[:2]):
        return None
    filled = sources >= 0
    if not filled.any():
        return None
    coordinates = np.unravel_index(np.where(filled, sources, 0), tuple(input_shape))
    vectors = []
    for axis in range(sources.ndim):
        others = tuple(other for other in range(sources.ndim) if other != axis)
        along = np.where(filled, coordinates[axis], ZERO)
        vectors.append(along.max(axis=others))
    # Put together again from its axes, the map must be the one that was measured.
    if not np.array_equal(_combined(vectors, input_shape), sources):
        return None
    for axis in (0, 1):
        if not np.array_equal(vectors[axis], np.arange(input_shape[axis])):
            return None
    maps = [
        fit_axis(vector, size) for vector, size in zip(vectors[2:], input_shape[2:], strict=True)
    ]
    fitted = tuple(found for found in maps if found is not None)
    return fitted if len(fitted) == len(maps) else None


def fits(sources: Array, maps: Sequence[AxisMap], input_shape: Sequence[int]) -> bool:
    """Whether ``sources`` is what ``maps``, found at other sizes, say for ``input_shape``."""
    resized = [
        replace(found, size=found.tail + found.stride * size, input_size=size)
        for found, size in zip(maps, input_shape[2:], strict=True)
    ]
    spatial = [np.array([found.source(o) for o in range(found.size)], int) for found in resized]
    vectors = [*map(np.arange, input_shape[:2]), *spatial]
    return np.array_equal(_combined(vectors, input_shape), sources)


def _combined(vectors: Sequence[Array], input_shape: Sequence[int]) -> Array:
    """The flat input index of each output element, from its index along each axis."""
    expected, valid, step = np.zeros((), np.int64), np.ones((), bool), 1
    for axis, vector in reversed(list(enumerate(vectors))):
        along = vector.reshape(-1, *[1] * (len(vectors) - 1 - axis))
        expected, valid = expected + along * step, valid & (along >= 0)
        step *= input_shape[axis]
    return np.where(valid, expected, ZERO)


def fit_axis(vector: Array, input_size: int) -> AxisMap | None:
    """The AxisMap that gives ``vector``, smallest stride first; None where there is none."""
    filled = np.flatnonzero(vector >= 0)
    if not filled.size:
        return None
    first = int(filled[0])
    for stride in _strides(vector, filled):
        for hold in (False, True):
            # The first run of a held axis may be cut short, so that it begins further back.
            for cut in range(stride if hold else 1):
                begin = first - stride * int(vector[first]) - cut
                fitted = AxisMap(stride, begin, hold and stride > 1, len(vector), input_size)
                if all(fitted.source(o) == vector[o] for o in range(len(vector))):
                    return fitted
    return None


def _strides(vector: Array, filled: Array) -> list[int]:
    """Strides worth trying: the distance between new sources, the length of a run."""
    _, firsts, lengths = np.unique(vector[filled], return_index=True, return_counts=True)
    gaps = np.diff(filled[firsts])
    candidates = {1, int(lengths.max())} | {int(gap) for gap in gaps[:3] if gap > 0}
    return sorted(candidates)
