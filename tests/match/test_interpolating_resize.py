"""Interpolating Resizes: which are found, which become products, and which stay with a reason."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, helper, shape_inference

import deployconv
from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.results import SiteReport
from deployconv.rewrites.planning import plan_model
from tests.build import Array, ops, rewrite, run
from tests.match.graphs import floats, ints, parsed

S = "(x, , s)"
TO = "(x, , , s)"
REWRITTEN: dict[str, tuple[str, Array, str, int]] = {
    "cubic": (f'y = Resize<mode="cubic">{S}', floats(1, 1, 2, 2), "1,3,6,7", 17),
    "linear, by three and a half": (
        f'y = Resize<mode="linear">{S}',
        floats(1, 1, 3, 3.5),
        "1,3,6,8",
        17,
    ),
    "to sizes": (
        f'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">{TO}',
        ints(2, 3, 9, 20),
        "2,3,4,7",
        13,
    ),
    "a dynamic batch": (f'y = Resize<mode="cubic">{S}', floats(1, 1, 2, 3), "n,3,5,4", 17),
    "one axis": (f'y = Resize<mode="linear">{S}', floats(1, 1, 3), "1,2,7", 11),
    "three axes": (f'y = Resize<mode="linear">{S}', floats(1, 1, 2, 3, 2), "1,2,4,3,5", 17),
    "channels last": (f'y = Resize<mode="linear">{S}', floats(1, 2, 3, 1), "2,5,4,3", 17),
    "some axes": (
        f'y = Resize<mode="linear", axes=[2,3]>{S}',
        floats(2, 1.5),
        "1,3,6,8",
        18,
    ),
    "antialias": (f'y = Resize<mode="cubic", antialias=1>{S}', floats(1, 1, 0.5, 2), "1,3,8,6", 18),
    "excluding what lies outside": (
        f'y = Resize<mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5>{S}',
        floats(1, 1, 2, 2),
        "1,3,6,7",
        17,
    ),
    "symmetric": (
        f'y = Resize<mode="linear", coordinate_transformation_mode="half_pixel_symmetric">{S}',
        floats(1, 1, 1.55, 2),
        "1,3,7,5",
        19,
    ),
    "pixels that begin at their middle": (
        f'y = Resize<mode="linear", coordinate_transformation_mode="tf_half_pixel_for_nn">{S}',
        floats(1, 1, 1.5, 2),
        "1,3,8,5",
        11,
    ),
    "keeping the aspect ratio": (
        f'y = Resize<mode="linear", axes=[2,3], keep_aspect_ratio_policy="not_larger">{TO}',
        ints(12, 17),
        "1,3,6,8",
        18,
    ),
    "upsample": ('y = Upsample<mode="linear">(x, s)', floats(1, 1, 2, 2), "1,3,6,7", 9),
    "resize of opset 10": ('y = Resize<mode="linear">(x, s)', floats(1, 1, 2, 2), "1,3,6,7", 10),
    "large": (f'y = Resize<mode="linear">{S}', floats(1, 1, 2, 2), "1,2,50,40", 17),
}


@pytest.mark.parametrize("case", REWRITTEN.values(), ids=REWRITTEN)
def test_it_becomes_products(case: tuple[str, Array, str, int]) -> None:
    body, values, dims, opset = case
    if "(x, , s" in body and opset < 13:  # the region may not be left out
        body = body.replace("(x, , s)", "(x, e, s)")
    original = parsed(body, {"s": values, "e": np.zeros(0, np.float32)}, dims, opset=opset)
    done, after = rewrite(original, resample=True)
    (site,) = done.sites
    assert (site.pattern, site.status, site.form, site.certificate) == (
        *("interpolating_resize", "rewritten", "matrix"),
        "exact",
    )
    assert not {"Resize", "Upsample"} & set(ops(after))
    for batch in (1, 3) if dims.startswith("n") else (int(dims[0]),):
        shape = (batch, *(int(size) for size in dims.split(",")[1:]))
        x = np.random.default_rng(batch).standard_normal(shape).astype(np.float32)
        expected, actual = run(original, {"x": x})["y"], run(after, {"x": x})["y"]
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-6)


def sites_of(body: str, values: Array, dims: str, **options: Any) -> tuple[SiteReport, ...]:
    original = parsed(body, {"s": values}, dims, opset=19)
    done, after = rewrite(original, **options)
    assert after == original
    return done.sites


def test_by_default_it_stays_and_the_reason_names_the_option() -> None:
    (site,) = sites_of(f'y = Resize<mode="cubic">{S}', floats(1, 1, 2, 2), "1,3,6,7")
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("kept", "interpolating-resize")
    assert "--resample" in site.reason.text


def test_one_that_shrinks_is_listed_only_if_it_may_be_rewritten() -> None:
    body, half = f'y = Resize<mode="linear">{S}', floats(1, 1, 0.5, 0.5)
    assert sites_of(body, half, "1,3,6,8") == ()
    original = parsed(body, {"s": half}, "1,3,6,8", opset=19)
    done = deployconv.rewrite(original, resample=True, bench=False)
    assert [site.status for site in done.sites] == ["rewritten"]


STAYS = {
    "a fraction of a dynamic size": (
        f'y = Resize<mode="linear">{S}',
        floats(1, 1, 1.5, 2),
        "1,3,h,7",
    ),
    "a region": (
        "r = Constant<value_floats=[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]>() y = Resize"
        '<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(x, r, s)',
        floats(1, 1, 2, 2),
        "1,3,6,7",
    ),
}


@pytest.mark.parametrize(
    ("name", "code"),
    [("a fraction of a dynamic size", "non-integer-scale"), ("a region", "interpolating-resize")],
)
def test_it_stays_for_a_reason(name: str, code: str) -> None:
    (site,) = sites_of(*STAYS[name], resample=True)
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("skipped", code)


SHAPE = "sh = Shape(x) nc = Slice(sh, k0, k2) hw = Slice(sh, k2, k4)"
"""The shape of ``x``, its batch and channels, and its sizes."""
COMPUTED: dict[str, tuple[str, str, str | None]] = {
    "twice the sizes": (
        f"{SHAPE} two = Mul(hw, k2) to = Concat<axis=0>(nc, two) y = Resize<{{}}>(x, , , to)",
        "n,3,h,w",
        "polyphase",
    ),
    "the sizes times a float, rounded down": (
        f"{SHAPE} f = Cast<to=1>(hw) g = Mul(f, s2) i = Floor(g) j = Cast<to=7>(i)"
        " to = Concat<axis=0>(nc, j) y = Resize<{}>(x, , , to)",
        "n,3,h,w",
        "polyphase",
    ),
    "scales by arithmetic on constants": (
        "t = Mul(s, s) y = Resize<{}>(x, , t)",
        "1,3,5,7",
        "matrix",
    ),
    "scales by a division of sizes": (
        "sh = Shape(x) f = Cast<to=1>(sh) t = Div(whole, f) y = Resize<{}>(x, , t)",
        "1,3,5,7",
        "matrix",
    ),
    "constant sizes of a dynamic batch": (
        "sh = Shape(x) nc = Slice(sh, k0, k2) to = Concat<axis=0>(nc, k9)"
        " y = Resize<{}>(x, , , to)",
        "n,3,5,7",
        "matrix",
    ),
    "channels last between Transposes, as TensorFlow writes it": (
        "t = Transpose<perm=[0,3,1,2]>(x) u = Resize<{}>(t, , s2n)"
        " y = Transpose<perm=[0,2,3,1]>(u)",
        "n,h,w,3",
        "polyphase",
    ),
    "the size of an image that follows the input": (
        f"{SHAPE} c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)"
        " to = Concat<axis=0>(nc, hw) y = Resize<{}>(c, , , to)",
        "n,3,h,w",
        None,
    ),
    "scales that follow from the image": (
        "m = ReduceMean<keepdims=0>(x) o = Mul(m, zero) t = Add(o, s2n) y = Resize<{}>(x, , t)",
        "1,3,5,7",
        None,
    ),
}
NUMBERS = {
    **{f"k{number}": ints(number) for number in (0, 2, 4)},
    "k9": ints(9, 12),
    "s": floats(1, 1, 1.25, 2),
    "s2": floats(2, 2),
    "s2n": floats(1, 1, 2, 2),
    "whole": floats(1, 3, 13, 9),
    "zero": floats(0),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_scales_and_sizes_that_are_computed(name: str) -> None:
    body, dims, form = COMPUTED[name]
    linear = 'mode="linear", coordinate_transformation_mode="half_pixel"'
    original = parsed(body.format(linear), NUMBERS, dims)
    done, after = rewrite(original, resample=True)
    (site,) = done.sites
    assert site.form == form, site.reason
    if form is None:
        assert site.reason is not None
        assert site.reason.code in ("dynamic-sizes", "dynamic-scale")
        return
    shape = [int(size) if size.isdigit() else 4 + at for at, size in enumerate(dims.split(","))]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected, actual = run(original, {"x": x})["y"], run(after, {"x": x})["y"]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-6, strict=True)


def test_between_quantize_and_dequantize_it_is_a_float_layer() -> None:
    body = (
        "q = QuantizeLinear(x, c, z) d = DequantizeLinear(q, c, z)"
        ' r = Resize<mode="linear">(d, , s) p = QuantizeLinear(r, c, z)'
        " y = DequantizeLinear(p, c, z)"
    )
    constants = {"s": floats(1, 1, 2, 2), "c": np.float32(0.1), "z": np.int8(3)}
    original = parsed(body, constants, "1,3,5,7")
    done, after = rewrite(original, resample=True)
    assert [site.form for site in done.sites] == ["matrix"]
    x = np.random.default_rng(0).standard_normal((1, 3, 5, 7)).astype(np.float32)
    # A sum at the border between two integers may be rounded to either.
    step = np.abs(run(original, {"x": x})["y"] - run(after, {"x": x})["y"]).max()
    assert step < 0.1001


def test_bfloat16_only_where_nothing_is_rounded_once_more() -> None:
    bfloat16 = ml_dtypes.bfloat16
    for mode, opset, form in (
        ("linear", 22, "polyphase"),
        ("linear", 21, None),
        ("cubic", 22, None),
    ):
        body = f'y = Resize<mode="{mode}">{S}'
        constants = {"s": floats(1, 1, 2, 2)}
        original = parsed(body, constants, "1,3,6,7", dtype=bfloat16, opset=opset)
        done, after = rewrite(original, resample=True)
        assert done.sites[0].form == form
        reason = done.sites[0].reason
        assert form or (reason is not None and reason.code == "unsupported-dtype")
        shape_inference.infer_shapes(after, check_type=True)  # no Conv takes it before 22


INVALID = {
    "a negative scale": (
        f'y = Resize<mode="linear">{S}',
        floats(1, 1, -2, 2),
        "1, 1, -2",
    ),
    "a scale of zero": (f'y = Resize<mode="cubic">{S}', floats(1, 1, 0, 2), "scales are 1, 1, 0"),
    "no number": (f'y = Resize<mode="linear">{S}', floats(1, 1, np.nan, 2), "nan"),
    "infinity": (f'y = Resize<mode="linear">{S}', floats(1, 1, np.inf, 2), "inf"),
    "a negative size": (f'y = Resize<mode="linear">{TO}', ints(1, 3, -4, 9), "sizes are 1, 3, -4"),
    "a size of zero": (f'y = Resize<mode="linear">{TO}', ints(1, 3, 0, 9), "sizes are 1, 3, 0"),
    "too few scales": (f'y = Resize<mode="linear">{S}', floats(1, 2, 2), "3 scales"),
    "an axis that it has not": (
        f'y = Resize<mode="linear", axes=[2,9]>{S}',
        floats(2, 2),
        r"axes \[2, 9\]",
    ),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", INVALID)
def test_what_no_runtime_takes_is_an_error_of_the_model(name: str, verify: bool) -> None:
    body, values, words = INVALID[name]
    original = parsed(body, {"s": values}, "1,3,6,7", opset=19)
    with pytest.raises(deployconv.ModelError, match=words) as raised:
        deployconv.rewrite(original, resample=True, bench=False, verify=verify)
    assert "\n" not in str(raised.value)


def test_a_region_that_nobody_reads_may_hold_anything() -> None:
    constants = {"s": floats(1, 1, 2, 2), "r": floats(*[np.nan] * 8)}
    original = parsed('y = Resize<mode="linear">(x, r, s)', constants, "1,3,4,5")
    assert [site.form for site in rewrite(original, resample=True)[0].sites] == ["matrix"]
    region = (
        'y = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(x, r, s)'
    )
    done, _ = rewrite(parsed(region, constants, "1,3,4,5"), resample=True, verify=False)
    assert [site.status for site in done.sites] == ["skipped"]


def test_six_dimensions_are_refused_by_the_runtime_and_have_no_phases() -> None:
    scales = {"s": floats(1, 1, 2, 2, 2, 2)}
    original = parsed(f'y = Resize<mode="linear">{S}', scales, "1,2,h,w,2,3")
    (site,) = rewrite(original, resample=True, verify=False)[0].sites
    assert site.reason is not None
    assert site.reason.code == "unsupported-rank"
    with pytest.raises(deployconv.BackendUnavailable):
        rewrite(original, resample=True)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_what_the_runtime_refuses_alone_is_covered_by_parity_only(mode: str) -> None:
    # The reference evaluator has other weights: it scales by the length that is not rounded.
    given = f'mode="{mode}", coordinate_transformation_mode="align_corners"'
    scales = {"s": floats(1, 1, 1, 1, 1, 1.5)}
    original = parsed(f"y = Resize<{given}>{S}", scales, "1,2,2,2,2,5")
    with pytest.raises(deployconv.BackendUnavailable, match="onnxruntime"):
        rewrite(original, resample=True)
    planned = plan_model(load(original), RewriteOptions(resample=True))
    (site,) = certify_sites(planned, 0).sites
    assert (site.report.certificate, site.report.parity_only) == ("exact", ("Resize_0",))


@pytest.mark.parametrize("form", ["matrix", "polyphase"])
def test_one_axis_without_any_other(form: Any) -> None:
    original = parsed(f'y = Resize<mode="linear">{S}', {"s": floats(2)}, "5")
    (site,) = rewrite(original, resample=True, form=form, verify=False)[0].sites
    assert site.status == "rewritten" or site.reason is not None
    with pytest.raises(deployconv.BackendUnavailable):  # onnxruntime refuses the original
        rewrite(original, resample=True, form=form)


def test_a_scale_next_to_one_beside_another_axis_has_no_oracle_of_its_own() -> None:
    scales = {"s": floats(1, 1, 1.0000001, 7)}
    original = parsed(f'y = Resize<mode="cubic">{S}', scales, "2,1,4,2")
    (site,) = rewrite(original, resample=True)[0].sites
    assert (site.certificate, site.parity_only) == ("exact", ("Resize_0",))


def test_a_coefficient_that_is_no_number() -> None:
    scales = {"s": floats(1, 1, 2, 2)}
    given = 'coordinate_transformation_mode="asymmetric"'

    def resized(mode: str) -> ModelProto:
        model = parsed(f'y = Resize<mode="{mode}", {given}>{S}', scales, "1,2,3,4", opset=19)
        model.graph.node[0].attribute.append(helper.make_attribute("cubic_coeff_a", np.nan))
        return model

    with pytest.raises(deployconv.ModelError, match="cubic_coeff_a is nan"):
        rewrite(resized("cubic"), resample=True)
    (site,) = rewrite(resized("linear"), resample=True)[0].sites  # which does not read it
    assert site.status == "rewritten"


def test_negative_axes_whose_aspect_ratio_is_kept() -> None:
    given = 'mode="linear", axes=[-2,-1], keep_aspect_ratio_policy="not_smaller"'
    original = parsed(f"y = Resize<{given}>{TO}", {"s": ints(6, 8)}, "1,2,3,4", opset=18)
    (site,) = rewrite(original, resample=True)[0].sites
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("skipped", "interpolating-resize")
    assert "axes are negative" in site.reason.text


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("dims", ["1,3,4,6", "1,3,4,w"])
@pytest.mark.parametrize("axes", ["-2,-1", "2,-1"])
@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_a_layer_after_negative_axes_whose_aspect_ratio_is_kept(
    mode: str, dims: str, axes: str, policy: str
) -> None:
    """onnxruntime keeps the sizes of such axes, though ONNX infers others."""
    given = f'mode="{mode}", axes=[{axes}], keep_aspect_ratio_policy="{policy}"'
    body = f'r = Resize<{given}>(x, , , t) y = Resize<mode="linear">(r, , s)'
    constants = {"t": ints(8, 12), "s": floats(1, 1, 2, 2)}
    original = parsed(body, constants, dims, opset=18)
    _, changed = rewrite(original, resample=True, verify=False)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 4, 6)).astype(np.float32)}
    np.testing.assert_allclose(run(changed, feeds)["y"], run(original, feeds)["y"], atol=1e-5)


def test_one_that_leaves_nothing_stays() -> None:
    original = parsed(f'y = Resize<mode="linear">{S}', {"s": floats(1, 1, 0.01, 2)}, "1,3,6,7")
    (site,) = rewrite(original, resample=True, verify=False)[0].sites
    assert site.reason is not None
    assert site.reason.text == "it leaves nothing of an axis"


def test_scales_and_sizes_at_once_are_no_resize() -> None:
    constants = {"s": floats(1, 1, 2, 2), "t": ints(1, 3, 9, 9)}
    original = parsed('y = Resize<mode="linear">(x, , s, t)', constants, "1,3,4,5")
    done = deployconv.rewrite(original, resample=True, verify=False, bench=False)
    (site,) = done.sites
    assert site.reason is not None
    assert (site.status, site.reason.text) == ("skipped", "it has scales and sizes at once")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_of_image(dtype: Any) -> None:
    body, double = f'y = Resize<mode="linear">{S}', floats(1, 1, 2, 2)
    original = parsed(body, {"s": double}, "1,3,6,7", opset=17, dtype=dtype)
    done = deployconv.rewrite(original, resample=True, bench=False, verify=dtype != np.float64)
    assert [site.status for site in done.sites] == ["rewritten"]


def test_a_wrong_weight_fails_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployconv.rewrites import resample

    right = resample.resampling_matrix

    def wrong(*given: Any) -> Array:
        found = right(*given)
        found[2, 1] += 1e-4
        return found

    monkeypatch.setattr(resample, "resampling_matrix", wrong)
    original = parsed(f'y = Resize<mode="cubic">{S}', {"s": floats(1, 1, 2, 2)}, "1,3,6,7")
    with pytest.raises(deployconv.CheckFailed, match="certificate failed") as raised:
        deployconv.rewrite(original, resample=True, bench=False)
    assert raised.value.result is not None
    (site,) = raised.value.result.sites
    assert site.certificate_failure is not None
    assert "its weight at [" in site.certificate_failure


@pytest.mark.parametrize(
    ("inputs", "given"), [(S, floats(1, 1, 2, 2)), (TO, ints(1, 3, 8, 6))], ids=["scales", "sizes"]
)
def test_scales_or_sizes_that_a_caller_may_override(inputs: str, given: Array) -> None:
    original = parsed(f'y = Resize<mode="linear">{inputs}', {"s": given}, "1,3,4,3")
    kind = helper.np_dtype_to_tensor_dtype(given.dtype)
    original.graph.input.append(helper.make_tensor_value_info("s", kind, [4]))
    done, after = rewrite(original, resample=True)
    assert [site.reason.code for site in done.sites if site.reason] == ["overridable-initializer"]
    assert [one.name for one in after.graph.input] == ["x", "s"]
    frozen, _ = rewrite(original, resample=True, freeze_initializers=True)
    assert [site.status for site in frozen.sites] == ["rewritten"]
