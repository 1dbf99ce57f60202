"""Fit one map per axis to the map of all elements of a tensor.

An index map has the flat index of the input element that each output element is a copy of, or
`ZERO`. An upsampling moves along each axis of an image ``[N, C, i_1 .. i_n]`` by itself, whatever
the order in which the axes of its input are (`image_axes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from deployconv.match.image_axes import AS_THEY_ARE, ImageAxes
from deployconv.match.movement import ZERO, Array


@dataclass(frozen=True)
class AxisMap:
    """Along one axis, output ``o`` reads input ``(o - begin) / stride``.

    Attributes:
        stride: 1 if the axis is not upsampled.
        begin: the first output index that reads input 0; negative if the beginning is cut off.
        hold: True if the division rounds down, False if a remainder reads a zero.
        size: output elements.
        input_size: input elements.
        edge: True if outputs before input 0 and behind the last input read the nearest one.
    """

    stride: int
    begin: int
    hold: bool
    size: int
    input_size: int
    edge: bool = False

    def source(self, index: int) -> int:
        """The input index that output ``index``, any integer, reads; ZERO if it reads none."""
        source, remainder = divmod(index - self.begin, self.stride)
        if self.edge:
            return min(max(source, 0), self.input_size - 1) if 0 <= index < self.size else ZERO
        inside = 0 <= source < self.input_size
        return source if inside and (self.hold or remainder == 0) else ZERO

    @property
    def tail(self) -> int:
        """Output size minus stride times input size."""
        return self.size - self.stride * self.input_size

    @property
    def repetition(self) -> tuple[int, int, int, bool, bool]:
        """The map without the sizes: equal for two maps that repeat elements alike."""
        return self.stride, self.begin, self.tail, self.hold, self.edge


@dataclass(frozen=True, eq=False)
class ConcatInput:
    """One input of a Concat of channels, and the smaller image that it is repeated from, if any.

    Attributes:
        source: name of the smaller image, or of the input itself.
        channels: which channels of the Concat it becomes.
        maps: along each spatial axis, which element of ``source`` an element of the input is.
        sizes: spatial sizes of ``source``; None for each that does not follow from the model.
        only_repeats: True if each element of ``source`` becomes a block of equal ones.
        layers: names of the results of the pointwise layers between ``source`` and the Concat.
    """

    source: str
    channels: range
    maps: tuple[AxisMap, ...]
    sizes: tuple[int | None, ...]
    only_repeats: bool
    layers: tuple[str, ...]

    @property
    def repetition(self) -> tuple[tuple[int, int, int, bool, bool], ...]:
        """How ``source`` is repeated along each axis, the same at all sizes."""
        return tuple(found.repetition for found in self.maps)

    @property
    def upsampled(self) -> bool:
        """True if ``source`` is smaller than the input."""
        return any(found.stride > 1 for found in self.maps)


def fit_axes(
    sources: Array, input_shape: Sequence[int], edges: bool = False
) -> tuple[ImageAxes, tuple[AxisMap, ...]] | None:
    """The axes of the image that a source holds, and the map of each spatial axis.

    Args:
        sources: ``[N, C, o_1 .. o_n]``, flat input index of each output element, or ZERO.
        input_shape: that of the source, whose axes may have another order.
        edges: whether the elements at the ends of an axis may be repeated beyond it.

    Returns:
        None if elements change their batch element or channel, or if the axes do not separate.
    """
    found = separated(sources, input_shape)
    if found is None:
        return None
    axes, vectors = found
    image = axes.of_tensor(input_shape)
    for vector, size in zip(vectors[:2], image[:2], strict=True):
        if not np.array_equal(vector, np.arange(size)):
            return None
    spatial = zip(vectors[2:], image[2:], strict=True)
    maps = [fit_axis(vector, size, edges) for vector, size in spatial]
    fitted = tuple(found for found in maps if found is not None)
    return (axes, fitted) if len(fitted) == len(maps) else None


def separated(sources: Array, shape: Sequence[int]) -> tuple[ImageAxes, list[Array]] | None:
    """Which axis of the source each axis of a result follows, and the index along that axis.

    None if an axis follows none by itself. The ``shape`` is that of the source.
    """
    if not sources.size:
        return None
    first = int((sources != ZERO).argmax())
    place = [int(at) for at in np.unravel_index(first, sources.shape)]
    lines, order = [], list[int | None]()
    for axis in range(sources.ndim):
        line = np.moveaxis(sources, axis, -1)[tuple(place[:axis] + place[axis + 1 :])]
        filled = line != ZERO
        if not filled.any():
            return None
        coordinates = np.unravel_index(np.where(filled, line, 0), tuple(shape))
        lines.append([np.where(filled, along, ZERO) for along in coordinates])
        changing = [at for at, along in enumerate(coordinates) if np.ptp(along[filled]) > 0]
        if len(changing) > 1:
            return None
        order.append(changing[0] if changing else None)
    followed = [axis for axis in order if axis is not None]
    # An axis with one element of the source does not show what it follows: any that is left is
    # right, as the map as a whole shows.
    left = [axis for axis in range(len(shape)) if axis not in followed]
    if len(set(followed)) < len(followed) or len(followed) + len(left) > len(order):
        return None
    rest = iter(left)
    axes = ImageAxes.of([next(rest, None) if axis is None else axis for axis in order])
    vectors = [
        np.minimum(line[0], 0) if axis is None else line[axis]
        for line, axis in zip(lines, axes.order or range(len(shape)), strict=True)
    ]
    # Put together again from its axes, the map must be the one that was measured.
    return (axes, vectors) if np.array_equal(_combined(vectors, axes, shape), sources) else None


def fits(
    sources: Array,
    maps: Sequence[AxisMap],
    input_shape: Sequence[int],
    axes: ImageAxes = AS_THEY_ARE,
) -> bool:
    """Whether ``maps`` and ``axes``, found at other sizes, give ``sources`` for ``input_shape``."""
    image = axes.of_tensor(input_shape)
    resized = [
        replace(found, size=found.tail + found.stride * size, input_size=size)
        for found, size in zip(maps, image[2:], strict=True)
    ]
    spatial = [np.array([found.source(o) for o in range(found.size)], int) for found in resized]
    vectors = [*map(np.arange, image[:2]), *spatial]
    return np.array_equal(_combined(vectors, axes, input_shape), sources)


def _combined(vectors: Sequence[Array], axes: ImageAxes, shape: Sequence[int]) -> Array:
    """The flat input index of each output element, from its index along each axis."""
    expected, valid = np.zeros((), np.int64), np.ones((), bool)
    steps = axes.steps(shape)
    for axis, (vector, step) in reversed(list(enumerate(zip(vectors, steps, strict=True)))):
        along = vector.reshape(-1, *[1] * (len(vectors) - 1 - axis))
        expected, valid = expected + along * step, valid & (along >= 0)
    return np.where(valid, expected, ZERO)


def fit_axis(vector: Array, input_size: int, edges: bool = False) -> AxisMap | None:
    """The AxisMap of the smallest stride that gives ``vector``; None if there is none.

    One that repeats the elements at the ends is tried last, and only with ``edges``.
    """
    filled = np.flatnonzero(vector >= 0)
    if not filled.size:
        return None
    first = int(filled[0])
    for stride in _strides(vector, filled):
        for hold in (False, True):
            # The first block of repeated elements may be cut short, then it begins earlier.
            for cut in range(stride if hold else 1):
                begin = first - stride * int(vector[first]) - cut
                fitted = AxisMap(stride, begin, hold and stride > 1, len(vector), input_size)
                if all(fitted.source(o) == vector[o] for o in range(len(vector))):
                    return fitted
    return _fit_edges(vector, input_size) if edges and len(filled) == len(vector) else None


def _fit_edges(vector: Array, input_size: int) -> AxisMap | None:
    """The AxisMap of an axis whose first and last elements are repeated beyond it.

    Let ``z[h] = x[floor(h / s)]`` be the axis repeated ``s`` times, for ``0 <= h < s*I``. Edge
    padding continues it by ``z[h] = z[0] = x[0]`` for ``h < 0`` and by ``z[h] = z[s*I - 1] =
    x[I - 1]`` for ``h >= s*I``. That is ``x[clamp(floor(h / s))]``, so it is a crop of the
    repetition of ``x`` that is itself padded with its edges, by ``ceil(p / s)`` elements for a
    padding of ``p``.

    Reflection continues it by ``z[-j] = z[j] = x[floor(j / s)]`` for ``j >= 1``, which is ``x[0]``
    for each ``j < s``; and by ``z[s*I - 1 + j] = z[s*I - 1 - j]``, which is ``x[I - 1]`` for each
    ``j < s``. So reflection by fewer than ``s`` elements is edge padding. By ``s`` and more it
    reads ``x[1]``, and no map of this kind fits.
    """
    firsts = _firsts(vector.tolist())
    if len(firsts) < 2:
        return None
    second = sorted(firsts)[1]
    for stride in _strides(vector, np.arange(len(vector))):
        begin = firsts[second] - stride * second
        hold = stride > 1
        fitted = AxisMap(stride, begin, hold, len(vector), input_size, edge=True)
        if all(fitted.source(o) == vector[o] for o in range(len(vector))):
            return fitted
    return None


def _strides(vector: Array, filled: Array) -> list[int]:
    """Strides worth trying: distances between new sources, and the longest block of equal ones."""
    sources = vector[filled].tolist()
    places = [int(filled[at]) for _, at in sorted(_firsts(sources).items())]
    gaps = [after - before for before, after in pairwise(places[:4])]
    return sorted({1, max(Counter(sources).values()), *(gap for gap in gaps if gap > 0)})


def _firsts(values: Sequence[int]) -> dict[int, int]:
    """Where each of the ``values`` stands first."""
    return {value: at for at, value in reversed(list(enumerate(values)))}
