"""Find which input element each output element of a data movement reads, axis by axis.

Upsampling is exported in many ways: Resize; Reshape, Pad and Reshape; ScatterND; and others. All
are recognised alike, whatever their operators. The nodes run on the numbers of their own input
elements. The index map that results is compared with the maps that an upsampling layer can have.

For dynamic sizes the map is made at a few of them. The movement does the same at all sizes if its
nodes, and the arithmetic of its shapes and indices, have a result on polynomials in the sizes
(`graph/symbolic`): then no size is a threshold for any of them. A few sizes are enough to show
that these polynomials are the right ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.shapes import Instance
from deployconv.graph.symbolic import Spread, Unproven
from deployconv.graph.tensors import dtype_name
from deployconv.match.movement import ZERO, Movement, Segment
from deployconv.match.pointwise import per_channel
from deployconv.results import Pattern

Array = NDArray[Any]

_SIZES = ((1, 1, 1, 1), (3, 5, 7, 2), (7, 2, 5, 3), (11, 13, 4, 6))
"""Given to the first, second, .. dynamic dimension, in addition to the sizes of `Shapes`."""
_LONGEST_PERIOD = 16
"""The longest period of indices that repeat: far below the sizes of `Shapes`."""


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
        return tuple((one.stride, one.begin, one.tail, one.hold, one.edge) for one in self.maps)

    @property
    def upsampled(self) -> bool:
        """True if ``source`` is smaller than the input."""
        return any(found.stride > 1 for found in self.maps)


@dataclass(frozen=True, eq=False)
class Upsampling:
    """A movement that upsamples, and the map of each spatial axis."""

    movement: Movement
    maps: tuple[AxisMap, ...]
    channels_in_batch: bool
    """True if the movement makes every channel a batch element of its own."""
    proven: bool = True
    """False if the movement may do something else at sizes that were not tried."""

    @property
    def pattern(self) -> Pattern:
        """Nearest Resize repeats the elements, zero insertion leaves zeros between them."""
        return "nearest_resize" if any(found.hold for found in self.maps) else "zero_insertion"

    @property
    def invariant(self) -> tuple[object, ...]:
        """What must not depend on the sizes."""
        axes = (
            (found.stride, found.begin, found.hold, found.tail, found.edge) for found in self.maps
        )
        return self.channels_in_batch, *axes

    @property
    def sets_zeros(self) -> bool:
        """True if an element of the result is zero whatever the input."""
        return any(
            found.source(index) == ZERO for found in self.maps for index in range(found.size)
        )

    @property
    def only_repeats(self) -> bool:
        """True if every input element becomes a block of equal elements, and nothing else."""
        return all(
            found.begin == 0 and found.tail == 0 and (found.hold or found.stride == 1)
            for found in self.maps
        )


def upsampling_of(
    movement: Movement, channels: int | None, rank: int | None, dtype: str, zero: float = 0.0
) -> Upsampling | None:
    """``movement`` with the map of each axis; None if it is no upsampling at one of the sizes.

    Args:
        movement: a movement; one with stride 1 on every axis counts as upsampling too.
        channels: of the source, None if unknown.
        rank: dimensions of the source, None if unknown.
        dtype: element type of the source.
        zero: the value of the elements that the movement sets: 0, or a zero point of integers.
    """
    agreed: Upsampling | None = None
    for instance in movement.instances(channels, rank):
        shape = instance[movement.source.name]
        if len(instance.get(movement.target.name, shape)) != len(shape):
            return None  # without making the map, which takes long for large images
        sources = movement.index_map(instance, dtype, zero)
        if sources is None or not 3 <= sources.ndim <= 5 or sources.ndim != len(shape):
            return None
        if not all(_commutes(segment, movement, instance) for segment in movement.pointwise):
            return None
        in_batch = sources.shape[:2] == (shape[0] * shape[1], 1) and shape[1] > 1
        kept = _with_channels_in_batch(shape) if in_batch else shape
        maps = fit_axes(sources, kept, movement.pads_with_edges)
        if maps is None:
            return None
        found = Upsampling(movement, maps, in_batch)
        if agreed is not None and agreed.invariant != found.invariant:
            return None
        agreed = found
    if agreed is None or not movement.dynamic:
        return agreed
    maps, in_batch = agreed.maps, agreed.channels_in_batch

    def is_same(sources: Array, shape: tuple[int, ...]) -> bool:
        return fits(sources, maps, _with_channels_in_batch(shape) if in_batch else shape)

    return replace(agreed, proven=holds_at_all_sizes(movement, dtype, is_same))


def _with_channels_in_batch(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape ``[N, C, ..]`` as ``[N * C, 1, ..]``."""
    batch, channels, *sizes = shape
    return batch * channels, 1, *sizes


def _commutes(segment: Segment, movement: Movement, instance: Instance) -> bool:
    """Whether a pointwise ``segment`` does the same to the source of the movement.

    Values that it has per channel must meet the same channels there.
    """
    view, scope, shape = movement.view, movement.scope, instance[movement.source.name]
    layers = [per_channel(node, scope, view) for node in segment.nodes]
    if any(rank > len(shape) for _, rank in layers):
        return False
    if not any(by_channel for by_channel, _ in layers):
        return True
    before = movement.until(segment)
    sources = before.index_map(instance, dtype_name(segment.source.dtype) or "float32")
    if sources is None or sources.ndim != len(shape):
        return False
    channels = np.unravel_index(np.maximum(sources, 0), shape)[1]
    expected = np.arange(sources.shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    return bool((channels == expected)[sources != ZERO].all())


def fit_axes(
    sources: Array, input_shape: Sequence[int], edges: bool = False
) -> tuple[AxisMap, ...] | None:
    """The map of each spatial axis, if ``sources`` consists of one map per axis.

    Args:
        sources: ``[N, C, o_1 .. o_n]``, flat input index of each output element, or ZERO.
        input_shape: ``[N, C, i_1 .. i_n]``.
        edges: whether the elements at the ends of an axis may be repeated beyond it.

    Returns:
        One map per spatial axis; None if elements change their batch element or channel, or if
        the axes do not separate.
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
        fit_axis(vector, size, edges)
        for vector, size in zip(vectors[2:], input_shape[2:], strict=True)
    ]
    fitted = tuple(found for found in maps if found is not None)
    return fitted if len(fitted) == len(maps) else None


def fits(sources: Array, maps: Sequence[AxisMap], input_shape: Sequence[int]) -> bool:
    """Whether ``maps``, found at other sizes, give ``sources`` for ``input_shape``."""
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
    """The same for an axis whose elements at the ends are repeated beyond it.

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
    values, firsts = np.unique(vector, return_index=True)
    if len(values) < 2:
        return None
    for stride in _strides(vector, np.arange(len(vector))):
        begin = int(firsts[1]) - stride * int(values[1])
        hold = stride > 1
        fitted = AxisMap(stride, begin, hold, len(vector), input_size, edge=True)
        if all(fitted.source(o) == vector[o] for o in range(len(vector))):
            return fitted
    return None


def _strides(vector: Array, filled: Array) -> list[int]:
    """Strides worth trying: distances between new sources, and the longest block of equal ones."""
    _, firsts, lengths = np.unique(vector[filled], return_index=True, return_counts=True)
    gaps = np.diff(filled[firsts])
    candidates = {1, int(lengths.max())} | {int(gap) for gap in gaps[:3] if gap > 0}
    return sorted(candidates)


def holds_at_all_sizes(
    movement: Movement, dtype: str, is_same: Callable[[Array, tuple[int, ...]], bool]
) -> bool:
    """Whether a movement of dynamic sizes is shown to do the same at all of them.

    ``is_same`` is given the index map, and the source's shape, at sizes of all kinds.
    """
    try:
        for instance in _instances_of_all_kinds(movement):
            sources = movement.index_map(instance, dtype)
            if sources is None or not is_same(sources, instance[movement.source.name]):
                return False
    except Unproven:
        return False
    return True


def _instances_of_all_kinds(movement: Movement) -> Iterator[Instance]:
    """Shapes of everything that ``movement`` depends on, at small, large, odd and even sizes.

    Raises Unproven if the movement may do something else at some size.
    """
    scope, known = movement.scope, movement.view.open_shapes
    skipped = {id(node) for segment in movement.pointwise for node in segment.nodes}
    for node in movement.nodes:
        if id(node) in skipped:
            continue
        if not known.is_proven(node, scope):
            raise Unproven
        for tensor in node.inputs:
            if tensor.name and movement.view.is_data_free(tensor, movement.scope):
                _check_rule(tensor, movement)
    free = {
        tensor.name: known.of(tensor, scope).shape
        for tensor in (movement.source, *movement.outside())
    }
    symbols = sorted({name for shape in free.values() for size in shape for name in size.symbols})
    for sizes in _SIZES:
        assigned = {name: sizes[at % len(sizes)] for at, name in enumerate(symbols)}
        instance = {
            name: tuple(int(size.at(assigned)) for size in shape) for name, shape in free.items()
        }
        if all(size > 0 for shape in instance.values() for size in shape):
            yield instance


def _check_rule(tensor: gs.Tensor, movement: Movement) -> None:
    """Refuse indices, masks and shapes unless each element is known, or all follow one rule.

    Raises Unproven.
    """
    if movement.view.constants.of(tensor, movement.scope) is not None:
        return
    elements = movement.view.open_shapes.of(tensor, movement.scope).elements
    if elements is None:
        raise Unproven
    if isinstance(elements, Spread):
        if elements.period > _LONGEST_PERIOD:
            raise Unproven
    elif any(element is None for element in elements.ravel()):
        raise Unproven
