"""A normalisation over whole groups of channels does not care where the pixels of a group lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from deployconv.options import Form, Shuffle
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.conv import PolyphaseConv, plan_conv
from deployconv.rewrites.planning import Planning, apply
from deployconv.rewrites.region import Region
from deployconv.rewrites.steps.normalization import Normalization
from tests.build import integers, run
from tests.match.graphs import feeds, floats, ints, parsed
from tests.rewrites.plans import operators_of, region_of, verdict, with_first

UP = "a = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wa, ba)"
GROUPED = (
    "f = Reshape(a, flat) i = InstanceNormalization(f, ones, zeros) n = Reshape(i, whole)"
    " m = Mul(n, gamma) t = Add(m, beta)"
)
SILU = "s = Sigmoid(t) u = Mul(t, s)"
CONV = "y = Conv<pads=[1,1,1,1]>(u, w3, b3)"
CONSTANTS: dict[str, Any] = {
    **{"wa": integers(2, 4, 4, 4, seed=1), "ba": integers(4, seed=2)},
    **{"flat": ints(0, 2, -1), "whole": ints(1, 4, 8, 6), "any": ints(-1, 4, 8, 6)},
    **{"ones": floats(1, 1), "zeros": floats(0, 0), "four": ints(0, 4, -1)},
    **{"gamma": integers(4, 1, 1, seed=3), "beta": integers(4, 1, 1, seed=4)},
    **{"w3": integers(3, 4, 3, 3, seed=5), "b3": integers(3, seed=6)},
    **{"scale": floats(1, 2, 3, 4), "shift": floats(4, 3, 2, 1)},
    **{"four1": ints(4), "turned": ints(1, 4, 6, 8), "rows": ints(0, 16, -1)},
}


def model_of(body: str, dims: str = "1,2,4,3", opset: int = 18) -> ModelProto:
    return parsed(body, CONSTANTS, dims, opset=opset)


BY_SHAPE = GROUPED.replace("n = Reshape(i, whole)", "known = Shape(a) n = Reshape(i, known)")
BODIES = {
    "group_norm_by_the_shape_of_the_image": (f"{BY_SHAPE} {SILU} {CONV}", 2),
    "group_norm": (f"{GROUPED} {SILU} {CONV}", 2),
    "group_norm_of_any_batch": (f"{GROUPED.replace('whole', 'any')} {SILU} {CONV}", 2),
    "instance_norm": (
        f"t = InstanceNormalization(a, scale, shift) {SILU} {CONV}",
        4,
    ),
    "norm_right_in_front": (
        f"u = InstanceNormalization<epsilon=0.5>(a, scale, shift) {CONV}",
        4,
    ),
    "norm_behind_an_activation": (
        f"r = Relu(a) u = InstanceNormalization(r, scale, shift) {CONV}",
        4,
    ),
}


def assert_close(model: ModelProto, after: ModelProto, *shape: int) -> None:
    expected, actual = run(model, feeds(*shape))["y"], run(after, feeds(*shape))["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shuffle", ["crd", "transpose", "col2im"])
@pytest.mark.parametrize("case", BODIES.values(), ids=BODIES)
def test_it_is_certified_and_computes_the_same(case: tuple[str, int], shuffle: Shuffle) -> None:
    body, groups = case
    model = model_of(f"{UP} {body}")
    planning = certify_sites(with_first(model, shuffle=shuffle), seed=0)
    region = region_of(planning)
    assert region is not None
    (norm,) = (step for step in region.steps if isinstance(step, Normalization))
    assert (norm.groups, norm.channels) == (groups, 4)
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert_close(model, after, 1, 2, 4, 3)


@pytest.mark.parametrize("opset", [10, 13, 17])
def test_older_opsets(opset: int) -> None:
    model = model_of(f"{UP} {BODIES['group_norm'][0]}", opset=opset)
    planning = certify_sites(with_first(model, shuffle="transpose"), seed=0)
    assert region_of(planning) is not None
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert_close(model, after, 1, 2, 4, 3)


def test_the_operator_of_its_own() -> None:
    body = f"{UP} u = GroupNormalization<num_groups=2>(a, scale, shift) {CONV}"
    model = model_of(body, opset=21)
    planning = certify_sites(with_first(model), seed=0)
    region = region_of(planning)
    assert region is not None
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert_close(model, after, 1, 2, 4, 3)


@pytest.mark.parametrize("body", ["instance_norm", "group_norm_by_the_shape_of_the_image"])
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 2, 5, 3), (1, 2, 9, 16)])
def test_dynamic_sizes(shape: tuple[int, ...], body: str) -> None:
    """These say nothing of sizes."""
    model = model_of(f"{UP} {BODIES[body][0]}", "n,2,h,w")
    planning = certify_sites(with_first(model), seed=0)
    assert region_of(planning) is not None
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert_close(model, after, *shape)


NOT_TAKEN = {
    "groups_of_rows": GROUPED.replace("flat", "rows").replace("ones, zeros", "o16, z16"),
    "another_image": GROUPED.replace("whole", "turned"),
    "part_of_the_shape": BY_SHAPE.replace("Shape(a)", "Shape<start=0>(a)"),
    "the_shape_of_another": BY_SHAPE.replace("Shape(a)", "Shape(i)"),
    "a_shape_that_two_read": f"{BY_SHAPE} e = Cast<to=1>(known)",
    "another_that_reads_the_groups": GROUPED + " g = ReduceMax(f) v = Mul(t, g)",
    "a_scale_of_the_run": (
        "v = ReduceMax(x) k = Mul(scale, v) e = Reshape(k, four1)"
        " t = InstanceNormalization(a, e, shift)"
    ),
}


@pytest.mark.parametrize("body", NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_what_is_no_such_normalisation(body: str) -> None:
    last = "v" if " v = Mul(t, g)" in body else "t"
    more = {"o16": np.ones(16, np.float32), "z16": np.zeros(16, np.float32)}
    text = f"{UP} {body} {SILU} {CONV}".replace("Sigmoid(t)", f"Sigmoid({last})")
    model = parsed(text, {**CONSTANTS, **more}, "1,2,4,3", opset=18)
    planning = with_first(model)
    assert region_of(planning) is None


def test_a_form_that_crops_does_not_fit() -> None:
    """A mean over what is cropped afterwards would be another mean."""
    assert region_of(with_first(model_of(f"{UP} {BODIES['group_norm'][0]}"), form="crop")) is None


def test_where_something_is_cropped_a_region_ends_in_front_of_it() -> None:
    body = "r = Relu(a) c = Conv(r, w1) t = InstanceNormalization(c, scale, shift) y = Abs(t)"
    w1 = integers(4, 4, 1, 1)
    model = parsed(f"{UP} {body}", {**CONSTANTS, "w1": w1}, "1,2,4,3", opset=18)
    whole = ["Relu", "Conv", "InstanceNormalization", "Abs"]
    forms: dict[Form, list[str]] = {"crop": ["Relu", "Conv"], "pad": whole}
    for form, operators in forms.items():
        region = region_of(with_first(model, form, fusion="region"))
        assert region is not None
        assert operators_of(region) == operators


def certified(planning: Planning) -> Region:
    region = region_of(planning)
    assert region is not None
    assert verdict(region) == "exact"
    return region


@pytest.mark.parametrize("shape", [[0, 4, -1], [0, 1, -1]], ids=["smaller", "larger"])
def test_other_groups_do_not_pass_the_certificate(
    shape: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    region = certified(with_first(model_of(f"{UP} {BODIES['group_norm'][0]}")))
    real = Normalization.emit_on_pixels

    def wrong(step: Normalization, *rest: Any) -> Any:
        return real(replace(step, groups=shape[1]), *rest)

    monkeypatch.setattr(Normalization, "emit_on_pixels", wrong)
    assert verdict(region) == "failed"


def test_pixels_that_are_cropped_do_not_pass_the_certificate() -> None:
    """The sum of the group has what the crop removes."""
    body = f"{UP} u = InstanceNormalization(a, scale, shift) z = Conv(u, w1) {SILU}"
    body = body.replace("(t", "(z").replace("u = Mul", "y = Mul")
    model = parsed(body, {**CONSTANTS, "w1": integers(3, 4, 1, 1)}, "1,2,4,3", opset=18)
    whole = certified(with_first(model, fusion="region"))
    plain = plan_conv(whole.head.site, "crop", "crd")
    assert isinstance(plain, PolyphaseConv)
    assert plain.layout.cropped
    layout = replace(plain.layout, channels=whole.layout.channels)
    assert verdict(replace(whole, heads=(plain,), layout=layout)) == "failed"
