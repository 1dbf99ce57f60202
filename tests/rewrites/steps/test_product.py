"""A matrix times all pixels runs before the shuffle, whoever makes the matrix; the bits stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from onnx import ModelProto

from deployconv.options import Form, Shuffle
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import apply
from deployconv.rewrites.steps.product import Product
from deployconv.search.choice import FusionScope
from tests.build import assert_equal, integers, ops, run
from tests.match.graphs import feeds, ints, parsed
from tests.rewrites.plans import region_of, verdict, with_first

UP = "a = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wa, ba)"
HEAD = "f = Reshape(a, flat) p = MatMul(m, f) y = Reshape(p, whole)"
CONSTANTS: dict[str, Any] = {
    **{"wa": integers(2, 4, 4, 4, seed=1), "ba": integers(4, seed=2)},
    **{"flat": ints(0, 4, -1), "whole": ints(2, -1, 8, 6)},
    **{"shared": integers(3, 4, seed=3), "alone": integers(1, 3, 4, seed=4)},
    **{"behind": ints(2, 4, 6), "rows": ints(2, 48, 4), "turned": ints(2, -1, 6, 8)},
    **{"folded": ints(0, 8, -1), "half": ints(2, 3, 4, 6), "each": ints(-1, 3, 8, 6)},
    **{
        "four": integers(2, 1, 3, 4, seed=6),
        "matrices": ints(2, 6, 4),
        "wide": integers(3, 8, seed=5),
        "w1": integers(2, 6, 1, 1),
    },
}


CROPPED: tuple[Form, Shuffle, FusionScope] = ("crop", "crd", "region")


def model_of(body: str, dims: str = "2,2,4,3") -> ModelProto:
    return parsed(f"{UP} {body}", CONSTANTS, dims, opset=18)


TAKEN = {
    "a_matrix_for_each_image": (f"m = Reshape(x, matrices) {HEAD}", 6),
    "one_for_all_images": (f"m = Identity(shared) {HEAD}", 3),
    "one_for_all_images_with_a_batch": (f"m = Identity(alone) {HEAD}", 3),
    "layers_before_and_behind": (
        "m = Reshape(x, matrices) r = Relu(a) f = Reshape(r, flat) p = MatMul(m, f)"
        " h = Reshape(p, whole) g = Abs(h) y = Conv(g, w1)",
        2,
    ),
}


@pytest.mark.parametrize("shuffle", ["crd", "transpose", "col2im"])
@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
def test_the_bits_stay(case: tuple[str, int], shuffle: Shuffle) -> None:
    body, channels = case
    model = model_of(body)
    planning = certify_sites(with_first(model, "crop", shuffle, "region"), seed=0)
    region = region_of(planning)
    assert region is not None
    assert any(isinstance(step, Product) for step in region.steps)
    assert (region.outputs, region.layout.channels) == (("y",), channels)
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert ops(after)["ConvTranspose"] == 0
    given = feeds(2, 2, 4, 3)
    assert_equal(run(model, given), run(after, given))


LEFT = {
    "the_matrix_behind": "m = Reshape(x, behind) f = Reshape(a, rows) y = MatMul(f, m)",
    "rows_and_columns_exchanged": f"m = Identity(shared) {HEAD}".replace("whole", "turned"),
    "pixels_as_channels": HEAD.replace("flat", "folded")
    .replace("m,", "wide,")
    .replace("whole", "half"),
    "a_matrix_for_each_row_of_images": HEAD.replace("m,", "four,"),
    "the_matrix_of_pixels_leaves": "m = Identity(shared) f = Reshape(a, flat) n = ReduceMax(f)"
    " p = MatMul(m, f) q = Reshape(p, whole) y = Add(q, n)",
    "no_image_again": "m = Identity(shared) f = Reshape(a, flat) y = MatMul(m, f)",
}


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT)
def test_what_is_no_such_product(body: str) -> None:
    model = model_of(body)
    planning = with_first(model, *CROPPED)
    assert region_of(planning) is None
    after = apply(planning).proto
    given = feeds(2, 2, 4, 3)
    assert_equal(run(model, given), run(after, given))


@pytest.mark.parametrize("dims", ["2,2,h,3", "2,2,h,w"])
def test_sizes_that_are_not_known(dims: str) -> None:
    assert region_of(with_first(model_of(f"m = Identity(shared) {HEAD}", dims), *CROPPED)) is None


def test_any_batch() -> None:
    model = model_of(f"m = Identity(shared) {HEAD}".replace("whole", "each"), "n,2,4,3")
    planning = with_first(model, *CROPPED)
    assert region_of(planning) is not None
    after = apply(planning).proto
    for batch in (1, 2, 5):
        given = feeds(batch, 2, 4, 3)
        assert_equal(run(model, given), run(after, given))


def test_a_wrong_crop_does_not_pass_the_certificate() -> None:
    region = region_of(with_first(model_of(f"m = Reshape(x, matrices) {HEAD}"), *CROPPED))
    assert region is not None
    (begin, end), across = region.layout.crop
    layout = replace(region.layout, crop=((begin + 1, end - 1), across))
    assert verdict(replace(region, layout=layout)) == "failed"
