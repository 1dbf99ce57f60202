"""Spellings that policy ``all`` leaves alone, and that ``cost`` and ``fastest`` may rewrite."""

from __future__ import annotations

import pytest

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify
from deployconv.rewrites.planning import apply
from deployconv.search.candidates import Candidates
from tests.spellings.compute import compute
from tests.spellings.corpus import Row, rows, run_of

CODES = ("concat-before-conv", "non-zero-padding")
LEFT_ALONE = {"scale2_pad_ones", "resize13_pad_edge"}
"""Padding by ones, and zeros around the edge: no policy has another form of these."""

ROWS = [row for row in rows() if row.expect in CODES and row.name not in LEFT_ALONE]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_each_form_of_a_row_computes_what_the_manifest_says(row: Row) -> None:
    candidates = Candidates.of(load(row.model()), RewriteOptions(policy="cost"))
    (planned,) = (item for item in candidates.planning.default if item.found.unless_faster)
    assert (planned.report.pattern, planned.report.stride) == (row.family, row.stride)
    options = candidates.of_site(planned)
    assert options
    for option in options:
        assert certify(option.rewrite, planned.id).verdict == "exact"
        made = apply(candidates.with_choices({planned.id: option.choice})).proto
        for run in row.runs:
            assert run_of(run.inputs, compute(made, run)) == run


def test_both_exporters_write_these_rows_with_static_and_dynamic_sizes() -> None:
    for code in CODES:
        found = {(row.source, row.dynamic) for row in ROWS if row.expect == code}
        assert found == {(name, dynamic) for name in ("dynamo", "legacy") for dynamic in (0, 1)}
