"""The table of spellings: each is recognised, rewritten, certified and computes the same bits.

A row is a spelling as one exporter writes it at one opset, with static or dynamic sizes. What a
row expects stands beside the spelling, see `corpus.Spelling`.
"""

from __future__ import annotations

from collections import Counter

import pytest

import deployconv
from tests.spellings.compute import compute
from tests.spellings.corpus import KEPT, REWRITTEN, Row, rows, run_of

PATTERNS = {"zero_insertion", "nearest_resize", "pixel_shuffle"}

NEGATIVES_AFTER_ALL = {
    # Zeros go between the elements of a part, or behind them: zero insertion of another size.
    "assign_part",
    "pad_behind_rows",
    "pad13_wrong_axis",
    # What else reads the Transpose keeps it; the shuffle itself is one.
    "reshape13_transpose_shared",
    # A shuffle whose channels come in another order, which the Conv before it can make.
    "perm_columns_first",
}
"""Look-alikes that are upsampling layers when looked at closely."""


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_row(row: Row) -> None:
    model = row.model()
    done = deployconv.rewrite(model, bench=False)
    assert done.parity is not None
    assert done.parity.passed
    sites = [site for site in done.sites if site.pattern in PATTERNS]
    rewritten = [site for site in sites if site.status == "rewritten"]
    assert all(site.certificate == "exact" for site in rewritten)
    found = {site.reason.code if site.reason else site.status for site in sites}
    if row.expect == REWRITTEN:
        assert any(site.pattern == row.family for site in rewritten)
        assert any(site.stride == row.stride for site in rewritten)
    elif row.expect == KEPT:
        assert any(site.status == "kept" for site in sites)
    elif row.expect is not None:
        assert row.expect in found
    elif row.family == "negative" and row.name not in NEGATIVES_AFTER_ALL:
        assert not rewritten
        assert model == row.model()
    assert done.model is not None
    for run in row.runs:
        assert run_of(run.inputs, compute(done.model, run)) == run


def test_the_table_is_as_wide_as_it_says() -> None:
    spelled = {row.name for row in rows() if row.family != "negative"}
    assert len(spelled) >= 40
    exported = Counter(
        (row.family, row.source, row.opset, row.dynamic) for row in rows() if row.expect
    )
    for family in PATTERNS:
        for source, opsets in (("legacy", (17, 18, 20)), ("dynamo", (18, 20, 23))):
            for opset in opsets:
                for dynamic in (False, True):
                    assert exported[family, source, opset, dynamic] >= 10
