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
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.shapes import Instance
from deployconv.graph.symbolic import Spread, Unproven
from deployconv.graph.tensors import dtype_name
from deployconv.match.axis_map import AxisMap, fit_axes, fit_axis, fits, separated
from deployconv.match.image_axes import ImageAxes
from deployconv.match.movement import ZERO, Movement, Segment
from deployconv.match.pointwise import values_along
from deployconv.results import Pattern, Reason

Array = NDArray[Any]

_SIZES = ((1, 1, 1, 1), (3, 5, 7, 2), (7, 2, 5, 3), (11, 13, 4, 6))
"""Given to the first, second, .. dynamic dimension, in addition to the sizes of `Shapes`."""
_LONGEST_PERIOD = 16
"""The longest period of indices that repeat: far below the sizes of `Shapes`."""

UNEVEN = Reason("unsupported-rounding", "its rounding repeats the pixels unevenly")
"""Why a Resize by a whole factor that is not even (`is_even`) cannot be rewritten."""


@dataclass(frozen=True, eq=False)
class Upsampling:
    """A movement that upsamples, and the map of each spatial axis."""

    movement: Movement
    maps: tuple[AxisMap, ...]
    axes: ImageAxes
    """Which axes of the source are batch, channels and spatial axes."""
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
        """The parts of this map that have to be the same at all sizes."""
        repetitions = (found.repetition for found in self.maps)
        return self.axes, self.channels_in_batch, *repetitions

    @property
    def stride(self) -> int:
        """How many elements each element of the source becomes, all axes together."""
        return prod(found.stride for found in self.maps)

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
        if not _may_be_image(instance.get(movement.target.name), shape):
            return None  # without making the map, which takes long for large images
        sources = movement.index_map(instance, dtype, zero)
        if sources is None or not 3 <= sources.ndim <= 5:
            return None
        in_batch = sources.shape[:2] == (prod(shape[:2]), 1) and shape[1] > 1
        image = _with_channels_in_batch(shape) if in_batch else shape
        fitted = fit_axes(sources, image, movement.pads_with_edges)
        if fitted is None or (in_batch and fitted[0].order):
            return None
        axes, maps = fitted
        others = [*_others(movement, instance, axes.channels)]
        if others:  # values per row, say: a mask of zeros and ones moves elements
            moving = movement.counting(others)
            return upsampling_of(moving, channels, rank, dtype, zero) if moving else None
        found = Upsampling(movement, maps, axes, in_batch)
        if agreed is not None and agreed.invariant != found.invariant:
            return None
        agreed = found
    if agreed is None or not movement.dynamic:
        return agreed
    maps, axes, in_batch = agreed.maps, agreed.axes, agreed.channels_in_batch

    def is_same(sources: Array, shape: tuple[int, ...]) -> bool:
        return fits(sources, maps, _with_channels_in_batch(shape) if in_batch else shape, axes)

    return replace(agreed, proven=holds_at_all_sizes(movement, dtype, is_same))


def _with_channels_in_batch(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape ``[N, C, ..]`` as ``[N * C, 1, ..]``."""
    batch, channels, *sizes = shape
    return batch * channels, 1, *sizes


def _may_be_image(target: Sequence[int] | None, source: Sequence[int]) -> bool:
    """Whether a result of this shape, None if unknown, may have the axes of the source.

    It may have more axes only if these are of size 1.
    """
    if target is None or len(target) == len(source):
        return True
    longer = [sum(size > 1 for size in shape) for shape in (source, target)]
    return len(target) > len(source) and longer[0] >= longer[1]


def _others(movement: Movement, instance: Instance, channels: int | None) -> Iterator[Segment]:
    """The pointwise segments that would do something else to the source of the movement.

    Values that they have per channel must meet the same ``channels``, an axis of the source, there.
    """
    view, scope, shape = movement.view, movement.scope, instance[movement.source.name]
    for run in movement.pointwise_runs:
        met: Array | None = None
        for segment in run:
            layers = [values_along(node, scope, view) for node in segment.nodes]
            varying = {axis for axis, _ in layers if axis is not None}
            known = len(instance.get(segment.source.name, shape))
            if varying and met is None and channels is not None:
                met = _channels_met(movement.until(run[0]), instance, channels)
            if any(rank > known for _, rank in layers) or not all(
                met is not None and _counts(met, axis) for axis in varying
            ):
                yield segment


def _channels_met(movement: Movement, instance: Instance, channels: int) -> Array | None:
    """The channel of the source that each element of the target is from, or ZERO."""
    shape = instance[movement.source.name]
    sources = movement.index_map(instance, dtype_name(movement.target.dtype) or "float32")
    if sources is None:
        return None
    return np.where(sources == ZERO, ZERO, sources // prod(shape[channels + 1 :]) % shape[channels])


def _counts(met: Array, axis: int) -> bool:
    """Whether indices are 0, 1, 2 .. along ``axis``, wherever they are not ZERO."""
    if not -met.ndim <= axis < met.ndim:
        return False
    along = np.moveaxis(met, axis, -1)
    return bool(((along == np.arange(along.shape[-1])) | (along == ZERO)).all())


def is_even(movement: Movement, channels: int, rank: int, dtype: str) -> bool:
    """Whether ``movement`` repeats each element equally often, along all axes of its source.

    The arguments are those of `upsampling_of`.
    """
    instances = movement.instances(channels, rank)
    for instance in instances:
        shape = instance[movement.source.name]
        sources = movement.index_map(instance, dtype)
        found = None if sources is None else separated(sources, shape)
        if found is None:
            return False
        axes, vectors = found
        if None in map(fit_axis, vectors, axes.of_tensor(shape)):
            return False
    return bool(instances)


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
