"""Where channels and phases are: against pixel shuffles done one by one."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deployconv.restrictions import ChannelOrder
from deployconv.rewrites.channel_layout import (
    after_pixel_shuffle,
    in_order,
    keeps_groups,
    prime_factors,
    reordered,
    shuffle_order,
)

Array = NDArray[Any]


def shuffle(x: Array, stride: tuple[int, ...], order: ChannelOrder) -> Array:
    """``[C * s_1 * .. * s_n, m_1 .. m_n]`` -> ``[C, s_1 * m_1 .. s_n * m_n]``, as ONNX has it."""
    rank, sizes = len(stride), x.shape[1:]
    channels = len(x) // prod(stride)
    made = np.empty((channels, *(s * m for s, m in zip(stride, sizes, strict=True))), x.dtype)
    for number, phase in enumerate(np.ndindex(*stride)):
        crd, dcr = slice(number, None, prod(stride)), slice(number * channels, None)
        part = x[crd] if order == "CRD" else x[dcr][:channels]
        where = tuple(slice(phase[axis], None, stride[axis]) for axis in range(rank))
        made[(slice(None), *where)] = part
    return made


@st.composite
def shuffles(draw: st.DrawFn) -> list[tuple[tuple[int, ...], ChannelOrder]]:
    rank = draw(st.integers(1, 3))
    stride = st.tuples(*[st.integers(1, 3 if rank < 3 else 2)] * rank)
    orders: st.SearchStrategy[ChannelOrder] = st.sampled_from(["CRD", "DCR"])
    return draw(st.lists(st.tuples(stride, orders), min_size=1, max_size=3))


@given(shuffles(), st.integers(1, 3), st.sampled_from(["CRD", "DCR"]))
def test_one_shuffle_does_what_several_do(
    steps: list[tuple[tuple[int, ...], ChannelOrder]], channels: int, last: ChannelOrder
) -> None:
    rank = len(steps[0][0])
    total = tuple(prod(stride[axis] for stride, _ in steps) for axis in range(rank))
    x = np.arange(channels * prod(total) * 2**rank).reshape(-1, *[2] * rank)
    expected, layout = x, in_order(len(x))
    for stride, order in steps:
        expected = shuffle(expected, stride, order)
        layout = after_pixel_shuffle(layout, stride, order)
    by_one = x[shuffle_order(layout, rank, last)]
    actual = shuffle(by_one, total, last)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("order", ["CRD", "DCR"])
@pytest.mark.parametrize(("rank", "stride"), [(1, 8), (2, 4), (2, 6), (3, 4)])
def test_a_step_by_each_prime_factor_does_what_one_shuffle_does(
    rank: int, stride: int, order: ChannelOrder
) -> None:
    total = (stride,) * rank
    layout = in_order(3, total)
    x = np.arange(layout.size * 2**rank).reshape(-1, *[2] * rank)
    actual = x[shuffle_order(layout, rank, order, steps=True)]
    for factor in prime_factors(stride):
        actual = shuffle(actual, (factor,) * rank, order)
    np.testing.assert_array_equal(actual, shuffle(x, total, "CRD"))


def test_prime_factors() -> None:
    assert list(map(prime_factors, (1, 2, 8, 12, 35))) == [[], [2], [2, 2, 2], [2, 2, 3], [5, 7]]


def test_channels_that_are_put_elsewhere_are_found_there() -> None:
    layout = after_pixel_shuffle(in_order(8, (2, 1)), (2, 2), "DCR")
    order = shuffle_order(layout, 2, "DCR")
    held = np.arange(16)[order]
    np.testing.assert_array_equal(held[reordered(layout, order)], layout)


@pytest.mark.parametrize(
    ("stride", "order", "last", "channels", "group", "kept"),
    [
        ((2, 2), "CRD", "CRD", 8, 2, True),
        ((2, 2), "CRD", "DCR", 8, 2, False),
        ((2, 2), "CRD", "CRD", 4, 2, False),
        ((2, 2), "DCR", "CRD", 8, 2, False),
        ((2, 2), "DCR", "CRD", 8, 1, True),
    ],
)
def test_groups(
    stride: tuple[int, ...],
    order: ChannelOrder,
    last: ChannelOrder,
    channels: int,
    group: int,
    kept: bool,
) -> None:
    """8 or 4 channels with two phases behind a layer of stride (2, 1), then a shuffle by 2."""
    layout = after_pixel_shuffle(in_order(channels, (2, 1)), stride, order)
    assert keeps_groups(shuffle_order(layout, len(stride), last), group) == kept
