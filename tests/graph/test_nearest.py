"""The map of a nearest Resize, compared with onnxruntime: every mode, rounding and size."""

from __future__ import annotations

import numpy as np
import pytest

from deployconv.graph.nearest import nearest_sources, resize_sizes
from deployconv.graph.not_evaluated import NotEvaluated
from tests.build import run
from tests.match.graphs import CONV, assert_never_wrong, dynamic_shapes, feeds, floats, ints, parsed

COORDINATES = (
    "asymmetric",
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "align_corners",
)
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
SCALES = (2, 3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("given", ["scales", "sizes"])
def test_every_whole_scale_of_every_small_size(coordinates: str, rounding: str, given: str) -> None:
    modes = (
        f'mode="nearest", coordinate_transformation_mode="{coordinates}", nearest_mode="{rounding}"'
    )
    for size in (*range(1, 10), 17, 50):
        for scale in SCALES:
            factors = {"scales": floats(1, 1, scale), "sizes": ints(1, 1, size * scale)}
            inputs = "x, , scales" if given == "scales" else "x, , , sizes"
            model = parsed(f"y = Resize<{modes}>({inputs})", factors, f"1,1,{size}", opset=19)
            x = np.arange(size, dtype=np.float32).reshape(1, 1, size)
            expected = run(model, {"x": x})["y"].ravel()
            sources = nearest_sources(size, size * scale, scale, coordinates, rounding)
            np.testing.assert_array_equal(sources, expected, f"{size} * {scale}")


@pytest.mark.parametrize(
    ("scale", "coordinates", "rounding"),
    [
        (1.5, "asymmetric", "floor"),
        (0.5, "asymmetric", "floor"),
        (2.0000002, "asymmetric", "floor"),
        (2, "tf_crop_and_resize", "floor"),
        (2, "asymmetric", "round"),
    ],
)
def test_what_is_not_known_is_refused(scale: float, coordinates: str, rounding: str) -> None:
    with pytest.raises(NotEvaluated):
        nearest_sources(4, 8, scale, coordinates, rounding)


def test_sizes_from_scales_rounded_down() -> None:
    found = resize_sizes((1, 2, 3, 5), floats(1, 1, 2, 1.5), None, {})
    assert found == [(1, 1.0), (2, 1.0), (6, 2.0), (7, 1.5)]


def test_sizes_of_some_axes() -> None:
    found = resize_sizes((1, 2, 3, 5), None, ints(10, 6), {"axes": [-1, 2]})
    assert found == [(1, 1.0), (2, 1.0), (6, 2.0), (10, 2.0)]


def test_neither_scales_nor_sizes_leaves_it_as_it_is() -> None:
    assert resize_sizes((1, 2), floats(), None, {}) == [(1, 1.0), (2, 1.0)]


@pytest.mark.parametrize(("policy", "size"), [("not_larger", (6, 8)), ("not_smaller", (9, 12))])
def test_an_aspect_ratio_that_is_kept(policy: str, size: tuple[int, int]) -> None:
    shape, sizes = (1, 1, 3, 4), ints(6, 12)
    attributes = {"axes": [2, 3], "keep_aspect_ratio_policy": policy}
    found = [resized for resized, _ in resize_sizes(shape, None, sizes, attributes)]
    body = f'y = Resize<mode="nearest", axes=[2,3], keep_aspect_ratio_policy="{policy}">(x, , , to)'
    model = parsed(body, {"to": sizes}, "1,1,3,4", opset=18)
    assert run(model, feeds(*shape))["y"].shape == tuple(found) == (1, 1, *size)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_an_axis_that_keeps_its_size_keeps_its_elements(coordinates: str, rounding: str) -> None:
    """The formula of ``tf_half_pixel_for_nn`` would move them."""
    modes = (
        f'mode="nearest", coordinate_transformation_mode="{coordinates}", nearest_mode="{rounding}"'
    )
    body = f"z = Resize<{modes}>(x, , scales) {CONV}"
    model = parsed(body, {"scales": floats(1, 1, 1, 2)}, "n,2,h,v", opset=19)
    assert_never_wrong(model, dynamic_shapes())
