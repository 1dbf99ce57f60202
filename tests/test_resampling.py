"""The matrix of an interpolating Resize against onnxruntime's own kernel and PyTorch.

More random ones than usual, by hand:

    RESIZE_CASES=20000 python -m pytest tests/test_resampling.py -k random
"""

from __future__ import annotations

import os
from typing import Any, get_args

import numpy as np
import pytest

import deployconv
from deployconv.errors import DeployconvError
from deployconv.resampling import (
    Coordinates,
    Interpolation,
    NearestMode,
    resampling_filter,
    resampling_matrix,
)
from tests.build import Array, rewrite, run
from tests.match.graphs import floats, ints, parsed

COORDINATES = get_args(Coordinates)
SCALES = (0.25, 0.3, 0.5, 0.6, 1, 1.25, 1.5, 1.55, 2, 2.5, 3, 4, 8)
EPS = float(np.finfo(np.float32).eps)
COEFFICIENTS = (-0.75, -0.5, -0.6, -1.0, -0.3)
CASES = int(os.environ.get("RESIZE_CASES", "1000"))
"""How many random Resizes are compared."""


def drawn(rng: np.random.Generator) -> tuple[Interpolation, tuple[int, int], Array, bool]:
    """An interpolation, the sizes of an image, and the scales or sizes that it gets."""
    antialias = bool(rng.random() < 0.3)
    mode = "cubic" if rng.random() < 0.5 else "linear"
    how = Interpolation(
        mode=mode,  # type: ignore[arg-type]
        coordinates=COORDINATES[rng.integers(len(COORDINATES))],
        cubic_coeff_a=float(rng.choice(COEFFICIENTS)),
        # onnxruntime refuses it for linear without antialias.
        exclude_outside=bool(rng.random() < 0.3) and (antialias or mode == "cubic"),
        antialias=antialias,
    )
    sizes = int(rng.integers(1, 24)), int(rng.integers(1, 12))
    scales = np.array([rng.choice(SCALES), rng.choice((0.5, 1, 2))], np.float32)
    return how, sizes, scales, bool(rng.random() < 0.4)


def resize(how: Interpolation, sizes: tuple[int, int], given: Array, by_sizes: bool) -> Any:
    attributes = (
        f'mode="{how.mode}", coordinate_transformation_mode="{how.coordinates}",'
        f" cubic_coeff_a={how.cubic_coeff_a}, exclude_outside={int(how.exclude_outside)},"
        f" antialias={int(how.antialias)}"
    )
    made = ints(1, 2, *given) if by_sizes else floats(1, 1, *given)
    body = f"y = Resize<{attributes}>(x, , {', g' if by_sizes else 'g'})"
    return parsed(body, {"g": made}, f"1,2,{sizes[0]},{sizes[1]}", opset=19)


@pytest.mark.parametrize("seed", range(CASES // 100))
def test_a_hundred_random_resizes_are_what_onnxruntime_computes(seed: int) -> None:
    rng, compared = np.random.default_rng(seed), 0
    while compared < 100:
        how, sizes, scales, by_sizes = drawn(rng)
        outputs = np.floor(np.array(sizes, np.float32) * scales).astype(int)
        if not outputs.all():
            continue
        given = outputs if by_sizes else scales
        used = outputs / np.array(sizes) if by_sizes else scales
        x = rng.standard_normal((1, 2, *sizes)).astype(np.float32)
        try:
            actual = run(resize(how, sizes, given, by_sizes), {"x": x})["y"]
        except DeployconvError:
            continue
        compared += 1
        if tuple(outputs) == sizes:
            np.testing.assert_array_equal(actual, x)
            continue
        first, second = (
            resampling_matrix(inputs, int(size), float(scale), how)
            for inputs, size, scale in zip(sizes, outputs, used, strict=True)
        )
        expected = first @ x.astype(np.float64) @ second.T
        magnitude = (np.abs(first) @ np.abs(x) @ np.abs(second.T)).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=4 * EPS * magnitude)


ROUNDED = {
    # The position of output 0 is 0 but for rounding, and the cubic is evaluated at 1 + 2^-23.
    "a position beside a pixel": (Interpolation("cubic", "half_pixel_symmetric"), 11, 16, 1.5),
    "a fraction": (Interpolation("cubic", "half_pixel_symmetric"), 10, 15, 1.5),
    # At a distance of 1 the weight is 0 by the other half of the formula only.
    "a pixel at a distance of 1": (
        *(Interpolation("cubic", "asymmetric", -0.6, antialias=True), 8, 24, 3),
    ),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_a_weight_is_rounded_as_onnxruntime_rounds_it(name: str) -> None:
    how, inputs, outputs, scale = ROUNDED[name]
    attributes = (
        f'mode="{how.mode}", coordinate_transformation_mode="{how.coordinates}",'
        f" cubic_coeff_a={how.cubic_coeff_a}, antialias={int(how.antialias)}"
    )
    body = f"y = Resize<{attributes}>(x, , s)"
    original = parsed(body, {"s": floats(1, 1, 1, scale)}, f"{inputs},1,1,{inputs}", opset=19)
    impulses = np.eye(inputs, dtype=np.float32).reshape(inputs, 1, 1, inputs)
    shown = run(original, {"x": impulses})["y"].reshape(inputs, outputs).T
    found = resampling_matrix(inputs, outputs, scale, how)
    np.testing.assert_allclose(found, shown, rtol=0, atol=EPS)


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("outside", [0, 1])
def test_an_axis_of_the_same_size_has_what_is_left_of_the_weights(
    coefficient: float, outside: int
) -> None:
    """The weights of most coefficients do not vanish at whole distances, where they should."""
    how = Interpolation("cubic", "half_pixel", coefficient, exclude_outside=bool(outside))
    found = resampling_matrix(5, 5, 1.0, how)
    attributes = f'mode="cubic", cubic_coeff_a={coefficient}, exclude_outside={outside}'
    body = f"y = Resize<{attributes}>(x, , s)"
    original = parsed(body, {"s": floats(1, 1, 3, 1)}, "5,1,1,5", opset=19)
    shown = run(original, {"x": np.eye(5, dtype=np.float32).reshape(5, 1, 1, 5)})["y"][:, 0]
    other = resampling_matrix(1, 3, 3.0, how)[:, 0]
    # The weights of a pixel and of its copies beyond the border are added in another order.
    expected = other[:, None] * found.T[:, None]
    np.testing.assert_allclose(shown, expected, rtol=0, atol=1.5 * EPS)
    np.testing.assert_allclose(shown[2], expected[2], rtol=0, atol=EPS)
    assert (found == np.eye(5)).all() == (coefficient in (-0.5, -0.75, -1.0))


@pytest.mark.parametrize("sizes", ["1,2,6,7", "6,7", "1,2,1,7"])
@pytest.mark.parametrize("coefficient", [-0.6, -0.5])
@pytest.mark.parametrize("along", [-2, -1])
@pytest.mark.parametrize("by", ["scales", "sizes"])
def test_a_cubic_along_one_axis(sizes: str, coefficient: float, along: int, by: str) -> None:
    """onnxruntime runs it along the other one too, where only some coefficients change anything."""
    shape = np.array([int(size) for size in sizes.split(",")])
    factors = np.ones(len(shape))
    factors[along] = 2
    given = ints(*(shape * factors).astype(int)) if by == "sizes" else floats(*factors)
    comma = ", " * (by == "sizes")
    body = f'y = Resize<mode="cubic", cubic_coeff_a={coefficient}>(x, , {comma}g)'
    original = parsed(body, {"g": given}, sizes, opset=18)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for form, axes in (("matrix", 1 + (coefficient == -0.6)), ("auto", None)):
        done, after = rewrite(original, resample=True, form=form)
        (site,) = done.sites
        assert (site.status, site.certificate, site.parity_only) == ("rewritten", "exact", ())
        if axes is not None:
            assert len(site.conv_kernel) == axes
        actual, expected = (run(model, {"x": x})["y"] for model in (after, original))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=4 * EPS * np.abs(x).max() * 1.5)


def test_a_cubic_along_one_axis_before_a_1x1_conv() -> None:
    body = 'r = Resize<mode="cubic", cubic_coeff_a=-0.6>(x, , g) y = Conv(r, w)'
    weight = np.random.default_rng(1).standard_normal((3, 8, 1, 1)).astype(np.float32)
    original = parsed(body, {"g": floats(1, 1, 2, 1), "w": weight}, "1,8,6,7", opset=18)
    done, after = rewrite(original, resample=True)
    (site,) = done.sites
    assert (site.status, site.certificate, site.parity_only) == ("rewritten", "exact", ())
    assert len(site.nodes) == 2
    x = np.random.default_rng(2).standard_normal((1, 8, 6, 7)).astype(np.float32)
    actual, expected = (run(model, {"x": x})["y"] for model in (after, original))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=16 * EPS * np.abs(expected).max())


@pytest.mark.parametrize("more", ["", "exclude_outside=1,", "antialias=1,"])
@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize("scales", [(1.25, 2.5), (2.5, 1.25), (1.2, 1.2), (3, 1), (8, 4)])
def test_a_cubic_in_channels_last_order(scales: tuple[float, float], by: str, more: str) -> None:
    """onnxruntime runs it by another kernel, which copies an axis that keeps its size."""
    sizes = (2, 17) if scales[0] < 2 < scales[1] else (17, 2)
    factors = (1, *scales, 1)
    outputs = np.floor(np.float32((2, *sizes, 3)) * np.float32(factors)).astype(int)
    body = f'y = Resize<mode="cubic", {more} cubic_coeff_a=-0.5>(x, , {", " * (by == "sizes")}g)'
    given = ints(*outputs) if by == "sizes" else floats(*factors)
    original = parsed(body, {"g": given}, f"2,{sizes[0]},{sizes[1]},3", opset=18)
    done, after = rewrite(original, resample=True, form="matrix")
    assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]
    x = np.random.default_rng(1).standard_normal((2, *sizes, 3)).astype(np.float32)
    actual, expected = (run(model, {"x": x})["y"] for model in (after, original))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=4 * EPS * np.abs(x).max() * 1.5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("sizes", [(5, 10), (7, 3), (4, 13), (6, 1), (1, 4)])
def test_pytorch_means_the_same(mode: str, corners: bool, sizes: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    inputs, outputs = sizes
    named = "bicubic" if mode == "cubic" else "bilinear"
    coordinates = "align_corners" if corners else "pytorch_half_pixel"
    how = Interpolation(mode, coordinates)  # type: ignore[arg-type]
    found = resampling_matrix(inputs, outputs, outputs / inputs, how)
    image = torch.eye(inputs, dtype=torch.float64).reshape(inputs, 1, inputs, 1)
    resized = torch.nn.functional.interpolate(
        image, size=(outputs, 1), mode=named, align_corners=corners
    )
    if outputs == 1 and not corners:
        return  # PyTorch takes the middle there, as half_pixel does; the operator takes the first
    np.testing.assert_allclose(found, resized.reshape(inputs, outputs).T, atol=2e-6)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("sizes", [(10, 5), (16, 5), (9, 4), (5, 10)])
def test_pytorch_means_the_same_with_antialias(mode: Any, sizes: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    inputs, outputs = sizes
    # PyTorch leaves out what lies outside, and takes the cubic coefficient of Pillow.
    how = Interpolation(mode, "half_pixel", -0.5, exclude_outside=True, antialias=True)
    found = resampling_matrix(inputs, outputs, outputs / inputs, how)
    # Along the last axis: of an image of width 1, PyTorch 2.13 repeats the first row.
    image = torch.eye(inputs, dtype=torch.float64).reshape(inputs, 1, 1, inputs)
    named = "bicubic" if mode == "cubic" else "bilinear"
    resized = torch.nn.functional.interpolate(image, size=(1, outputs), mode=named, antialias=True)
    np.testing.assert_allclose(found, resized.reshape(inputs, outputs).T, atol=2e-6)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_the_rows_add_up_to_one(mode: Any, coordinates: Any) -> None:
    found = resampling_matrix(7, 18, 18 / 7, Interpolation(mode, coordinates))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_a_whole_factor_is_a_polyphase_filter() -> None:
    found = resampling_matrix(9, 27, 3, Interpolation("linear", "half_pixel"))
    for output in range(6, 18):
        np.testing.assert_allclose(found[output, 1:], found[output - 3, :-1], atol=1e-6)


@pytest.mark.parametrize("form", ["matrix", "separable"])
def test_a_cubic_whose_scale_is_almost_one_copies_the_image(form: str) -> None:
    body = 'y = Resize<mode="cubic", cubic_coeff_a=-0.6>(x, , g)'
    scale = 1 + EPS
    original = parsed(body, {"g": floats(1, 1, scale, scale)}, "1,2,6,7", opset=18)
    done, after = rewrite(original, resample=True, form=form)
    (site,) = done.sites
    assert (site.status, site.certificate, site.parity_only) == ("rewritten", "exact", ())
    x = np.random.default_rng(2).standard_normal((1, 2, 6, 7)).astype(np.float32)
    actual, expected = (run(model, {"x": x})["y"] for model in (after, original))
    np.testing.assert_array_equal(actual, expected)


TIES: dict[str, tuple[Coordinates, NearestMode, int, float]] = {
    # float32 makes 3.4999998 of the position of output 4, 14.500001 of output 17 and so on.
    "before the middle": ("asymmetric", "round_prefer_ceil", 83, 8 / 7),
    "after the middle": ("half_pixel", "round_prefer_floor", 44, 7 / 6),
    "in the middle, but for rounding": ("half_pixel_symmetric", "round_prefer_floor", 70, 1.25),
    "after it, by more": ("asymmetric", "round_prefer_floor", 90, 1.0999),
}


@pytest.mark.parametrize("name", TIES)
def test_a_nearest_position_next_to_the_middle_of_two_pixels_is_a_tie(name: str) -> None:
    coordinates, mode, inputs, scale = TIES[name]
    scale = float(np.float32(scale))
    outputs = int(np.float32(inputs) * np.float32(scale))
    how = Interpolation("nearest", coordinates, nearest_mode=mode)
    attributes = (
        f'mode="nearest", coordinate_transformation_mode="{coordinates}", nearest_mode="{mode}"'
    )
    model = parsed(
        f"y = Resize<{attributes}>(x, , s)", {"s": floats(1, scale)}, f"1,{inputs}", opset=19
    )
    made = run(model, {"x": np.arange(inputs, dtype=np.float32)[None]})["y"]
    copied = resampling_matrix(inputs, outputs, scale, how).argmax(axis=1)
    np.testing.assert_array_equal(made[0], copied)


@pytest.mark.parametrize("mode", get_args(NearestMode))
@pytest.mark.parametrize("factor", [2, 3, -2, -4])
def test_a_nearest_filter_copies_the_same_pixels(mode: NearestMode, factor: int) -> None:
    how = Interpolation("nearest", "half_pixel", nearest_mode=mode)
    found = resampling_filter(factor, how)
    assert found is not None
    scale = float(factor) if factor > 0 else -1 / factor
    outputs = int(8 * scale)
    expected = resampling_matrix(8, outputs, scale, how)
    np.testing.assert_array_equal(found.matrix(8, outputs), expected)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_length_that_runtimes_round_differently_is_a_reason_to_stay(mode: str) -> None:
    body = f'y = Resize<mode="{mode}">(x, , s)'
    model = parsed(body, {"s": floats(1, 1, 1.6666666)}, "1,2,3", opset=18)
    (site,) = deployconv.rewrite(model, resample=True, only=["*"], bench=False).sites
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("skipped", "unsupported-rounding")
