"""Every reason why a Resize stays, and the Resizes that are not listed at all."""

from __future__ import annotations

import numpy as np
import pytest

import deployconv
from tests.build import integers
from tests.match.graphs import CONV, NEAREST, assert_never_wrong, codes, floats, ints, parsed

DOUBLE = floats(1, 1, 2, 2)


def modes(mode: str, coordinates: str, rounding: str = "floor") -> str:
    return (
        f'mode="{mode}", coordinate_transformation_mode="{coordinates}", nearest_mode="{rounding}"'
    )


REASONS = {
    "bilinear": (
        f"z = Resize<{modes('linear', 'half_pixel')}>(x, , scales)",
        "interpolating-resize",
    ),
    "bicubic": (f"z = Resize<{modes('cubic', 'half_pixel')}>(x, , scales)", "interpolating-resize"),
    "by one and a half": (f"z = Resize<{NEAREST}>(x, , uneven)", "non-integer-scale"),
    "to sizes between": (f"z = Resize<{NEAREST}>(x, , , between)", "non-integer-scale"),
    "by nearly two": (f"z = Resize<{NEAREST}>(x, , nearly)", "non-integer-scale"),
    "corners aligned": (
        f"z = Resize<{modes('nearest', 'align_corners')}>(x, , scales)",
        "unsupported-rounding",
    ),
    "rounded up": (
        f"z = Resize<{modes('nearest', 'asymmetric', 'ceil')}>(x, , scales)",
        "unsupported-rounding",
    ),
    "reflected": (
        f'r = Resize<{NEAREST}>(x, , scales) z = Pad<mode="reflect">(r, pads)',
        "non-zero-padding",
    ),
    "edges repeated": (
        f'r = Resize<{NEAREST}>(x, , scales) z = Pad<mode="edge">(r, pads)',
        "non-zero-padding",
    ),
    "reflected as a volume": (
        f"r = Resize<{NEAREST}>(x, , scales) u = Unsqueeze(r, two)"
        ' p = Pad<mode="reflect">(u, pads3) z = Squeeze(p, two)',
        "non-zero-padding",
    ),
    "corners aligned, by three": (
        f"z = Resize<{modes('nearest', 'align_corners', 'round_prefer_ceil')}>(x, , threes)",
        "unsupported-rounding",
    ),
    "ones around": (
        f"r = Resize<{NEAREST}>(x, , scales) z = Pad(r, pads, one)",
        "non-zero-padding",
    ),
    "pooled afterwards": (
        f"r = Resize<{NEAREST}>(x, , scales) z = MaxPool<kernel_shape=[2,2]>(r)",
        "no-conv",
    ),
    "added to another": (
        f"r = Resize<{NEAREST}>(x, , scales) o = Sigmoid(r) p = MaxPool<kernel_shape=[1,1]>(r)"
        " z = Add(o, p)",
        "no-conv",
    ),
    "a mask of twos and halves": (
        f"r = Resize<{NEAREST}>(x, , scales) z = Mul(r, gains)",
        "no-conv",
    ),
}
CONSTANTS = {
    "scales": DOUBLE,
    "uneven": floats(1, 1, 1.5, 2),
    "nearly": floats(1, 1, 2, 2.0000002),
    "between": ints(1, 2, 7, 6),
    "pads": ints(0, 0, 1, 1, 0, 0, 1, 1),
    "pads3": ints(0, 0, 0, 1, 1, 0, 0, 0, 1, 1),
    "two": ints(2),
    "threes": floats(1, 1, 3, 3),
    "one": np.float32(1),
    "gains": np.where(np.indices((8, 6)).sum(0) % 2 == 0, 2, 0.5).astype(np.float32),
}


@pytest.mark.parametrize(("body", "code"), REASONS.values(), ids=REASONS)
def test_it_stays_and_says_why(body: str, code: str) -> None:
    sites = assert_never_wrong(parsed(f"{body} {CONV}", CONSTANTS, opset=19))
    assert codes(sites) == [code]
    pattern = "interpolating_resize" if code == "interpolating-resize" else "nearest_resize"
    assert sites[0].pattern == pattern
    assert sites[0].reason is not None
    assert "\n" not in sites[0].reason.text


def test_a_size_that_does_not_follow_the_input() -> None:
    body = f"z = Resize<{NEAREST}>(x, , , fixed) {CONV}"
    original = parsed(body, {"fixed": ints(1, 2, 64, 64)}, "1,2,h,v")
    assert codes(assert_never_wrong(original)) == ["dynamic-scale"]


def test_a_scale_that_depends_on_data() -> None:
    body = "m = ReduceMax<keepdims=0>(x) s = Reshape(m, k1) t = Concat<axis=0>(one, one, s, s)"
    original = parsed(
        f"{body} z = Resize<{NEAREST}>(x, , t) {CONV}", {"k1": ints(1), "one": floats(1)}
    )
    assert codes(assert_never_wrong(original)) == ["dynamic-scale"]


@pytest.mark.parametrize("opset", [7, 9])
def test_an_upsample_that_interpolates(opset: int) -> None:
    scales = "scales=[1.0,1.0,2.0,2.0], " if opset < 9 else ""
    inputs = "x" if opset < 9 else "x, scales"
    original = parsed(
        f'z = Upsample<{scales}mode="linear">({inputs}) {CONV}', {"scales": DOUBLE}, opset=opset
    )
    assert codes(assert_never_wrong(original)) == ["interpolating-resize"]


def test_the_size_of_the_image_is_no_part_of_the_reason() -> None:
    """A map of every pixel would not fit in memory."""
    body = f"r = Resize<{NEAREST}>(x, , scales) z = MaxPool<kernel_shape=[2,2]>(r) {CONV}"
    original = parsed(body, {"scales": DOUBLE}, dims="1,2,40000,40000")
    assert codes(deployconv.inspect(original).sites) == ["no-conv"]


@pytest.mark.parametrize("scales", [(1, 1, 0.5, 0.5), (1, 1, 1, 1), (1, 1, 0.25, 1)])
def test_what_does_not_enlarge_is_not_listed(scales: tuple[float, ...]) -> None:
    body = f"z = Resize<{NEAREST}>(x, , scales) y = Conv<pads=[1,1,1,1]>(z, w, b)"
    assert assert_never_wrong(parsed(body, {"scales": floats(*scales)})) == ()


@pytest.mark.parametrize(
    ("conv", "code"),
    [
        ("Conv<pads=[1,1,1,1], strides=[2,2]>(z, w, b)", "strided-conv"),
        ('Conv<pads=[1,1,1,1], auto_pad="SAME_UPPER">(z, w, b)', "ambiguous-same-pads"),
        ("Conv<pads=[1,1,1,1]>(z, noise, b)", "runtime-weight"),
        ("Conv<pads=[1,1,1,1]>(z, w, offset)", "runtime-bias"),
    ],
)
def test_the_conv_after_it_cannot_run_at_low_resolution(conv: str, code: str) -> None:
    noise = "noise = RandomNormal<shape=[3,2,3,3], seed=1.0>() offset = RandomNormal<shape=[3]>()"
    original = parsed(f"{noise} z = Resize<{NEAREST}>(x, , scales) y = {conv}", {"scales": DOUBLE})
    assert codes(assert_never_wrong(original)) == [code]


def test_cut_off_where_the_conv_pads_with_zeros() -> None:
    body = f"r = Resize<{NEAREST}>(x, , scales) z = Slice(r, first, last, rows) {CONV}"
    bounds = {"first": ints(1), "last": ints(8), "rows": ints(2)}
    original = parsed(body, {"scales": DOUBLE, **bounds})
    assert codes(assert_never_wrong(original)) == ["cropped-upsampling"]


def test_negative_pads_of_the_conv_mean_a_crop_before_it() -> None:
    body = f"z = Resize<{NEAREST}>(x, , scales) y = Conv<pads=[0,-1,1,0]>(z, w, b)"
    (site,) = deployconv.inspect(parsed(body, {"scales": DOUBLE})).sites
    assert site.reason is not None
    assert site.reason.code == "negative-pads"
    assert "pads [0, 0, 1, 0] and a Slice before it that cuts off [0, 1, 0, 0]" in site.reason.text


@pytest.mark.parametrize("name", ["scales", "w"])
def test_a_default_that_a_caller_may_override(name: str) -> None:
    body = f"z = Resize<{NEAREST}>(x, , scales) {CONV}"
    original = parsed(body, {"scales": DOUBLE})
    (given,) = (t for t in original.graph.initializer if t.name == name)
    original.graph.input.add(name=name).type.tensor_type.elem_type = given.data_type
    for size in given.dims:
        original.graph.input[-1].type.tensor_type.shape.dim.add(dim_value=size)
    assert codes(assert_never_wrong(original)) == ["overridable-initializer"]
    assert codes(assert_never_wrong(original, freeze_initializers=True)) == [None]


# --- look-alikes that are no upsampling at all

BLOCKS = {
    "space to depth": "s = SpaceToDepth<blocksize=2>(x) y = Conv<pads=[1,1,1,1]>(s, w8)",
    "unshuffle of several nodes": "a = Reshape(x, split) t = Transpose<perm=[0,1,3,5,2,4]>(a)"
    " s = Reshape(t, deep) y = Conv<pads=[1,1,1,1]>(s, w8)",
    "rows before columns": "a = Reshape(x, split) t = Transpose<perm=[0,1,2,5,4,3]>(a)"
    " y = Reshape(t, same)",
    "windows": "a = Reshape(x, split) t = Transpose<perm=[0,2,4,1,3,5]>(a) y = Reshape(t, windows)",
    "channel shuffle": "a = Reshape(x, pairs) t = Transpose<perm=[0,2,1,3,4]>(a)"
    " y = Reshape(t, same)",
}


@pytest.mark.parametrize("body", BLOCKS.values(), ids=BLOCKS)
def test_other_block_movements_are_not_listed(body: str) -> None:
    constants = {
        "w8": integers(3, 8, 3, 3),
        "split": ints(1, 2, 2, 2, 2, 2),
        "deep": ints(1, 8, 2, 2),
        "same": ints(1, 2, 4, 4),
        "windows": ints(4, 2, 2, 2),
        "pairs": ints(1, 2, 1, 4, 4),
    }
    assert assert_never_wrong(parsed(body, constants, "1,2,4,4")) == ()


def test_max_unpooling_is_not_listed() -> None:
    body = (
        "p, at = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)"
        " z = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(p, at)"
    )
    assert assert_never_wrong(parsed(f"{body} {CONV}", dims="1,2,4,4")) == ()


@pytest.mark.parametrize("value", [2, -1, 0.5, 1e-9])
def test_a_mask_that_is_not_of_zeros_and_ones(value: float) -> None:
    mask = np.zeros((8, 6), np.float32)
    mask[::2, ::2] = 1
    mask[1, 1] = value
    body = f"r = Resize<{NEAREST}>(x, , scales) z = Mul(r, mask) {CONV}"
    assert codes(assert_never_wrong(parsed(body, {"scales": DOUBLE, "mask": mask}))) == ["no-conv"]


def test_zeros_inserted_into_ones() -> None:
    """Exported like zero insertion, but with ones between the elements."""
    body = "a = Reshape(x, tall) p = Pad(a, pads, one) z = Reshape(p, flat)"
    constants = {
        "tall": ints(1, 2, 4, 1, 3, 1),
        "pads": ints(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1),
        "pads3": ints(0, 0, 0, 1, 1, 0, 0, 0, 1, 1),
        "two": ints(2),
        "threes": floats(1, 1, 3, 3),
        "one": np.float32(1),
        "flat": ints(1, 2, 8, 6),
    }
    assert assert_never_wrong(parsed(f"{body} {CONV}", constants)) == ()
