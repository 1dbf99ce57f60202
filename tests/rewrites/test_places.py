"""Where channels and phases are: against pixel shuffles done one by one."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deployconv.match.site import ChannelOrder
from deployconv.rewrites.lowering.places import in_order, interleaved, keeps_groups, put, shuffled

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


@given(shuffles(), st.integers(1, 3), st.booleans())
def test_one_shuffle_does_what_several_do(
    steps: list[tuple[tuple[int, ...], ChannelOrder]], channels: int, phases_first: bool
) -> None:
    rank = len(steps[0][0])
    total = tuple(prod(stride[axis] for stride, _ in steps) for axis in range(rank))
    x = np.arange(channels * prod(total) * 2**rank).reshape(-1, *[2] * rank)
    expected, places = x, in_order(len(x))
    for stride, order in steps:
        expected = shuffle(expected, stride, order)
        places = shuffled(places, stride, order)
    by_one = x[interleaved(places, rank, phases_first)]
    actual = shuffle(by_one, total, "DCR" if phases_first else "CRD")
    np.testing.assert_array_equal(actual, expected)


def test_channels_that_are_put_elsewhere_are_found_there() -> None:
    places = shuffled(in_order(8, (2, 1)), (2, 2), "DCR")
    order = interleaved(places, 2, phases_first=True)
    held = np.arange(16)[order]
    np.testing.assert_array_equal(held[put(places, order)], places)


@pytest.mark.parametrize(
    ("stride", "order", "phases_first", "channels", "group", "kept"),
    [
        ((2, 2), "CRD", False, 8, 2, True),
        ((2, 2), "CRD", True, 8, 2, False),
        ((2, 2), "CRD", False, 4, 2, False),
        ((2, 2), "DCR", False, 8, 2, False),
        ((2, 2), "DCR", False, 8, 1, True),
    ],
)
def test_groups(
    stride: tuple[int, ...],
    order: ChannelOrder,
    phases_first: bool,
    channels: int,
    group: int,
    kept: bool,
) -> None:
    """8 or 4 channels with two phases behind a layer of stride (2, 1), then a shuffle by 2."""
    places = shuffled(in_order(channels, (2, 1)), stride, order)
    assert keeps_groups(interleaved(places, len(stride), phases_first), group) == kept
