"""Interpolating Resizes as frameworks export them are rewritten, with the same values."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from tests.build import ops, rewrite, run
from tests.spellings.corpus import FRAMEWORKS, Row, framework_rows, rows


def resizes(model: ModelProto) -> int:
    """How many interpolating Resizes are in the main graph."""
    modes = [
        given.s
        for node in model.graph.node
        if node.op_type in ("Resize", "Upsample")
        for given in node.attribute
        if given.name == "mode"
    ]
    return sum(mode in (b"linear", b"cubic") for mode in modes)


ROWS = [row for row in (*framework_rows(), *rows()) if resizes(row.model())]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_an_export_is_rewritten_with_the_same_values(row: Row) -> None:
    model = row.model()
    done, after = rewrite(model, resample=True)
    sites = [site for site in done.sites if site.pattern == "interpolating_resize"]
    assert len(sites) == resizes(model)
    assert {(site.status, site.certificate) for site in sites} == {("rewritten", "exact")}
    assert not {"Resize", "Upsample"} & set(ops(after))
    rng = np.random.default_rng(2)
    for tried in row.runs:
        feeds = {
            name: rng.standard_normal(given.shape).astype(given.dtype)
            for name, given in tried.feeds(model).items()
        }
        for name, expected in run(model, feeds).items():
            # The Conv behind it adds up about a hundred values.
            atol = 2e-6 * float(np.abs(expected).max())
            np.testing.assert_allclose(run(after, feeds)[name], expected, rtol=0, atol=atol)


def test_each_framework_and_mode_is_among_them() -> None:
    assert {row.source for row in ROWS} >= {*FRAMEWORKS, "dynamo", "legacy"}
    assert {row.name.partition("_")[0] for row in ROWS} >= {"bilinear", "bicubic", "linear"}
