"""A nearest Resize that a target misreads is listed among what the target does not take."""

from __future__ import annotations

import numpy as np
import pytest

import deployconv
from tests.match.graphs import floats, ints, parsed

RULE = """
[[layers]]
when = {resize_mode = "nearest", %s}
verdict = "misread"
text = "reads other pixels"
"""


def listed(tmp_path, condition: str, attributes: str, given: str = "scales", opset: int = 18):
    """The misfits of a target with one rule for a nearest Resize to twice the size, or by 1.5."""
    file = tmp_path / "mine.toml"
    file.write_text(RULE % condition)
    if given == "sizes":
        body, made = f"y = Resize<{attributes}>(x, , , s)", ints(1, 2, 8, 12)
    else:
        by = 1.5 if given == "fraction" else 2
        body, made = f"y = Resize<{attributes}>(x, , s)", floats(1, 1, by, by)
    if opset < 11:
        body = f"y = Resize<{attributes}>(x, s)"
    model = parsed(body, {"s": made}, "1,2,h,6" if given == "dynamic" else "1,2,4,6", opset=opset)
    (target,) = deployconv.inspect(model, target=str(file)).targets
    return [(one.code, one.text) for one in target.misfits]


FOUND = [("nearest-resize", "a nearest Resize: reads other pixels")]


@pytest.mark.parametrize(
    ("condition", "attributes", "given", "found"),
    [
        ('nearest_mode = "ceil"', 'mode="nearest", nearest_mode="ceil"', "scales", True),
        ('nearest_mode = "ceil"', 'mode="nearest", nearest_mode="floor"', "scales", False),
        ('nearest_mode = "round_prefer_floor"', 'mode="nearest"', "scales", True),
        ('coordinates = "half_pixel"', 'mode="nearest"', "scales", True),
        ('coordinates = "half_pixel"', 'mode="linear"', "scales", False),
        ("whole_scale = true", 'mode="nearest"', "sizes", True),
        ("whole_scale = false", 'mode="nearest"', "scales", False),
        ("whole_scale = false", 'mode="nearest"', "fraction", True),
        ("whole_scale = true", 'mode="nearest"', "dynamic", False),
    ],
)
def test_it_is_listed_if_the_rule_holds(tmp_path, condition, attributes, given, found) -> None:
    assert listed(tmp_path, condition, attributes, given) == (FOUND if found else [])


def test_a_resize_of_opset_10_is_asymmetric_and_rounds_down(tmp_path) -> None:
    condition = 'coordinates = "asymmetric", nearest_mode = "floor"'
    assert listed(tmp_path, condition, 'mode="nearest"', opset=10) == FOUND


def test_one_that_is_rewritten_with_its_conv_is_not_left(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(RULE % 'nearest_mode = "floor"')
    body = (
        'r = Resize<mode="nearest", coordinate_transformation_mode="asymmetric",'
        ' nearest_mode="floor">(x, , s) y = Conv<pads=[1,1,1,1]>(r, w)'
    )
    weight = np.ones((2, 2, 3, 3), np.float32)
    model = parsed(body, {"s": floats(1, 1, 2, 2), "w": weight}, "1,2,4,6", opset=18)
    done = deployconv.rewrite(model, target=str(file), bench=False)
    assert [site.status for site in done.sites] == ["rewritten"]
    assert done.targets[0].misfits == ()
