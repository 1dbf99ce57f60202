"""Interpolating Resizes: which are found, which become products, and which stay with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import deployconv
from deployconv.results import SiteReport
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
