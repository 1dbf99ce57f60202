"""Exact factors of kernels: found wherever there are some, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployconv.rewrites.factors import factors
from tests.build import Array, integers

FLOATS: tuple[Any, ...] = (np.float16, np.float32, np.float64)


def triangle(stride: int) -> Array:
    """The taps of bilinear interpolation, of which there are twice the stride."""
    taps = np.arange(2 * stride) + 0.5
    return np.asarray(1 - np.abs(taps / stride - 1), np.float64)


def product(*taps: Sequence[float] | Array) -> Array:
    """One kernel, ``[1, k_1 .. k_n]``."""
    made = np.ones(())
    for factor in taps:
        made = np.multiply.outer(made, np.asarray(factor, np.float64))
    return np.asarray(made)[None]


def elements(found: Sequence[Array]) -> list[Fraction]:
    """Of the products, channel after channel, without any rounding."""
    made = [[Fraction(1)] for _ in found[0]]
    for factor in found:
        made = [
            [one * Fraction(float(tap)) for one in channel for tap in taps]
            for channel, taps in zip(made, factor, strict=True)
        ]
    return [element for channel in made for element in channel]


def assert_exact(kernel: Array) -> tuple[Array, ...]:
    """That factors are found, of the right shapes and magnitudes, with exactly this product."""
    found = factors(kernel)
    assert found is not None
    assert [factor.shape for factor in found] == [(len(kernel), k) for k in kernel.shape[1:]]
    assert {factor.dtype for factor in found} == {kernel.dtype}
    assert elements(found) == [Fraction(float(element)) for element in kernel.ravel()]
    largest = np.concatenate([np.abs(factor.astype(float)).max(axis=1) for factor in found[1:]])
    assert (((largest >= 0.5) & (largest < 1)) | (largest == 0)).all()
    return found


FIR = [1, 3, 3, 1]
PRODUCTS = {
    **{f"bilinear_{s}": product(triangle(s), triangle(s)) for s in (2, 4, 8, 32)},
    "fir": product(FIR, FIR) / 64 * 4,
    "negative": product([-1, 2, 0.5], [3, -7]),
    "a_row_of_zeros_first": product([0, 0, 5, 1], [0, 2, 3]),
    "one_element": product([0, 3], [0, 0, 1]),
    "ones": product([1, 1, 1], [1, 1, 1]),
    "one_tap": product([3], [5]),
    "one_negative_tap": product([3, 5], [-1]),
    "zero": product([0, 0], [0, 0, 0]),
    "far_from_one": product(FIR, FIR) * 2.0**-20,
    "three_axes": product(triangle(2), FIR, [1, 2, 1]) / 32,
    "channels": np.concatenate(
        [product(FIR, [2, 3]), product([0, 0, 0, 0], [0, 0]), product([0, 5, 1, 0], [7, -3]) / 16]
    ),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("kernel", PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_has_its_factors(kernel: Array, dtype: Any) -> None:
    stored = kernel.astype(dtype)
    if (stored == kernel).all():  # 63 * 63 / 4096 has a digit more than float16
        assert_exact(stored)
    else:
        assert factors(stored) is None


def test_bilinear_taps_come_back_as_they_are() -> None:
    rows, columns = assert_exact(product(triangle(8), triangle(8)).astype(np.float16))
    np.testing.assert_array_equal(rows[0], triangle(8))
    np.testing.assert_array_equal(columns[0], triangle(8))


NONE: dict[str, Array] = {
    "trained": np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32),
    "trained_product": np.multiply.outer(*np.random.default_rng(1).random((2, 4), np.float32))[
        None
    ],
    "bilinear_3": product(triangle(3), triangle(3)).astype(np.float32),
    "sum_of_two": product(FIR, FIR) + product([1, 0, 0, 1], [1, 0, 0, 1]),
    "one_channel_of_many": np.concatenate([product(FIR, FIR), integers(1, 4, 4)]),
    "planes_alike_rows_not": np.stack([integers(3, 3), 2 * integers(3, 3)])[None],
    "nan": product([1, np.nan], [1, 1]),
    "infinite": product([1, np.inf], [1, 1]),
    "further_apart_than_any_product": product([1, 2.0**600], [1, 1]),
    "above_float16": np.full((1, 2, 2), 40000, np.float16),
}


@pytest.mark.parametrize("kernel", NONE.values(), ids=NONE)
def test_what_is_no_product_has_none(kernel: Array) -> None:
    with np.errstate(all="raise"):
        assert factors(kernel) is None


@st.composite
def kernels(draw: st.DrawFn) -> Array:
    """Products of whole numbers times powers of two, no element zero, that their type holds."""
    dtype, digits, exponent = draw(st.sampled_from([(np.float16, 5, 3), (np.float32, 11, 30)]))
    channels, rank = draw(st.integers(1, 3)), draw(st.integers(2, 3))
    whole = st.integers(1, 2**digits - 1) if rank == 2 else st.integers(1, 2**3 - 1)
    made = []
    for _ in range(channels):
        taps = [draw(st.lists(whole, min_size=k, max_size=k)) for k in (2, 3, 2)[:rank]]
        made.append(product(*taps) * 2.0 ** draw(st.integers(-exponent, exponent)))
    signs = draw(st.lists(st.sampled_from([-1, 1]), min_size=channels, max_size=channels))
    return (np.concatenate(made) * np.reshape(signs, (-1, *[1] * rank))).astype(dtype)


@settings(max_examples=300)
@given(kernel=kernels(), data=st.data())
def test_one_rounding_away_from_a_product_is_none(kernel: Array, data: st.DataObject) -> None:
    assert_exact(kernel)
    near = kernel.copy()
    place = data.draw(st.integers(0, kernel.size - 1))
    near.flat[place] = np.nextafter(near.flat[place], kernel.dtype.type(np.inf))
    assert factors(near) is None


def test_other_floats_are_no_obstacle() -> None:
    assert_exact(product(triangle(8), triangle(8)).astype(ml_dtypes.bfloat16))
