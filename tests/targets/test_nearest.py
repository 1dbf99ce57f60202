"""A nearest Resize that a target misreads or refuses is written anew; any other one stays."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

import deployconv
from deployconv.resampling import NearestMode
from deployconv.results import Rewriting, SiteReport
from tests.build import Array, ops, rewrite, run
from tests.match.graphs import floats, ints, parsed

RULE = """
[[layers]]
when = {resize_mode = "nearest", %s}
verdict = "misread"
text = "reads other pixels"
"""


def model_of(attributes: str, given: str = "scales", opset: int = 18) -> ModelProto:
    """A nearest Resize to twice the size, by 1.5, or to half of it."""
    if given == "sizes":
        body, made = f"y = Resize<{attributes}>(x, , , s)", ints(1, 2, 8, 12)
    else:
        by = {"fraction": 1.5, "half": 0.5}.get(given, 2)
        body, made = f"y = Resize<{attributes}>(x, , s)", floats(1, 1, by, by)
    if opset < 11:
        body = f"y = Resize<{attributes}>(x, s)"
    return parsed(body, {"s": made}, "1,2,h,6" if given == "dynamic" else "1,2,4,6", opset=opset)


def made_for(tmp_path: Any, rules: str, model: ModelProto, **options: Any) -> Rewriting:
    """What becomes of a model for a target with these rules."""
    file = tmp_path / "mine.toml"
    file.write_text(rules)
    return deployconv.rewrite(model, target=str(file), bench=False, **options)


NEAREST = 'mode="nearest"'


@pytest.mark.parametrize(
    ("condition", "attributes", "given", "found"),
    [
        ('nearest_mode = "ceil"', 'mode="nearest", nearest_mode="ceil"', "scales", True),
        ('nearest_mode = "ceil"', 'mode="nearest", nearest_mode="floor"', "scales", False),
        ('nearest_mode = "round_prefer_floor"', NEAREST, "scales", True),
        ('coordinates = "half_pixel"', NEAREST, "scales", True),
        ("whole_scale = true", NEAREST, "sizes", True),
        ("whole_scale = false", NEAREST, "scales", False),
        ("whole_scale = false", NEAREST, "fraction", True),
        ("whole_scale = true", NEAREST, "dynamic", True),
        ("whole_scale = true", NEAREST, "half", True),
        ("enlarges = false", NEAREST, "half", True),
    ],
)
def test_it_is_written_anew_if_the_rule_holds(
    tmp_path, condition, attributes, given, found
) -> None:
    original = model_of(attributes, given)
    done = made_for(tmp_path, RULE % condition, original)
    (site,) = done.sites
    assert site.pattern == "nearest_resize"
    assert [one.verdict for one in site.targets] == ["misread" if found else "fits"]
    assert site.status == ("rewritten" if found else "skipped")
    if not found:
        assert done.model == original
        return
    assert (site.certificate, site.form) == (
        "exact",
        "polyphase" if given == "dynamic" else "matrix",
    )
    assert "Resize" not in ops(done.model)
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(run(done.model, {"x": x})["y"], run(original, {"x": x})["y"])


@pytest.mark.parametrize("by", [0.5, 0.25])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
@pytest.mark.parametrize("rounding", get_args(NearestMode))
def test_one_of_dynamic_size_that_shrinks_by_a_power_of_two(
    tmp_path, by, coordinates, rounding
) -> None:
    attributes = (
        f'mode="nearest", nearest_mode="{rounding}", coordinate_transformation_mode="{coordinates}"'
    )
    body = f"y = Resize<{attributes}>(x, , s)"
    original = parsed(body, {"s": floats(1, 1, by, by)}, "1,2,h,w", opset=18)
    done = made_for(tmp_path, RULE % "enlarges = false", original)
    assert [(one.status, one.form, one.certificate) for one in done.sites] == [
        ("rewritten", "polyphase", "exact")
    ]
    for height, width in ((8, 12), (7, 33), (4, 5), (18, 11)):
        x = np.random.default_rng(0).standard_normal((1, 2, height, width)).astype(np.float32)
        np.testing.assert_array_equal(run(done.model, {"x": x})["y"], run(original, {"x": x})["y"])


def test_a_resize_of_opset_10_is_asymmetric_and_rounds_down(tmp_path) -> None:
    condition = 'coordinates = "asymmetric", nearest_mode = "floor"'
    done = made_for(tmp_path, RULE % condition, model_of(NEAREST, opset=10))
    assert [site.status for site in done.sites] == ["rewritten"]


def test_one_of_opset_10_that_shrinks_rounds_up(tmp_path) -> None:
    rule = RULE % 'nearest_mode = "ceil"'
    done = made_for(tmp_path, rule, model_of(NEAREST, "half", opset=10))
    assert [site.status for site in done.sites] == ["rewritten"]


def test_one_of_opset_10_that_rounds_in_both_ways_stays_with_a_reason(tmp_path) -> None:
    body = 'y = Resize<mode="nearest">(x, s)'
    original = parsed(body, {"s": floats(1, 1, 2, 0.5)}, "1,2,4,6", opset=10)
    done = made_for(tmp_path, RULE % 'operator = "Resize"', original)
    assert skipped(done) == "unsupported-rounding"


def skipped(done: Rewriting) -> str:
    (site,) = done.sites
    assert site.status == "skipped"
    assert site.reason is not None
    return site.reason.code


def integers(given: str = "scales") -> ModelProto:
    """A nearest Resize of int8."""
    original = model_of(NEAREST, given)
    for value in (*original.graph.input, *original.graph.output):
        value.type.tensor_type.elem_type = TensorProto.INT8
    return original


def test_integers_stay_and_the_reason_is_their_type(tmp_path) -> None:
    original = integers()
    assert skipped(made_for(tmp_path, RULE % "whole_scale = true", original)) == "no-conv"
    anything = RULE % 'operator = "Resize"'
    assert skipped(made_for(tmp_path, anything, original)) == "unsupported-dtype"


def test_a_target_that_no_rewrite_helps_keeps_it_and_says_so(tmp_path) -> None:
    rule = RULE % 'operator = "Resize"' + 'action = "keep"\n'
    for given in ("scales", "half"):
        done = made_for(tmp_path, rule, model_of(NEAREST, given))
        (site,) = done.sites
        assert site.reason is not None
        assert (site.status, site.reason.code) == ("kept", "unsupported-on-target")


@pytest.mark.parametrize("policy", ["all", "cost"])
def test_without_a_target_it_stays_whatever_the_policy(policy) -> None:
    for given, listed in (("scales", ["no-conv"]), ("half", [])):
        for original in (model_of(NEAREST, given), integers(given)):
            done, after = rewrite(original, policy=policy, resample=True)
            assert [site.reason and site.reason.code for site in done.sites] == listed
            assert after == original


def test_it_may_be_asked_for_by_its_name() -> None:
    original = model_of(NEAREST, "fraction")
    (site,) = deployconv.inspect(original).sites
    done, after = rewrite(original, resample=True, only=[site.id])
    assert [one.status for one in done.sites] == ["rewritten"]
    assert "Resize" not in ops(after)


def test_a_rule_of_one_with_its_conv_is_not_about_one_by_itself(tmp_path) -> None:
    rule = '[[layers]]\nwhen = {pattern = "nearest_resize"}\nverdict = "refused"\ntext = "no"\n'
    assert skipped(made_for(tmp_path, rule, model_of(NEAREST))) == "no-conv"


CONV_AFTER = (
    'r = Resize<mode="nearest", coordinate_transformation_mode="asymmetric",'
    ' nearest_mode="floor">(x, , s) y = Conv<pads=[1,1,1,1]>(r, w)'
)


def site_before_conv(tmp_path: Any, **options: Any) -> SiteReport:
    weight: Array = np.ones((2, 2, 3, 3), np.float32)
    model = parsed(CONV_AFTER, {"s": floats(1, 1, 2, 2), "w": weight}, "1,2,4,6", opset=18)
    rules = 'action = "keep"\n' + RULE % 'nearest_mode = "floor"'
    (site,) = made_for(tmp_path, rules, model, **options).sites
    return site


def test_one_in_front_of_a_conv_is_misread_as_well(tmp_path) -> None:
    site = site_before_conv(tmp_path)
    assert [one.verdict for one in site.targets] == ["misread"]
    assert site.status == "rewritten"
