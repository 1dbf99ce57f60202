"""A Conv that mixes neighbours ends a region as an upsampling layer itself, and the bits stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from deployconv.errors import ModelError
from deployconv.graph.load import load
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.polyphase import without_shift
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import apply, plan_model
from deployconv.rewrites.region import Region
from deployconv.rewrites.steps.last_conv import LastConv
from tests.build import assert_equal, integers, ops, run
from tests.match.graphs import NEAREST, feeds, floats, ints, parsed
from tests.rewrites.plans import operators_of, region_of, verdict, with_first

UP = "a = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wa, ba)"
PLAIN = "a = ConvTranspose<strides=[2,2]>(x, wp, ba)"
WIDE = "a = ConvTranspose<strides=[3,3]>(x, wq, ba)"
REPEATED = f"r = Resize<{NEAREST}>(x, , twice) a = Conv<pads=[1,1,1,1]>(r, wr, ba)"
WEIGHTS: dict[str, Any] = {
    **{"wa": integers(2, 4, 4, 4, seed=1), "ba": integers(4, seed=2)},
    **{"wp": integers(2, 4, 2, 2, seed=3), "wq": integers(2, 4, 3, 3, seed=4)},
    **{"wr": integers(4, 2, 3, 3, seed=5), "twice": floats(1, 1, 2, 2)},
    **{"w3": integers(3, 4, 3, 3, seed=6), "b3": integers(3, seed=7)},
    **{"w5": integers(1, 4, 5, 4, seed=8), "w1": integers(5, 4, 1, 1, seed=9)},
    **{
        "four": floats(1, 2, 3, 4),
        "three": ints(3),
        "w35": integers(3, 5, 3, 3, seed=10),
        "wg": integers(4, 2, 3, 3, seed=11),
    },
}
CONV = "y = Conv<pads=[1,1,1,1]>(a, w3, b3)"


# What stands behind the layer, and the operators of the region.
BEHIND = {
    "conv": (CONV, ["Conv"]),
    "without_bias": ("y = Conv<pads=[1,1,1,1]>(a, w3)", ["Conv"]),
    "activation_between": ("t = Relu(a) y = Conv<pads=[1,1,1,1]>(t, w3, b3)", ["Relu", "Conv"]),
    "other_channels_between": (
        "t = Conv(a, w1) y = Conv<pads=[1,1,1,1]>(t, w35, b3)",
        ["Conv", "Conv"],
    ),
    "residual_between": (
        "t = Abs(a) u = Add(t, a) y = Conv<pads=[1,1,1,1]>(u, w3)",
        ["Abs", "Add", "Conv"],
    ),
    "what_comes_behind_it": (f"{CONV.replace('y =', 't =')} y = Relu(t)", ["Conv"]),
    "unequal_pads": ("y = Conv<pads=[2,0,1,3]>(a, w3, b3)", ["Conv"]),
    "no_pads": ("y = Conv(a, w3, b3)", ["Conv"]),
    "more_pads_than_taps": ("y = Conv<pads=[5,4,3,6]>(a, w3, b3)", ["Conv"]),
    "dilated": ("y = Conv<dilations=[2,3], pads=[2,3,2,3]>(a, w3, b3)", ["Conv"]),
    "unequal_kernel": ("y = Conv<pads=[2,1,2,2]>(a, w5)", ["Conv"]),
    "same_upper": ('y = Conv<auto_pad="SAME_UPPER">(a, w5)', ["Conv"]),
    "same_lower": ('y = Conv<auto_pad="SAME_LOWER">(a, w5)', ["Conv"]),
    "pads_around_single_pixels": ("y = Conv<pads=[1,0,2,1]>(a, w1)", ["Conv"]),
}
LAYERS = {
    "overlapping": UP,
    "kernel_is_stride": PLAIN,
    "nearest": REPEATED,
    "stride_of_three": WIDE,
}


@pytest.mark.parametrize("shuffle", ["crd", "transpose", "col2im"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("case", BEHIND.values(), ids=BEHIND)
def test_the_bits_stay(case: tuple[str, list[str]], layer: str, shuffle: Shuffle) -> None:
    body, operators = case
    model = parsed(f"{layer} {body}", WEIGHTS, "2,2,5,4", opset=18)
    planning = certify_sites(with_first(model, shuffle=shuffle), seed=0)
    region = region_of(planning)
    assert region is not None
    assert operators_of(region) == operators
    assert isinstance(region.steps[-1], LastConv)
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    moved = [node for node in after.graph.node if node.op_type in ("DepthToSpace", "Col2Im")]
    assert len(moved) == (shuffle != "transpose")
    assert ops(after)["ConvTranspose"] + ops(after)["Resize"] == 0
    assert_equal(run(model, feeds(2, 2, 5, 4)), run(after, feeds(2, 2, 5, 4)))


TWO = "o = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wb) t = Add(a, o)"


@pytest.mark.parametrize("form", ["split", "pad"])
def test_two_layers_that_meet(form: Form) -> None:
    body = f"{UP} {TWO} {CONV.replace('(a', '(t')}"
    model = parsed(body, {**WEIGHTS, "wb": integers(2, 4, 4, 4, seed=12)}, "2,2,5,4")
    planning = certify_sites(with_first(model, form), seed=0)
    region = region_of(planning)
    assert region is not None
    assert len(region.heads) == 2
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert_equal(run(model, feeds(2, 2, 5, 4)), run(after, feeds(2, 2, 5, 4)))


# What stands between the layer and the Conv, and whether phases are put side by side for it.
BETWEEN = {
    "an_activation": ("t = Relu(a)", False),
    "what_sees_single_pixels": ("r = Relu(a) t = Sub(a, r)", False),
    "what_is_a_product_with_a_row": (
        "r = Abs(a) m = ReduceMean<axes=[1]>(r) t = Sub(r, m)",
        True,
    ),
    "what_sees_the_whole_image": ("t = InstanceNormalization(a, four, ba)", True),
}


@pytest.mark.parametrize("case", BETWEEN.values(), ids=BETWEEN)
def test_each_phase_is_an_image_of_its_own_where_that_will_do(case: tuple[str, bool]) -> None:
    between, side_by_side = case
    model = parsed(f"{UP} {between} {CONV.replace('(a', '(t')}", WEIGHTS, "1,2,5,4")
    planning = with_first(model)
    assert region_of(planning) is not None
    after = ops(apply(planning).proto)
    assert (after["Concat"], after["Conv"], after["Add"]) == (
        (1, 5, 0) if side_by_side else (0, 8, 3)
    )


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int) -> None:
    weights = {
        "wa": integers(2, 4, *[4] * rank, seed=1),
        "w3": integers(3, 4, *[3] * rank, seed=2),
    }
    up = f"a = ConvTranspose<strides={[2] * rank}, pads={[1] * 2 * rank}>(x, wa, ba)"
    body = f"{up} t = Relu(a) y = Conv<pads={[1] * 2 * rank}>(t, w3, b3)"
    shape = (2, 2, 3, 4, 5)[: rank + 2]
    model = parsed(body, {**WEIGHTS, **weights}, ",".join(map(str, shape)))
    planning = certify_sites(with_first(model, shuffle="transpose"), seed=0)
    assert region_of(planning) is not None
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert_equal(run(model, feeds(*shape)), run(after, feeds(*shape)))


@pytest.mark.parametrize("layer", [UP, PLAIN], ids=["overlapping", "kernel_is_stride"])
def test_dynamic_sizes(layer: str) -> None:
    model = parsed(f"{layer} t = Relu(a) {CONV.replace('(a', '(t')}", WEIGHTS, "n,2,h,w")
    planning = with_first(model)
    assert region_of(planning) is not None
    after = apply(planning).proto
    for shape in ((1, 2, 1, 1), (3, 2, 2, 5), (1, 2, 9, 4)):
        assert_equal(run(model, feeds(*shape)), run(after, feeds(*shape)))


FAR = "y = Conv<dilations=[4,4]>(a, w3)"


def test_what_a_certificate_runs_on_is_larger_than_the_conv_reaches() -> None:
    """Sizes are dynamic, and the Conv takes eight pixels of each axis."""
    planning = certify_sites(with_first(parsed(f"{UP} {FAR}", WEIGHTS, "n,2,h,w")), seed=0)
    assert region_of(planning) is not None
    assert planning.reports[0].certificate == "exact"


def test_a_conv_that_leaves_nothing_there_does_not_join() -> None:
    """What a nearest Resize moves is known for sizes of its own, the smallest 5x6 pixels."""
    far = FAR.replace("[4,4]", "[6,6]")
    assert region_of(with_first(parsed(f"{REPEATED} {FAR}", WEIGHTS, "n,2,h,w"))) is not None
    assert region_of(with_first(parsed(f"{REPEATED} {far}", WEIGHTS, "n,2,h,w"))) is None


@st.composite
def models(draw: st.DrawFn) -> tuple[ModelProto, tuple[int, ...]]:
    """A layer and a Conv behind it, of any geometry that leaves something."""
    number = st.integers
    stride = [draw(number(1, 4)) for _ in range(2)]
    shape = (2, 2, draw(number(3, 6)), draw(number(3, 6)))
    kernel = [draw(number(1, 5)) for _ in range(2)]
    pads = [draw(number(0, side // 2)) for side in kernel * 2]
    taps, spread = ([draw(number(1, most)) for _ in range(2)] for most in (4, 3))
    around = [(reach - 1) * step for reach, step in zip(taps, spread, strict=True)]
    last = [draw(number(0, 2)) + most for most in around] + [draw(number(0, 3)) for _ in around]
    up = f"a = ConvTranspose<strides={stride}, pads={pads}>(x, wu, ba)"
    body = f"{up} t = Relu(a) y = Conv<pads={last}, dilations={spread}>(t, wl, b3)"
    weights = {"wu": integers(2, 4, *kernel, seed=1), "wl": integers(3, 4, *taps, seed=2)}
    return parsed(body, {**WEIGHTS, **weights}, ",".join(map(str, shape))), shape


@settings(max_examples=60, deadline=None)
@given(made=models(), form=st.sampled_from(["split", "pad"]))
def test_any_geometry(made: tuple[ModelProto, tuple[int, ...]], form: Form) -> None:
    model, shape = made
    before = plan_model(load(model), RewriteOptions()).reports[0]
    assume(before.status == "rewritten" and before.stride != (1, 1))
    planning = certify_sites(with_first(model, form, "transpose"), seed=0)
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert_equal(run(model, feeds(*shape)), run(after, feeds(*shape)))


NOT_TAKEN = {
    "a_stride": "y = Conv<strides=[2,2], pads=[1,1,1,1]>(a, w3)",
    "groups": "y = Conv<group=2, pads=[1,1,1,1]>(a, wg)",
    "a_weight_of_the_run": "v = ReduceMax(x) u = Mul(w3, v) y = Conv(a, u)",
    "a_bias_of_the_run": (
        "v = ReduceMax(x) t = Mul(b3, v) u = Reshape(t, three) y = Conv(a, w3, u)"
    ),
    "another_that_reads": f"{CONV.replace('y =', 't =')} p = ReduceMax(a) y = Add(t, p)",
    "pooling_between": "t = MaxPool<kernel_shape=[2,2]>(a) y = Conv(t, w3)",
    "no_conv": "y = Relu(a)",
}


@pytest.mark.parametrize("body", NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_what_does_not_end_a_region(body: str) -> None:
    model = parsed(f"{UP} {body}", WEIGHTS, "1,2,4,3")
    planning = with_first(model)
    assert region_of(planning) is None
    after = apply(planning).proto
    assert_equal(run(model, feeds(1, 2, 4, 3)), run(after, feeds(1, 2, 4, 3)))


def test_what_is_cropped_must_not_be_seen() -> None:
    """The form ``crop`` makes pixels that are no part of the image."""
    model = parsed(f"{UP} {CONV}", WEIGHTS, "1,2,4,3")
    planning = with_first(model, form="crop")
    assert region_of(planning) is None
    after = apply(planning).proto
    assert_equal(run(model, feeds(1, 2, 4, 3)), run(after, feeds(1, 2, 4, 3)))


def first_of(body: str) -> Region:
    region = region_of(with_first(parsed(f"{UP} {body}", WEIGHTS, "1,2,4,3")))
    assert region is not None
    assert verdict(region) == "exact"
    return region


def test_a_wrong_crop_does_not_pass_the_certificate() -> None:
    region = first_of(CONV)
    (begin, end), across = region.layout.crop
    layout = replace(region.layout, crop=((begin + 1, end - 1), across))
    assert verdict(replace(region, layout=layout)) == "failed"


def test_wrong_places_do_not_pass_the_certificate() -> None:
    """Other shifts of the same size: the axes are those of two Convs one pixel apart."""
    region = first_of("y = Conv<pads=[1,1,1,1]>(a, w3)")
    assert region.last is not None
    moved = [replace(axis, origin=axis.origin + 1) for axis in region.last.axes]
    forms = tuple(map(without_shift, moved))
    sizes = tuple(
        None if size is None else size + form.rows
        for size, form in zip(region.head.layout.sizes, forms, strict=True)
    )
    layout = replace(region.layout, sizes=sizes, crop=tuple(form.crop for form in forms))
    assert verdict(replace(region, last_axes=forms, layout=layout)) == "failed"


@pytest.mark.parametrize("name", ["w3", "b3"])
def test_nan_is_refused(name: str) -> None:
    broken = {name: np.full_like(WEIGHTS[name], np.nan)}
    model = parsed(f"{UP} {CONV}", {**WEIGHTS, **broken}, "1,2,4,3")
    planning = with_first(model)
    with pytest.raises(ModelError, match="NaN or infinite"):
        apply(planning)


def test_float16_is_certified_as_float32() -> None:
    halved = {name: values.astype(np.float16) for name, values in WEIGHTS.items()}
    halved["twice"] = WEIGHTS["twice"]
    model = parsed(f"{UP} {CONV}", halved, "1,2,4,3", dtype=np.float16)
    planning = certify_sites(with_first(model), seed=0)
    assert region_of(planning) is not None
    assert planning.reports[0].certificate == "exact"
