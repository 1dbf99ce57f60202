"""A Slice behind a site: part of its border where it crops alike at every size, else left alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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


SAME = (
    "s = Shape(x) s32 = Cast<to=6>(s) sides = Slice(s32, k2, k4) twice = Mul(sides, two32)"
    " wanted32 = Add(twice, more32) wanted = Cast<to=7>(wanted32)"
    " u = Shape(z) made = Slice(u, k2, k4) beyond = Sub(made, wanted)"
    " cut = Max(beyond, k0) starts = Div(cut, k2) ends = Add(starts, wanted)"
    " axes = Concat<axis=0>(k2, k3) shorter = Slice(z, starts, ends, axes)"
    " short = Neg(beyond) grown = Max(short, k0)"
    " pads = Concat<axis=0>(k0, k0, k0, k0, k0, k0, grown) y = Pad(shorter, pads)"
)
"""TensorFlow's SAME padding: ``z`` cut, and filled up with zeros, to twice the size and more."""


def behind(
    kernel: int, dims: str, more: int = 0, bias: bool = True, after: str = ""
) -> tuple[ModelProto, list[tuple[int, ...]]]:
    """A ConvTranspose with SAME padding in computed sizes, and sizes that it runs at."""
    inputs = "x, v, b" if bias else "x, v"
    body = f"z = ConvTranspose<strides=[2,2]>({inputs}) {SAME}"
    if after:
        body = f"{body.replace('y = Pad', 'p = Pad')} {after}"
    constants = {
        **{f"k{number}": ints(number) for number in range(5)},
        **{"v": integers(2, 3, kernel, kernel), "b": WEIGHTS["b"], "c": integers(3, 1, 1, seed=7)},
        **{"two32": np.array(2, np.int32), "more32": np.array(more, np.int32)},
    }
    shapes = dynamic_shapes() if "h" in dims else [(1, 2, 4, 3)]
    return parsed(body, constants, dims, opset=18), shapes


@pytest.mark.parametrize("dims", ["1,2,4,3", "n,2,4,3", "n,2,h,w"])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_a_computed_slice_and_pad_that_crop_alike_at_every_size(kernel: int, dims: str) -> None:
    model, shapes = behind(kernel, dims)
    (site,) = assert_never_wrong(model, shapes)
    assert (site.status, site.conv_kernel) == ("rewritten", ((kernel + 1) // 2,) * 2)
    _, after = rewrite(model, verify=False)
    assert not {"Shape", "Pad", "Max"} & set(ops(after))


@pytest.mark.parametrize("bias", [True, False])
def test_a_computed_pad_that_adds_zeros_is_part_of_a_layer_without_bias(bias: bool) -> None:
    """With a bias the layer would add it to the zeros, which have none."""
    model, shapes = behind(2, "n,2,h,w", more=1, bias=bias)
    (site,) = assert_never_wrong(model, shapes)
    assert site.status == "rewritten"
    assert ("Pad" in ops(rewrite(model, verify=False)[1])) == bias


@pytest.mark.parametrize("after", ["y = Add(p, c)", "i = Identity(p) y = Add(i, c)"])
def test_a_bias_behind_a_computed_crop_is_part_of_the_layer(after: str) -> None:
    model, shapes = behind(3, "n,2,h,w", bias=False, after=after)
    assert codes(assert_never_wrong(model, shapes)) == [None]
    assert not {"Add", "Identity"} & set(ops(rewrite(model, verify=False)[1]))


def test_a_computed_crop_that_depends_on_the_size_stays() -> None:
    """Half of the image is kept."""
    body = (
        "z = ConvTranspose<strides=[2,2]>(x, w, b) s = Shape(z) h = Slice(s, k2, k3)"
        " half = Div(h, k2) y = Slice(z, k0, half, k2)"
    )
    numbers = {f"k{number}": ints(number) for number in (0, 2, 3)}
    model = parsed(body, {**WEIGHTS, **numbers}, "n,2,h,w")
    assert codes(assert_never_wrong(model, dynamic_shapes())) == [None]
    assert ops(rewrite(model, verify=False)[1])["Div"] == 1


def test_a_size_that_others_read_stays() -> None:
    """The computed size of the layer's output leaves the model as well."""
    model, shapes = behind(
        3, "n,2,h,w", after="d = Cast<to=1>(u) m = ReduceMax<keepdims=0>(d) y = Add(p, m)"
    )
    assert codes(assert_never_wrong(model, shapes)) == [None]
    assert ops(rewrite(model, verify=False)[1])["Max"] == 2
