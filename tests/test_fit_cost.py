"""The fit of the cost model's constants; nothing is timed."""

from __future__ import annotations

from dataclasses import astuple
from typing import get_args

import numpy as np
import pytest
from costfit.layers import layers
from fit_cost import Sample, fit, non_negative, work_of_model

from deployconv.search.cost_table import ORT_CPU, CostTable, Rate
from deployconv.search.cost_terms import Term, Work


def test_least_squares_without_negative_unknowns() -> None:
    matrix = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert non_negative(matrix, matrix @ [2.0, 3.0]) == pytest.approx([2.0, 3.0])
    # By itself the second would be -1; without it the first is the mean.
    assert non_negative(matrix, np.array([2.0, 1.0, -1.0])) == pytest.approx([1.5, 0.0])


def test_constants_that_made_the_times_are_found() -> None:
    truth: dict[Term, Rate] = {
        "blocked": Rate(0.02, 0.001),
        "reordered": Rate(0.0, 0.3),
        "transposed_axis": Rate(0.0, 0.2, 0.1),
    }
    table = CostTable(truth, block=16, margin=0.1, fitted=True)
    works: list[Work] = [
        {"blocked": 10.0, "reordered": 1.0},
        {"blocked": 100.0, "reordered": 0.5},
        {"blocked": 1.0},
        {"reordered": 2.0, "transposed_axis": 3.0},
        {"transposed_axis": 0.5},
    ]
    samples = [
        Sample("layer", threads, work, 0.04 + table.milliseconds(work, threads))
        for work in works
        for threads in (1, 2, 4)
    ]
    found, call, errors = fit(samples)
    assert set(found) == set(truth)
    for term, rate in truth.items():
        assert astuple(found[term]) == pytest.approx(astuple(rate), abs=1e-4)
    assert call == pytest.approx(0.04, rel=1e-3)
    assert errors == pytest.approx([0.0] * len(samples), abs=1e-3)


def test_with_one_thread_all_work_is_taken_as_shared() -> None:
    works: list[Work] = [{"gemm": 10.0}, {"gemm": 30.0, "launches": 2.0}, {"launches": 5.0}]
    samples = [
        Sample("layer", 1, work, 0.1 + 0.2 * work.get("gemm", 0.0) + 0.01 * work.get("launches", 0))
        for work in works
    ]
    found, _, _ = fit(samples)
    assert astuple(found["gemm"]) == pytest.approx((0.2, 0.0, 0.0), abs=1e-4)
    assert found["launches"].parallel == found["launches"].each == 0.0


def test_the_layers_are_all_different_and_show_every_kind_of_work() -> None:
    works = {layer.name: work_of_model(layer.model) for layer in layers()}
    assert len(works) == sum(1 for _ in layers())
    assert {term for work in works.values() for term in work} == set(get_args(Term))
    assert ORT_CPU.rates.keys() == set(get_args(Term))
