"""A rewritten spelling runs at every size that the original runs at, an empty batch included.

Every seventh dynamic spelling in one form, each form in turn. By hand, all of them in all forms::

    ALL_SPELLING_SIZES=1 python -m pytest -n 2 tests/spellings/test_sizes.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from deployconv.graph.load import load
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.rewrites.planning import apply, plan_model
from tests.spellings.compute import outputs
from tests.spellings.corpus import Row, Shape, rows

ALL = bool(os.environ.get("ALL_SPELLING_SIZES"))
FORMS: tuple[tuple[Form, Shuffle], ...] = (
    ("auto", "auto"),
    ("auto", "transpose"),
    ("auto", "col2im"),
    ("auto", "channels-last"),
    ("split", "crd"),
    ("split", "dcr"),
    ("separable", "auto"),
)


def cases() -> Iterator[tuple[Row, Form, Shuffle]]:
    dynamic = [row for row in rows() if row.dynamic]
    if ALL:
        yield from ((row, *form) for row in dynamic for form in FORMS)
        return
    for number, row in enumerate(dynamic[::7]):
        yield row, *FORMS[number % len(FORMS)]


def other_shapes(row: Row) -> list[tuple[Shape, ...]]:
    """Shapes of the inputs: none, one and two images, at three sizes."""

    def changed(batch: int, *more: int) -> tuple[Shape, ...]:
        return tuple(
            (batch, shape[1], *(size + extra for size, extra in zip(shape[2:], more, strict=False)))
            for shape in row.runs[0].inputs
        )

    return [changed(0, 0, 0, 0), changed(0, 1, 2, 1), changed(2, 1, 2, 1), changed(1, 3, 0, 2)]


@pytest.mark.parametrize(
    ("row", "form", "shuffle"),
    [pytest.param(*case, id="-".join((case[0].id, *case[1:]))) for case in cases()],
)
def test_other_sizes(row: Row, form: Form, shuffle: Shuffle) -> None:
    model = row.model()
    planning = plan_model(load(model), RewriteOptions(form=form, shuffle=shuffle))
    if all(report.status != "rewritten" for report in planning.reports):
        return
    shapes = other_shapes(row)
    pairs = zip(outputs(model, shapes), outputs(apply(planning).proto, shapes), strict=True)
    for shape, (expected, actual) in zip(shapes, pairs, strict=True):
        if expected is not None:
            assert actual is not None, shape
            np.testing.assert_array_equal(actual, expected, err_msg=str(shape))
