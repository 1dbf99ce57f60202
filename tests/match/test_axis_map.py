"""Which maps of elements are one map per axis, and which are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployconv.match.axis_map import AxisMap, fit_axes, fit_axis, fits
from deployconv.match.image_axes import AS_THEY_ARE, ImageAxes
from deployconv.match.movement import ZERO
from tests.build import Array

axis_maps = st.builds(
    AxisMap,
    stride=st.integers(2, 5),
    begin=st.integers(-6, 6),
    hold=st.booleans(),
    size=st.integers(6, 40),
    input_size=st.integers(3, 8),
)


def vector(axis: AxisMap) -> Array:
    return np.array([axis.source(o) for o in range(axis.size)])


def combined(*axes: AxisMap, front: tuple[int, int] = (2, 3)) -> tuple[Array, tuple[int, ...]]:
    """The flat map of all axes together, and the shape of the input."""
    shape = (*front, *(axis.input_size for axis in axes))
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    for position, axis in enumerate(axes, 2):
        sources = vector(axis)
        numbers = numbers.take(np.maximum(sources, 0), axis=position)
        zero = (sources < 0).reshape(-1, *[1] * (numbers.ndim - 1 - position))
        numbers = np.where(zero, ZERO, numbers)
    return numbers, shape


@given(axis_maps)
def test_a_fitted_map_says_the_same_of_every_element(axis: AxisMap) -> None:
    sources = vector(axis)
    found = fit_axis(sources, axis.input_size)
    if found is None:  # too little of it is seen to tell
        assert len(np.unique(sources[sources >= 0])) < 3
        return
    np.testing.assert_array_equal(vector(found), sources)
    # Extended in both directions, it shows whether that is the same map or another.
    if len(np.unique(sources[sources >= 0])) >= 3:
        assert (found.stride, found.begin, found.hold) == (axis.stride, axis.begin, axis.hold)


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ([0, 1, 2, 3], AxisMap(1, 0, False, 4, 4)),
        ([0, 0, 1, 1, 2, 2], AxisMap(2, 0, True, 6, 3)),
        ([0, -1, 1, -1, 2, -1], AxisMap(2, 0, False, 6, 3)),
        ([0, -1, 1, -1, 2], AxisMap(2, 0, False, 5, 3)),
        ([-1, 0, -1, 1, -1, 2], AxisMap(2, 1, False, 6, 3)),
        ([-1, -1, 0, 1, 2, -1], AxisMap(1, 2, False, 6, 3)),
        ([0, 1, 1, 2, 2], AxisMap(2, -1, True, 5, 3)),
        ([1, 2], AxisMap(1, -1, False, 2, 3)),
        ([0, 0, 1, 1, 2, 2, -1], AxisMap(2, 0, True, 7, 3)),
    ],
)
def test_what_an_upsampling_can_do(sources: list[int], found: AxisMap) -> None:
    assert fit_axis(np.array(sources), found.input_size) == found


@pytest.mark.parametrize(
    "sources",
    [
        [-1, -1, -1],
        [0, 0, 0, 1, 1, 2, 2, 2],
        [2, 1, 0],
        [2, 2, 1, 1, 0, 0],
        [0, 2, 1, 3],
        [0, -1, -1, 1, -1, 2],
        [0, 0, 1, 1, 0, 0],
        [0, 0, -1, 1, 1, -1, 2, 2, -1],
        [0, 0, 1, 1, 2, 2, 2, 2],
        [-1, 0, 0, 1, 1, 2],
    ],
    ids=str,
)
def test_what_none_can_do(sources: list[int]) -> None:
    assert fit_axis(np.array(sources), max(sources) + 1 if sources[-1] != 2 else 3) in (
        None,
        # The last block of equal elements may be cut short: the axis ends there.
        *([AxisMap(2, 1, True, 6, 3)] if sources == [-1, 0, 0, 1, 1, 2] else []),
    )


@given(axis_maps, axis_maps)
def test_axes_that_separate(first: AxisMap, second: AxisMap) -> None:
    sources, shape = combined(first, second)
    found = fit_axes(sources, shape)
    if found is not None:
        axes, maps = found
        assert axes == AS_THEY_ARE
        again, _ = combined(*maps)
        np.testing.assert_array_equal(again, sources)


@pytest.mark.parametrize("change", ["one element", "diagonal", "channels", "batch", "zero"])
def test_axes_that_do_not(change: str) -> None:
    axes = AxisMap(2, 0, True, 6, 3), AxisMap(2, 0, True, 6, 3)
    sources, shape = combined(*axes)
    assert fit_axes(sources, shape) == (AS_THEY_ARE, axes)
    if change == "one element":
        sources[0, 0, 0, 0] += 1
    elif change == "diagonal":
        sources[:, :, 2:4, 2:4] = sources[:, :, 2:4, 2:4].swapaxes(2, 3)
        sources[:, :, 2, 2], sources[:, :, 3, 3] = 3, 0
    elif change == "channels":
        sources = sources[:, ::-1].copy()
    elif change == "batch":
        sources = sources[::-1].copy()
    else:
        sources[1, 2, 3, 4] = ZERO
    assert fit_axes(sources, shape) is None


def test_a_map_of_nothing_is_none() -> None:
    assert fit_axes(np.full((1, 2, 4, 4), ZERO), (1, 2, 2, 2)) is None


ORDERS = [(0, 3, 1, 2), (0, 1, 3, 2), (3, 0, 1, 2), (2, 3, 0, 1)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_axes_in_another_order(order: tuple[int, ...]) -> None:
    """The source has its axes in another order than the image ``[N, C, ..]``."""
    axes, maps = ImageAxes(order), (AxisMap(2, 1, True, 7, 3), AxisMap(3, 0, False, 12, 4))
    of_image, image = combined(*maps)
    shape = axes.to_tensor(image)
    assert axes.of_tensor(shape) == image
    numbers = np.arange(np.prod(shape)).reshape(shape).transpose(order).ravel()
    sources = np.where(of_image == ZERO, ZERO, numbers[of_image])
    assert fit_axes(sources, shape) == (axes, maps)
    assert fits(sources, maps, shape, axes)
    assert not fits(sources, maps, image)


@pytest.mark.parametrize(
    ("order", "image"),
    [((0, 2, None, 1), (2, 3, 1, 4)), ((None, 0, 1), (1, 3, 4)), ((0, None, 1), (2, 1, 4))],
    ids=str,
)
def test_axes_that_the_source_lacks(order: tuple[int | None, ...], image: tuple[int, ...]) -> None:
    axes = ImageAxes(order)
    shape = axes.to_tensor(image)
    assert len(shape) == len(image) - 1
    numbers = np.arange(np.prod(shape)).reshape(shape).transpose(axes.perm).reshape(image)
    sources = numbers.repeat(2, axis=-1)
    found = fit_axes(sources, shape)
    assert found is not None
    assert found[0] == axes
    assert [fitted.stride for fitted in found[1]] == [*[1] * (len(image) - 3), 2]


def test_a_source_with_more_axes_than_the_image_is_none() -> None:
    assert fit_axes(np.arange(24).reshape(2, 3, 4), (2, 3, 2, 2)) is None


def test_a_map_without_elements_is_none() -> None:
    assert fit_axes(np.zeros((0, 2, 4), int), (0, 2, 4)) is None


@given(axis_maps, st.integers(1, 9))
def test_the_same_map_at_another_size(axis: AxisMap, size: int) -> None:
    other = AxisMap(
        axis.stride, axis.begin, axis.hold, max(1, axis.tail + axis.stride * size), size
    )
    sources, shape = combined(other)
    expected = axis.tail + axis.stride * size >= 1
    assert fits(sources, (axis,), shape) == expected
    if (sources != ZERO).any():
        sources.flat[np.flatnonzero(sources != ZERO)[0]] = ZERO
        assert not fits(sources, (axis,), shape)
