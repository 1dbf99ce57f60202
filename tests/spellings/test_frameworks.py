"""The exports of TensorFlow, Keras, JAX and Paddle: upsampling layers are found, others are not.

Runs from the committed files; no framework is needed. What a row expects stands beside the network,
in `tests.spellings.frameworks`.
"""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

import deployconv
from tests.spellings.compute import compute
from tests.spellings.corpus import (
    FINAL,
    FRAMEWORK_GRAPHS,
    FRAMEWORK_MANIFEST,
    FRAMEWORKS,
    REWRITTEN,
    Row,
    framework_rows,
    graphs,
    run_of,
)
from tests.spellings.frameworks.case import row_name
from tests.spellings.frameworks.environments import cases

LARGEST = 400_000
"""Bytes that these exports may take in the repository."""
MOST_MISSED = 0.05
"""Part of the positives that may be on the list of those missed."""
MISSED = dict(
    line.split(": ")
    for line in (Path(__file__).parent / "frameworks" / "missed.txt")
    .read_text(encoding="utf-8")
    .splitlines()
)
"""Rows whose layers are not in their final form, and what is said of them instead."""
POSITIVES = [row for row in framework_rows() if row.family != "negative"]
NEGATIVES = [row for row in framework_rows() if row.family == "negative"]


def final_form(row: Row, done: deployconv.Rewriting) -> str:
    """ "final" if every layer of the row is in its final form, else what is said of the layers."""
    left = sorted(site.reason.code for site in done.sites if site.left_alone and site.reason)
    final = [site for site in done.sites if row.expect == FINAL or site.status == "rewritten"]
    if left or len(final) < row.layers:
        return ", ".join(left) or "not found"
    return FINAL


def factors(stride: tuple[int, ...] | None) -> tuple[int, ...]:
    """The stride without axes that keep their size: exporters write a line as an image."""
    return tuple(factor for factor in stride or () if factor > 1)


@pytest.mark.parametrize("row", POSITIVES, ids=lambda row: row.id)
def test_an_upsampling_layer_is_in_its_final_form(row: Row) -> None:
    done = deployconv.rewrite(row.model(), bench=False)
    assert done.parity is None or done.parity.passed
    rewritten = [site for site in done.sites if site.status == "rewritten"]
    assert all(site.certificate == "exact" for site in rewritten)
    assert final_form(row, done) == MISSED.get(row.id, FINAL)
    if row.id not in MISSED:
        assert factors(row.stride) in {factors(site.stride) for site in done.sites}
    assert done.model is not None
    for run in row.runs:
        assert run_of(run.inputs, compute(done.model, run)) == run


@pytest.mark.parametrize("row", NEGATIVES, ids=lambda row: row.id)
def test_what_is_no_upsampling_layer_is_left_as_it_is(row: Row) -> None:
    done = deployconv.rewrite(row.model(), bench=False)
    assert all(site.left_alone for site in done.sites)
    found = [site.reason.code for site in done.sites if site.reason]
    assert found == ([row.expect] if row.expect else [])
    assert done.model == row.model()


def test_nearly_all_upsampling_layers_are_in_their_final_form() -> None:
    assert MISSED.keys() <= {row.id for row in POSITIVES}
    assert len(MISSED) <= MOST_MISSED * len(POSITIVES)


def test_the_graphs_are_valid_and_small_and_do_not_tell_where_they_were_made() -> None:
    for row in framework_rows():
        onnx.checker.check_model(row.model())
        assert not re.search(rb'File "|site-packages|/[a-z]+/[a-z_]+\.py', row.data()), row.id
    assert list(graphs(FRAMEWORK_GRAPHS)) == [row.file for row in framework_rows()]
    assert FRAMEWORK_GRAPHS.stat().st_size + FRAMEWORK_MANIFEST.stat().st_size < LARGEST


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_network_is_committed_with_what_it_expects(framework: str) -> None:
    listed = [
        (
            row_name(case, sizes),
            sizes != "static",
            case.family,
            case.stride,
            case.expect,
        )
        for case in cases(framework)
        for sizes in case.sizes
    ]
    committed = [
        (row.name, row.dynamic, row.family, row.stride, row.expect)
        for row in framework_rows()
        if row.source == framework
    ]
    assert committed == listed
    expected = {row.expect for row in POSITIVES if row.source == framework}
    assert expected <= {REWRITTEN, FINAL}
