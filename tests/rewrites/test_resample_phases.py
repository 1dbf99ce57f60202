"""Interpolating Resizes by whole factors as Convs of their phases, at any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import deployconv
from deployconv.graph.load import load
from deployconv.options import LayerRequest, RewriteOptions
from deployconv.proof.certificate import certify
from deployconv.resampling import Filter, Interpolation
from deployconv.restrictions import Restrictions
from deployconv.results import SiteReport
from deployconv.rewrites import resample_filters
from deployconv.rewrites.planning import apply, plan_model
from deployconv.rewrites.resample_phases import ResamplePhases
from deployconv.rewrites.within import broken_by
from tests.build import integers, ops, rewrite, run
from tests.match.graphs import floats, parsed

SIZES = ((1, 1), (2, 5), (9, 4), (31, 17))
"""Sizes that nothing in the package tries."""


def resize(
    attributes: str, *scales: float, dims: str = "n,3,h,w", opset: int = 19, dtype: Any = np.float32
) -> ModelProto:
    constants = {"s": floats(*scales), "e": np.zeros(0, np.float32)}
    roi = "e" if opset < 13 else ""
    body = f"y = Resize<{attributes}>(x, {roi}, s)"
    return parsed(body, constants, dims, opset=opset, dtype=dtype)


def site_of(original: ModelProto, **options: Any) -> tuple[SiteReport, ModelProto]:
    done, after = rewrite(original, resample=True, **options)
    (site,) = done.sites
    assert site.status == "rewritten", site.reason
    if options.get("verify", True):
        assert site.certificate == "exact"
    assert not {"Resize", "Upsample"} & set(ops(after))
    return site, after


def close(original: ModelProto, after: ModelProto, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected, actual = run(original, {"x": x})["y"], run(after, {"x": x})["y"]
    assert actual.shape == expected.shape
    # onnxruntime has a position of its own for each output, rounded to float32.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=4e-6 + 1e-6 * max(shape))


def combinations() -> Iterator[tuple[str, float, int]]:
    for mode in ("linear", "cubic"):
        for coordinates in (
            "half_pixel",
            "pytorch_half_pixel",
            "asymmetric",
            "tf_half_pixel_for_nn",
        ):
            for scale in (2.0, 3.0, 0.5):
                if scale < 1 and coordinates == "pytorch_half_pixel":
                    continue
                given = f'mode="{mode}", coordinate_transformation_mode="{coordinates}"'
                yield given, scale, 17
    yield 'mode="cubic", cubic_coeff_a=-0.5', 4.0, 13
    yield 'mode="linear", coordinate_transformation_mode="half_pixel_symmetric"', 2.0, 19
    for scale in (2.0, 0.5, 0.25):
        yield 'mode="cubic", antialias=1', scale, 18
        yield 'mode="linear", antialias=1, exclude_outside=1', scale, 18
    for scale in (2.0, 3.0, 0.5):
        yield 'mode="cubic", exclude_outside=1', scale, 13


@pytest.mark.parametrize("form", ["polyphase", "separable"])
@pytest.mark.parametrize(("attributes", "scale", "opset"), list(combinations()))
def test_at_sizes_that_nobody_tried(attributes: str, scale: float, opset: int, form: Any) -> None:
    original = resize(attributes, 1, 1, scale, scale, opset=opset)
    site, after = site_of(original, form=form, verify=True)
    assert site.form == form
    for sizes in SIZES:
        if all(int(size * scale) for size in sizes):
            close(original, after, (2, 3, *sizes))


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
def test_weights_that_are_powers_of_two_are_exact(factor: int, coordinates: str) -> None:
    attributes = f'mode="linear", coordinate_transformation_mode="{coordinates}"'
    original = resize(attributes, 1, 1, factor, factor)
    _, after = site_of(original, form="polyphase")
    for sizes in SIZES:
        x = {"x": integers(2, 3, *sizes)}
        np.testing.assert_array_equal(run(after, x)["y"], run(original, x)["y"], strict=True)


LAYOUTS: dict[str, tuple[tuple[float, ...], str, tuple[int, ...]]] = {
    "one axis": ((1, 1, 3), "n,2,w", (2, 2, 7)),
    "three axes": ((1, 1, 2, 3, 2), "n,2,a,b,c", (1, 2, 4, 3, 5)),
    "only the last axis": ((1, 1, 1, 2), "n,2,h,w", (2, 2, 5, 4)),
    "factors that differ": ((1, 1, 2, 4), "n,2,h,w", (2, 2, 5, 4)),
    "one grows, one shrinks": ((1, 1, 2, 0.5), "n,2,h,w", (2, 2, 5, 8)),
    "channels last": ((1, 2, 2, 1), "n,h,w,3", (2, 5, 4, 3)),
    "no batch": ((2, 2, 1), "h,w,3", (5, 4, 3)),
    "no batch and no channels": ((2, 2), "h,w", (5, 4)),
}


@pytest.mark.parametrize("form", ["polyphase", "separable"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_axes_of_the_image(name: str, form: Any) -> None:
    scales, dims, shape = LAYOUTS[name]
    original = resize('mode="linear"', *scales, dims=dims)
    site, after = site_of(original, form=form, verify=False)
    assert site.form == form
    close(original, after, shape)


@pytest.mark.parametrize("shuffle", ["dcr", "crd", "transpose", "col2im"])
def test_the_shuffle_that_is_asked_for(shuffle: Any) -> None:
    original = resize('mode="cubic"', 1, 1, 2, 2)
    site, after = site_of(original, form="polyphase", shuffle=shuffle)
    assert site.shuffle == shuffle
    assert ops(after)["Conv"] == (4 if shuffle == "dcr" else 1)
    close(original, after, (2, 3, 5, 7))


@pytest.mark.parametrize("scale", [3.0, 0.5])
def test_a_border_without_a_pad(scale: float) -> None:
    original = resize('mode="cubic"', 1, 1, scale, scale)
    planned = plan_model(load(original), RewriteOptions(resample=True))
    (item,) = planned.default
    assert isinstance(item.rewrite, ResamplePhases)
    slices = replace(item.rewrite, border="slices")
    assert certify(slices, "resize").verdict == "exact"
    after = apply(planned.with_rewrites({item.id: slices})).proto
    assert ops(after)["Pad"] == 0
    for sizes in SIZES[1:]:
        close(original, after, (2, 3, *sizes))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_of_image(dtype: Any) -> None:
    original = resize('mode="linear"', 1, 1, 2, 2, opset=17, dtype=dtype)
    site_of(original, form="polyphase", verify=dtype != np.float64)


def test_by_itself_it_is_products_at_known_sizes_and_phases_at_dynamic_ones() -> None:
    assert site_of(resize('mode="cubic"', 1, 1, 2, 2))[0].form == "polyphase"
    assert site_of(resize('mode="cubic"', 1, 1, 2, 2, dims="n,3,6,7"))[0].form == "matrix"


REFUSED = {
    "the matrix form": ('mode="cubic"', 2.0, "matrix", "dynamic-sizes", "matrix"),
    "a fraction": ('mode="cubic"', 1.5, "auto", "non-integer-scale", "1.5"),
    "corners": (
        *('mode="cubic", coordinate_transformation_mode="align_corners"', 2.0),
        *("auto", "dynamic-sizes", "align_corners"),
    ),
    "a single output": (
        *('mode="linear", coordinate_transformation_mode="pytorch_half_pixel"', 0.5),
        *("auto", "dynamic-sizes", "pytorch_half_pixel"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_dynamic_sizes_are_refused_for_the_true_reason(name: str) -> None:
    attributes, scale, form, code, words = REFUSED[name]
    done = deployconv.rewrite(
        resize(attributes, 1, 1, scale, scale),
        resample=True,
        bench=False,
        verify=False,
        form=form,  # type: ignore[arg-type]
    )
    (site,) = done.sites
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("skipped", code)
    assert words in site.reason.text


def test_a_wrong_weight_fails_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    right = resample_filters.resampling_filter

    def wrong(*given: Any) -> Any:
        found = right(*given)
        assert found is not None
        found.taps[2] += 1e-4
        return found

    monkeypatch.setattr(resample_filters, "resampling_filter", wrong)
    with pytest.raises(deployconv.CheckFailed, match="certificate failed"):
        rewrite(resize('mode="cubic"', 1, 1, 2, 2), resample=True)


LIMITS: dict[str, tuple[dict[str, Any], str, tuple[float, float]]] = {
    "no Pad of mode edge": ({"edge_pads": False}, "polyphase", (2, 2)),
    "no MatMul": (
        {"operators": frozenset(["Pad", "Conv", "Concat", "DepthToSpace"])},
        "polyphase",
        (2, 2),
    ),
    "DCR only": ({"depth_to_space": {"DCR": (2,)}, "max_rank": 4}, "polyphase", (2, 2)),
    "no Slice": ({"crops": False}, "polyphase", (3, 3)),
    "nothing fits": ({"operators": frozenset(["Relu"])}, "target-restrictions", (2, 2)),
}


@pytest.mark.parametrize("name", LIMITS)
def test_only_what_the_target_takes_is_written(name: str) -> None:
    given, expected, scales = LIMITS[name]
    limits = Restrictions(**given)
    options = RewriteOptions(
        resample=True, request_for=lambda site: LayerRequest("polyphase", restrictions=limits)
    )
    original = resize('mode="linear"', 1, 1, *scales, dims="1,3,6,7")
    planning = plan_model(load(original), options)
    (item,) = planning.sites
    if item.rewrite is None:
        assert item.report.reason is not None
        assert item.report.reason.code == expected
        return
    assert item.report.form == expected
    assert not broken_by(item.rewrite, limits)
    assert certify(item.rewrite, "resize").verdict == "exact"
    close(original, apply(planning).proto, (1, 3, 6, 7))


@pytest.mark.parametrize("dims", ["2,3,7", "2,3,6,7", "2,3,4,5,6"])
@pytest.mark.parametrize("factor", [1.55, 3, 0.6])
def test_a_target_that_takes_no_constant_before_an_image_gets_products_of_turned_images(
    dims: str, factor: float
) -> None:
    limits = Restrictions(matrix_first=False)
    options = RewriteOptions(
        resample=True, request_for=lambda site: LayerRequest("matrix", restrictions=limits)
    )
    sizes = tuple(map(int, dims.split(",")))
    original = resize('mode="linear"', 1, 1, *[factor] * (len(sizes) - 2), dims=dims)
    planning = plan_model(load(original), options)
    (item,) = planning.sites
    assert item.rewrite is not None
    assert item.report.form == "matrix"
    assert not broken_by(item.rewrite, limits)
    assert certify(item.rewrite, "resize").verdict == "exact"
    after = apply(planning).proto
    assert set(ops(after)) == ({"MatMul"} if len(sizes) == 3 else {"MatMul", "Transpose"})
    close(original, after, sizes)


@pytest.mark.parametrize("scale", [2, 3, 8, 0.5, 0.2])
@pytest.mark.parametrize("coefficient", [-2, -0.9, -0.6, 0.3, 1])
@pytest.mark.parametrize("outside", [0, 1])
def test_exact_cubic_weights_may_differ_by_what_the_runtime_rounds(
    scale: float, coefficient: float, outside: int
) -> None:
    attributes = f'mode="cubic", cubic_coeff_a={float(coefficient)}, exclude_outside={outside}'
    original = resize(attributes, 1, 1, scale, scale)
    site, after = site_of(original)
    assert (site.form, site.parity_only) == ("polyphase", ())
    close(original, after, (1, 3, 10, 15))


def test_the_rounding_of_cubic_weights_is_bounded() -> None:
    for coefficient in np.linspace(-3, 3, 61):
        how = Interpolation("cubic", cubic_coeff_a=float(coefficient))
        shown = [
            abs(how.weight(place) - how.exact_weight(Fraction(place)))
            for place in np.linspace(-2, 2, 129).tolist()
        ]
        assert 4 * max(shown) <= 2 * how.rounding(9, exact_positions=True)


@pytest.mark.parametrize("coefficient", [-0.75, -0.6])
def test_a_certificate_of_phases_refuses_another_cubic(
    coefficient: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = resample_filters.resampling_filter

    def wrong(factor: int, how: Interpolation) -> Filter | None:
        return right(factor, replace(how, cubic_coeff_a=how.cubic_coeff_a + 1e-3))

    monkeypatch.setattr(resample_filters, "resampling_filter", wrong)
    original = resize(f'mode="cubic", cubic_coeff_a={coefficient}', 1, 1, 2, 2)
    with pytest.raises(deployconv.CheckFailed, match="its weight at"):
        rewrite(original, resample=True)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("by", [2, 3, 4, 8])
@pytest.mark.parametrize("more", ["", "antialias=1,", "exclude_outside=1,"])
@pytest.mark.parametrize("form", ["polyphase", "separable"])
def test_asymmetric_shrinking_leaves_no_pixel_over(
    mode: str, by: int, more: str, form: str
) -> None:
    if mode == "linear" and more.startswith("exclude"):
        more += "antialias=1,"  # onnxruntime refuses it without
    attributes = f'{more} mode="{mode}", coordinate_transformation_mode="asymmetric"'
    original = resize(attributes, 1, 1, 1 / by, 1 / by)
    _, after = site_of(original, form=form)
    for height in range(2 * by, 3 * by):
        close(original, after, (1, 3, height, 2 * by + 1))
