"""``--shape``: what it takes and what it refuses."""

from __future__ import annotations

import pytest

from deployconv.cli.parameters import parse_shapes
from deployconv.errors import UsageError


@pytest.mark.parametrize(
    ("values", "shapes"),
    [
        (None, {}),
        ([], {}),
        (["x:1,3,64,64"], {"x": (1, 3, 64, 64)}),
        (["x:1, 3, 8"], {"x": (1, 3, 8)}),
        (["n:5"], {"n": (5,)}),
        (["empty:0,3"], {"empty": (0, 3)}),
        (["scope/in:0:1,2", "y:3"], {"scope/in:0": (1, 2), "y": (3,)}),
    ],
)
def test_shapes(values: list[str] | None, shapes: dict[str, tuple[int, ...]]) -> None:
    assert parse_shapes(values) == shapes


@pytest.mark.parametrize(
    "value",
    ["", "x", "x:", ":1,2", "1,3", "x:1,,2", "x:1,", "x:-1,2", "x:1.5", "x:H,W", "x:²", "x:1x2"],
)
def test_refusals_repeat_the_value_and_show_the_form(value: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_shapes([value])
    assert str(refusal.value).startswith(f"--shape {value!r}: expected NAME:SIZE,")


def test_an_input_has_one_shape() -> None:
    with pytest.raises(UsageError, match="'x' has a shape already"):
        parse_shapes(["x:1", "x:2"])
