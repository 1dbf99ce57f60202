from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deployconv.proof.compare import _BLOCK, RTOL, compare_outputs
from deployconv.results import OutputParity


def one(
    reference: Any, candidate: Any, dtype: Any = np.float32, noise: float | None = None
) -> OutputParity:
    left, right = np.asarray(reference, dtype), np.asarray(candidate, dtype)
    (verdict,) = compare_outputs({"y": left}, {"y": right}, None if noise is None else {"y": noise})
    return verdict


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("reference", "candidate", "passed"),
    [
        ([1.0, -2.0], [1.0, -2.0], True),
        ([0.0], [-0.0], True),
        ([NAN, 1.0], [NAN, 1.0], True),
        ([INF, -INF, 1.0], [INF, -INF, 1.0], True),
        ([NAN, 1.0], [1.0, NAN], False),
        ([NAN], [0.0], False),
        ([0.0], [NAN], False),
        ([INF], [-INF], False),
        ([INF], [NAN], False),
        ([INF], [3e38], False),
        ([1.0], [INF], False),
        ([0.0, 0.0], [0.0, 1e-30], False),
        ([1.0, 1e-9], [1.0, 5e-5], True),
        ([1.0, 1.0], [1.0, 1.001], False),
        ([NAN, 1.0], [NAN, 2.0], False),
    ],
)
def test_float32(reference: list[float], candidate: list[float], passed: bool) -> None:
    assert one(reference, candidate).passed is passed


@pytest.mark.parametrize(
    ("reference", "candidate", "problem"),
    [
        ([NAN, 1.0], [1.0, NAN], "not at the reference's places: 2 NaN"),
        ([INF], [-INF], "not at the reference's places: 1 +Inf, 1 -Inf"),
        ([[1.0]], [1.0], "shape (1,) instead of (1, 1)"),
    ],
)
def test_a_difference_of_kind_is_a_problem(reference: Any, candidate: Any, problem: str) -> None:
    assert one(reference, candidate).problem == problem


def test_a_difference_of_size_is_none() -> None:
    verdict = one([2.0, 1.0], [2.0, 3.0])
    assert verdict == OutputParity("y", 2.0, 1.0, 2.0 * RTOL["float32"], passed=False)


def test_dtypes_are_not_converted() -> None:
    (verdict,) = compare_outputs({"y": np.ones(2, np.float32)}, {"y": np.ones(2, np.float64)})
    assert (verdict.passed, verdict.problem) == (False, "dtype float64 instead of float32")
    assert math.isnan(verdict.max_abs)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.float64, "float64"),
        (np.float32, "float32"),
        (np.float16, "float16"),
        (ml_dtypes.bfloat16, "bfloat16"),
    ],
)
def test_the_tolerance_follows_dtype_and_magnitude(dtype: Any, name: str) -> None:
    verdict = one([-8.0, 1.0], [-8.0, 1.0], dtype)
    assert verdict.passed
    assert verdict.tolerance == 8.0 * RTOL[name]
    assert not one([-8.0, 1.0], [-8.0, 1.0 + 16 * RTOL[name]], dtype).passed


@pytest.mark.parametrize(
    ("dtype", "left", "right"),
    [
        (np.int64, [1 << 60], [(1 << 60) + 1]),
        (np.uint8, [0], [255]),
        (np.bool_, [True, False], [True, True]),
        (np.str_, ["a"], ["b"]),
        (object, ["a"], ["b"]),
    ],
)
def test_everything_but_floats_is_exact(dtype: Any, left: list[Any], right: list[Any]) -> None:
    assert one(left, left, dtype).passed
    verdict = one(left, right, dtype, noise=1e9)
    assert not verdict.passed
    assert verdict.problem is not None
    assert verdict.problem.startswith("1 of ")


def test_the_difference_of_unsigned_integers_does_not_wrap() -> None:
    assert one([0], [255], np.uint8).max_abs == 255.0


def test_names_follow_the_reference_and_extra_ones_are_problems() -> None:
    y = np.ones(1, np.float32)
    verdicts = compare_outputs({"b": y, "a": y}, {"a": y, "c": y})
    assert [(verdict.name, verdict.passed) for verdict in verdicts] == [
        ("b", False),
        ("a", True),
        ("c", False),
    ]
    assert [verdict.problem for verdict in verdicts if verdict.problem] == [
        "missing from the candidate's outputs",
        "missing from the reference's outputs",
    ]


def test_outputs_without_elements_are_equal_if_their_shapes_are() -> None:
    assert one(np.zeros((0, 2)), np.zeros((0, 2))).passed
    assert not one(np.zeros((0, 2)), np.zeros((0, 3))).passed


class TestRoundingNoise:
    def test_twice_the_noise_is_tolerated(self) -> None:
        assert not one([1.0], [1.03]).passed
        verdict = one([1.0], [1.03], noise=0.02)
        assert verdict.passed
        assert verdict.tolerance == pytest.approx(0.04)

    def test_noise_never_narrows(self) -> None:
        assert one([1.0], [1.0], noise=0.0).tolerance == RTOL["float32"]

    def test_noise_as_large_as_the_output_proves_nothing(self) -> None:
        verdict = one([1.0], [1.5], noise=10.0)
        assert not verdict.passed
        assert verdict.tolerance == pytest.approx(0.1)


@pytest.mark.parametrize("position", [0, _BLOCK - 1, _BLOCK, 2 * _BLOCK])
@pytest.mark.parametrize("value", [NAN, INF, -INF, 9.0])
def test_one_wrong_element_is_found_in_every_block(position: int, value: float) -> None:
    reference = np.ones(2 * _BLOCK + 1, np.float32)
    candidate = reference.copy()
    candidate[position] = value
    assert not one(reference, candidate).passed
    assert not one(candidate, reference).passed


FLOATS = hnp.arrays(np.float32, hnp.array_shapes(max_side=4), elements=st.floats(width=32))


@given(FLOATS)
def test_everything_equals_itself(array: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    verdict = one(array, array.copy())
    assert (verdict.passed, verdict.max_abs, verdict.problem) == (True, 0.0, None)


@given(FLOATS, st.data())
def test_max_abs_is_the_plain_maximum_over_finite_values(
    array: np.ndarray[Any, np.dtype[np.float32]], data: st.DataObject
) -> None:
    other = data.draw(hnp.arrays(np.float32, array.shape, elements=st.floats(width=32)))
    finite = np.isfinite(array) & np.isfinite(other)
    plain = np.abs(array[finite].astype(np.float64) - other[finite].astype(np.float64))
    assert one(array, other).max_abs == float(plain.max(initial=0.0))
