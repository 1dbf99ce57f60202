"""Find out whether a movement is a pixel shuffle, from its index map: stride, order and layouts.

``y[n, c, s*i + q]`` is ``x[n, channel(c, q), i]``. The layouts of x and y are brought to channels
first before that is compared (`image_layout`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployconv.graph.shapes import Instance
from deployconv.graph.tensors import dtype_name
from deployconv.match.image_layout import ImageLayout, LayoutName, between, enlarged, layouts
from deployconv.match.index_map import holds_at_all_sizes
from deployconv.match.movement import Movement
from deployconv.restrictions import ChannelOrder

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class FoundShuffle:
    """A movement that is a pixel shuffle, and the layouts of the images before and after it."""

    movement: Movement
    stride: tuple[int, ...]
    order: ChannelOrder
    source: LayoutName = "first"
    target: LayoutName = "first"
    channels: tuple[int, ...] | None = None
    """Where the channels of ``order`` stand (`fit_channels`), if not in this order."""

    @property
    def kept(self) -> bool:
        """Whether it stays as it is: no Conv has its input's or its output's layout."""
        return self.source != "first" or self.target == "tokens"

    @property
    def last(self) -> bool:
        """Whether the channels of the result are its last axis."""
        return self.target != "first"

    @property
    def invariant(self) -> tuple[object, ...]:
        """The parts of this map that have to be the same at all sizes."""
        return self.stride, self.order, self.source, self.target, self.channels


def shuffle_of(movement: Movement) -> FoundShuffle | None:
    """The shuffle that ``movement`` is; None if it is none, or not the same at all sizes."""
    x = movement.source
    instances = movement.view.instances(movement.scope, x, *movement.outside())
    dtype = dtype_name(x.dtype) or "float32"
    agreed: FoundShuffle | None = None
    if movement.overridable():
        return None
    for instance in instances:
        found = _fitting(movement, instance, dtype)
        if found is None or (agreed is not None and agreed.invariant != found.invariant):
            return None
        agreed = found
    if agreed is None or agreed.kept or not movement.dynamic:
        return agreed
    stride, order, name = agreed.stride, agreed.order, agreed.target

    def is_same(sources: Array, shape: tuple[int, ...]) -> bool:
        after = next((one for one in layouts(sources.shape, ()) if one.name == name), None)
        if after is None or _stride(shape, after.image) != stride:
            return False
        channels = fit_channels(after.to_first(sources), shape, stride)
        if channels is None:
            return False
        if agreed.channels is not None:
            return agreed.channels == tuple(channels.tolist())
        return order_of(channels, prod(stride)) == order

    return agreed if holds_at_all_sizes(movement, dtype, is_same) else None


def _fitting(movement: Movement, instance: Instance, dtype: str) -> FoundShuffle | None:
    """The shuffle that ``movement`` is with the shapes of ``instance``, in whatever layouts."""
    shape, result = instance[movement.source.name], instance.get(movement.target.name)
    made = (instance.get(out.name, ()) for node in movement.nodes for out in node.outputs)
    grids = {(each[1], each[2]) for each in made if len(each) == _SPLIT}
    # If the shape of the result is known, it rules out most others.
    pairs = [] if result is None else list(_pairs(shape, result, sorted(grids)))
    if result is not None and not pairs:
        return None
    sources = movement.index_map(instance, dtype)
    if sources is None or sources.min(initial=0) < 0:
        return None
    for source, target, stride in pairs or _pairs(shape, sources.shape, sorted(grids)):
        channels = fit_channels(between(sources, source, target), source.image, stride)
        if channels is not None:
            order = order_of(channels, prod(stride))
            other = tuple(channels.tolist()) if order is None else None
            return FoundShuffle(movement, stride, order or "CRD", source.name, target.name, other)
    return None


_SPLIT = 6
"""Dimensions of ``[N, H, W, s_1, s_2, C]``, which is how a shuffle of tokens is written."""


def _pairs(
    shape: Sequence[int], result: Sequence[int], grids: Sequence[tuple[int, int]]
) -> Iterator[tuple[ImageLayout, ImageLayout, tuple[int, ...]]]:
    """The layouts that tensors of these shapes may have before and after a shuffle; its stride."""
    finer = [large for grid in grids for large in enlarged(grid, result[1])] if grids else []
    for source in layouts(shape, grids):
        for target in layouts(result, finer):
            stride = _stride(source.image, target.image)
            if stride is not None:
                yield source, target, stride


def _stride(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...] | None:
    """The factor of each spatial axis, if the two shapes are those of a shuffle."""
    if len(before) != len(after) or not 3 <= len(before) <= 5 or before[0] != after[0]:
        return None
    if any(size % old for old, size in zip(before[2:], after[2:], strict=True)):
        return None
    stride = tuple(size // old for old, size in zip(before[2:], after[2:], strict=True))
    return stride if prod(stride) > 1 and before[1] == after[1] * prod(stride) else None


def order_of(channels: Array, phases: int) -> ChannelOrder | None:
    """The channel order of ``channels``, as `fit_channels` gives them; None for another one."""
    numbers = np.arange(channels.size)
    if np.array_equal(channels, numbers):
        return "CRD"
    return "DCR" if np.array_equal(channels, numbers.reshape(phases, -1).T.ravel()) else None


def fit_channels(sources: Array, input_shape: Sequence[int], stride: Sequence[int]) -> Array | None:
    """The input channel of phase ``q`` of channel ``c``, ``[C * P]`` with the phase fastest.

    Args:
        sources: ``[N, C, s_1*i_1 ..]``, flat input index of each output element.
        input_shape: ``[N, C * s_1 * .. * s_n, i_1 .. i_n]``.
        stride: ``s_1 .. s_n``.

    Returns:
        None if ``sources`` does not move channels into space.
    """
    batch, depth, *sizes = input_shape
    rank, area = len(stride), prod(sizes)
    blocks = sources.reshape(
        batch, -1, *(part for pair in zip(sizes, stride, strict=True) for part in pair)
    )
    apart = blocks.transpose(0, 1, *range(3, 3 + 2 * rank, 2), *range(2, 2 + 2 * rank, 2))
    apart = apart.reshape(batch, depth, area)
    channels = apart[0, :, 0] // area
    expected = np.arange(prod(input_shape)).reshape(batch, depth, area)
    if not np.array_equal(np.sort(channels), np.arange(depth)):
        return None
    return channels if np.array_equal(expected[:, channels], apart) else None
