"""A Slice behind a site: part of its border where it crops alike at every size, else left alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from onnx import ModelProto

from tests.build import Array, integers, ops, rewrite
from tests.match.graphs import assert_never_wrong, codes, dynamic_shapes, floats, ints, parsed

UP = "z = ConvTranspose<strides=[2,2]>(x, w, b)"
WEIGHTS: dict[str, Array] = {"w": integers(2, 3, 4, 4, seed=1), "b": integers(3, seed=2)}


def cropped(slices: str, dims: str = "1,2,4,3", opset: int = 17, **constants: Array) -> ModelProto:
    """``z`` of the layer, ``[1, 3, 10, 8]`` for the static sizes, cropped to ``y``."""
    return parsed(f"{UP} {slices}", {**WEIGHTS, **constants}, dims, opset=opset)


def one(starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> dict[str, Array]:
    return {"s": ints(*starts), "e": ints(*ends), "a": ints(*axes)}


TAKEN = {
    "front": one([1], [1 << 62], [2]),
    "end": one([0], [-1], [3]),
    "both_axes": one([1, 0], [-2, -3], [2, 3]),
    "negative_axis": one([2], [-1], [-2]),
    "largest_of_32_bits": one([3], [(1 << 31) - 1], [3]),
}
ONLY_STATIC = {
    "end_counted_from_the_front": one([0], [7], [2]),
    "start_counted_from_the_end": one([-5], [1 << 62], [2]),
    "end_beyond_the_image": one([1], [100], [3]),
}
LEFT = {
    "channels": one([1], [3], [1]),
    "nothing_left": one([5], [4], [2]),
}


@pytest.mark.parametrize(
    "bounds", [*TAKEN.values(), *ONLY_STATIC.values()], ids=[*TAKEN, *ONLY_STATIC]
)
@pytest.mark.parametrize("form", ["crop", "pad", "split"])
def test_a_slice_of_static_sizes_is_part_of_the_layer(bounds: dict[str, Array], form: str) -> None:
    model = cropped("y = Slice(z, s, e, a)", **bounds)
    (site,) = assert_never_wrong(model, form=form)
    assert (site.status, len(site.nodes)) == ("rewritten", 2)
    done, _ = rewrite(model, form=form)
    assert done.sites[0].certificate == "exact"


@pytest.mark.parametrize("bounds", TAKEN.values(), ids=TAKEN)
def test_a_slice_that_crops_the_same_at_every_size_is_taken(bounds: dict[str, Array]) -> None:
    model = cropped("y = Slice(z, s, e, a)", "n,2,h,w", **bounds)
    shapes = [shape for shape in dynamic_shapes() if min(shape[2:]) > 2]
    (site,) = assert_never_wrong(model, shapes)
    assert len(site.nodes) == 2


@pytest.mark.parametrize("bounds", ONLY_STATIC.values(), ids=ONLY_STATIC)
def test_a_slice_that_depends_on_the_size_stays(bounds: dict[str, Array]) -> None:
    model = cropped("y = Slice(z, s, e, a)", "n,2,h,w", **bounds)
    shapes = [shape for shape in dynamic_shapes() if min(shape[2:]) > 2]
    (site,) = assert_never_wrong(model, shapes)
    assert len(site.nodes) == 1


def test_a_start_that_may_lie_beyond_the_smallest_image_stays() -> None:
    model = cropped("y = Slice(z, s, e, a)", "n,2,h,w", **one([5], [1 << 62], [2]))
    (site,) = assert_never_wrong(model, dynamic_shapes())
    assert len(site.nodes) == 1


@pytest.mark.parametrize("bounds", LEFT.values(), ids=LEFT)
def test_a_slice_of_something_else_stays(bounds: dict[str, Array]) -> None:
    (site,) = assert_never_wrong(cropped("y = Slice(z, s, e, a)", **bounds))
    assert len(site.nodes) == 1


def test_steps_stay_and_steps_of_one_do_not_matter() -> None:
    bounds = one([0], [-1], [2])
    for step, nodes in ((1, 2), (2, 1)):
        model = cropped("y = Slice(z, s, e, a, p)", **bounds, p=ints(step))
        (site,) = assert_never_wrong(model)
        assert len(site.nodes) == nodes


def test_slices_one_behind_the_other_are_all_taken() -> None:
    """As exporters write ``y[:, :, 1:7, :5]``, one axis a node."""
    model = cropped(
        "t = Slice(z, s, e, a) y = Slice(t, s2, e2, a2)",
        **one([1], [7], [2]),
        s2=ints(0),
        e2=ints(5),
        a2=ints(3),
    )
    (site,) = assert_never_wrong(model)
    assert len(site.nodes) == 3
    _, after = rewrite(model)
    assert sum(op == "Slice" for op in ops(after)) <= 1  # the crop that the form needs


def test_a_whole_low_resolution_row_is_not_computed() -> None:
    """What is cut off in front is a change of the Conv's pads, not a Slice."""
    model = cropped("y = Slice(z, s, e, a)", **one([2, 2], [-2, -2], [2, 3]))
    assert_never_wrong(model)
    _, after = rewrite(model)
    assert "Slice" not in ops(after)


def test_bounds_are_attributes_in_old_opsets() -> None:
    model = cropped("y = Slice<starts=[1,0], ends=[-1,5], axes=[2,3]>(z)", opset=9)
    (site,) = assert_never_wrong(model)
    assert len(site.nodes) == 2


def test_what_something_else_reads_stays_uncropped() -> None:
    body = "y1 = Slice(z, s, e, a) t = ReduceSum<keepdims=1>(z) y = Add(y1, t)"
    (site,) = assert_never_wrong(cropped(body, **one([1], [-1], [2])))
    assert len(site.nodes) == 1


def test_bounds_that_the_model_computes_stay() -> None:
    body = "n = Shape<start=2, end=3>(x) y = Slice(z, s, n, a)"
    (site,) = assert_never_wrong(cropped(body, "n,2,h,w", **one([0], [0], [2])), dynamic_shapes())
    assert len(site.nodes) == 1


def test_a_chain_goes_on_behind_the_slice() -> None:
    """Nearest Resize, causal trim, and the same through every pattern."""
    body = (
        'u = Resize<mode="nearest", coordinate_transformation_mode="asymmetric",'
        ' nearest_mode="floor">(x, , k) z = Conv<pads=[1,1,1,1]>(u, v, b)'
        " t = Slice(z, s, e, a) y = Relu(t)"
    )
    constants = {"v": integers(3, 2, 3, 3), "k": floats(1, 1, 2, 2)}
    model = parsed(body, {**WEIGHTS, **constants, **one([0, 1], [-3, 99], [2, 3])})
    sites = assert_never_wrong(model)
    assert codes(sites) == [None]
    assert len(sites[0].nodes) == 3
