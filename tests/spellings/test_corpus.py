"""The committed graphs are what the manifest says, and they run. No torch here."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import get_args

import onnx
import pytest

from tests.spellings.compute import compute
from tests.spellings.corpus import (
    GRAPHS,
    KEPT,
    MANIFEST,
    REWRITTEN,
    Family,
    Row,
    gaps,
    graphs,
    rows,
    run_of,
)
from tests.spellings.handmade import GRAPHS as HANDMADE
from tests.spellings.listing import listing

FAMILIES: tuple[Family, ...] = tuple(set(get_args(Family)) - {"conv_transpose"})
LARGEST = 1_000_000
"""Bytes that the corpus may take in the repository."""

each_row = pytest.mark.parametrize("row", rows(), ids=[row.id for row in rows()])


@each_row
def test_a_graph_is_valid_and_computes_what_the_manifest_says(row: Row) -> None:
    model = row.model()
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == row.opset
    for run in row.runs:
        assert run_of(run.inputs, compute(model, run)) == run


def test_sizes_have_names_where_the_row_says_dynamic() -> None:
    for row in rows():
        dims = row.model().graph.input[0].type.tensor_type.shape.dim
        assert any(dim.dim_param for dim in dims) == row.dynamic, row.id
        assert len(row.runs) == 1 + row.dynamic, row.id


def test_an_expectation_fits_its_family() -> None:
    for row in rows():
        assert row.family in FAMILIES, row.id
        assert (row.stride is None) == (row.family == "negative"), row.id
        assert row.stride is None or len(row.stride) == row.rank, row.id
        if row.expect in (REWRITTEN, KEPT):
            assert row.family != "negative", row.id
        elif row.expect is not None:
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", row.expect), row.id


def test_each_graph_has_one_row_and_each_row_one_graph() -> None:
    assert list(graphs()) == [row.file for row in rows()]
    assert max(Counter(row.id for row in rows()).values()) == 1
    assert not {row.id for row in rows()} & {gap.id for gap in gaps()}


def test_every_family_is_exported_by_both_exporters_at_every_opset() -> None:
    seen = defaultdict(set)
    for row in rows():
        seen[row.family, row.source, row.dynamic].add(row.opset)
    for family in FAMILIES:
        for dynamic in (False, True):
            assert seen[family, "dynamo", dynamic] == {18, 20, 23}
            assert seen[family, "legacy", dynamic] == {11, 13, 17, 18, 20}


def test_no_graph_tells_where_it_was_made() -> None:
    for row in rows():
        assert not re.search(rb'File "|site-packages|/[a-z]+/[a-z_]+\.py', row.data()), row.id


def test_the_corpus_stays_small() -> None:
    assert GRAPHS.stat().st_size + MANIFEST.stat().st_size < LARGEST


def test_handmade_graphs_are_committed_as_they_are_written() -> None:
    committed = {row.name: row for row in rows() if row.source == "handmade"}
    assert list(committed) == [graph.name for graph in HANDMADE]
    for graph in HANDMADE:
        row = committed[graph.name]
        assert list(listing(row.model())) == list(listing(graph.model())), graph.name
        assert (row.expect, row.stride, row.runs) == (graph.expect, graph.stride, graph.runs)
