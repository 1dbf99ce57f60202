"""Layers that do not see positions run before the shuffle as they are, and the bits stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import Planning, apply, plan_model
from deployconv.search.choice import Choice
from tests.build import Array, assert_equal, integers, ops, run
from tests.match.graphs import feeds, floats, ints, parsed
from tests.rewrites.plans import chosen, operators_of, region_of, verdict

UP = "a = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wa, ba)"
TWIN = "o = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wb, bb)"
WEIGHTS: dict[str, Any] = {
    **{"wa": integers(2, 4, 4, 4, seed=1), "ba": integers(4, seed=2)},
    **{"wb": integers(2, 4, 4, 4, seed=3), "bb": integers(4, seed=4)},
    **{"w1": integers(3, 4, 1, 1, seed=5), "b1": integers(3, seed=6)},
    **{"wg": integers(6, 2, 1, 1, seed=7), "w8": integers(2, 8, 1, 1, seed=8)},
    **{"c": integers(4, 1, 1, seed=9), "s": floats(2.0), "one": ints(1)},
    "six": np.array(6, np.float32),
}


REGION = Choice("crop", "crd", "region")


def planned(model: ModelProto, choice: Choice, **more: Choice) -> Planning:
    """``model`` with ``choice`` for its first site; ``more`` by the name of the output."""
    sites = plan_model(load(model), RewriteOptions()).reports
    choices = {sites[0].id: choice}
    choices |= {site.id: more["second"] for site in sites[1:] if "second" in more}
    return chosen(model, choices)


# What stands behind the layer, the operators of the region, its channels; bits stay the same.
EXACT = {
    "conv1x1": ("y = Conv(a, w1, b1)", ["Conv"], 3),
    "grouped_conv1x1": ("y = Conv<group=2>(a, wg)", ["Conv"], 6),
    "activation_and_conv": ("t = Relu(a) u = Conv(t, w1) y = Abs(u)", ["Relu", "Conv", "Abs"], 3),
    "activations_and_conv": (
        "t = Relu(a) r = Clip(t, , six) u = Conv(r, w1) y = Abs(u)",
        ["Relu", "Clip", "Conv", "Abs"],
        3,
    ),
    "activation_that_two_read": (
        "t = Relu(a) r = Neg(t) u = Conv(t, w1) v = Conv(r, w1) y = Add(u, v)",
        ["Relu", "Neg", "Conv", "Conv", "Add"],
        3,
    ),
    "residual": (
        "t = Relu(a) u = Conv<group=2>(t, wg) v = Conv(a, w1) y = Concat<axis=1>(u, v, t)",
        ["Relu", "Conv", "Conv", "Concat"],
        13,
    ),
    "largest_channel": ("y = ReduceMax<axes=[1]>(a)", ["ReduceMax"], 1),
    "sum_of_channels": ("y = ReduceSum(a, one)", ["ReduceSum"], 1),
    "negative_axis": ("y = ReduceMin<axes=[-3]>(a)", ["ReduceMin"], 1),
    "less_its_largest": (
        "m = ReduceMax<axes=[1]>(a) y = Sub(a, m)",
        ["ReduceMax", "Sub"],
        4,
    ),
    "constant_per_channel": ("t = Add(a, c) y = Max(t, a)", ["Add", "Max"], 4),
    "two_layers_added": (f"{TWIN} y = Add(a, o)", ["Add"], 4),
    "two_layers_concatenated": (
        f"{TWIN} t = Relu(o) u = Concat<axis=-3>(a, t) y = Conv(u, w8)",
        ["Relu", "Concat", "Conv"],
        2,
    ),
}


@pytest.mark.parametrize("shuffle", ["crd", "transpose", "two-step", "col2im"])
@pytest.mark.parametrize("form", ["crop", "pad"])
@pytest.mark.parametrize("case", EXACT.values(), ids=EXACT)
def test_the_bits_stay(case: tuple[str, list[str], int], form: Form, shuffle: Shuffle) -> None:
    body, operators, channels = case
    opset = 18 if shuffle == "col2im" else 17
    if opset == 18 and "axes=" in body:
        body = body.replace("<axes=[1]>(a)", "(a, one)").replace("<axes=[-3]>(a)", "(a, third)")
    model = parsed(f"{UP} {body}", {**WEIGHTS, "third": ints(-3)}, "2,2,4,3", opset=opset)
    planning = certify_sites(planned(model, Choice(form, shuffle, "region")), seed=0)
    region = region_of(planning)
    assert region is not None
    assert operators_of(region) == operators
    assert region.layout.channels == channels
    assert {report.certificate for report in planning.reports} == {"exact"}
    assert {report.status for report in planning.reports} == {"rewritten"}
    after = apply(planning).proto
    assert ops(after)["ConvTranspose"] == 0
    assert ops(after)["DepthToSpace"] + ops(after)["Col2Im"] <= 1
    assert_equal(run(model, feeds(2, 2, 4, 3)), run(after, feeds(2, 2, 4, 3)))


LAYER_NORM = (
    "m = ReduceMean<axes=[1]>(a) d = Sub(a, m) q = Pow(d, s) v = ReduceMean<axes=[1]>(q)"
    " e = Sqrt(v) n = Div(d, e) k = Mul(n, c) g = Tanh(k) y = Conv(g, w1)"
)
ROUNDING = {
    "layer_norm_over_channels": (LAYER_NORM, 7),  # its first two have gone into the weights
    "softmax_over_channels": ("t = Softmax<axis=1>(a) y = Mul(t, a)", 2),
    "gate": ("t = Sigmoid(a) u = Mul(t, a) y = Conv(u, w1)", 3),
    "mean_of_three_channels": ("t = Conv(a, w1, b1) m = ReduceMean<axes=[1]>(t) y = Sub(t, m)", 3),
}


@pytest.mark.parametrize("case", ROUNDING.values(), ids=ROUNDING)
def test_what_rounds_is_certified_by_stand_ins_and_computes_the_same(case: tuple[str, int]) -> None:
    body, steps = case
    model = parsed(f"{UP} {body}", WEIGHTS, "1,2,4,3")
    planning = certify_sites(planned(model, REGION), seed=0)
    region = region_of(planning)
    assert region is not None
    assert len(region.steps) == steps
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    given = feeds(1, 2, 4, 3)
    expected, actual = run(model, given)["y"], run(after, given)["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_activations_stand_right_behind_the_conv() -> None:
    """There runtimes take them into it."""
    body = f"{UP} t = Relu(a) r = Clip(t, , six) u = Conv(r, w1) {TWIN} y = Add(u, o)"
    body = body.replace("w1", "w4")
    model = parsed(body, {**WEIGHTS, "w4": integers(4, 4, 1, 1)}, "1,2,4,3")
    planning = planned(model, REGION)
    assert region_of(planning) is not None
    after = apply(planning).proto
    operators = [node.op_type for node in after.graph.node]
    assert operators[:4] == ["Conv", "Relu", "Clip", "Reshape"]


@pytest.mark.parametrize("shuffle", ["crd", "transpose"])
def test_dynamic_sizes(shuffle: Shuffle) -> None:
    body = "m = ReduceMax<axes=[1]>(a) d = Sub(a, m) y = Conv(d, w1, b1)"
    model = parsed(f"{UP} {body}", WEIGHTS, "n,2,h,w")
    planning = planned(model, replace(REGION, shuffle=shuffle))
    assert region_of(planning) is not None
    after = apply(planning).proto
    for shape in ((1, 2, 1, 1), (3, 2, 2, 5), (1, 2, 9, 4)):
        assert_equal(run(model, feeds(*shape)), run(after, feeds(*shape)))


SUMS = {
    "static": ("1,2,4,3", "float32", ["MatMul", "MatMul"]),
    "rows_unknown": ("1,2,h,3", "float32", ["MatMul", "MatMul"]),
    "columns_unknown": ("n,2,4,w", "float32", ["MatMul", "MatMul"]),
    "both_unknown": ("1,2,h,w", "float32", ["MatMul", "MatMul"]),
    "few_digits": ("1,2,4,3", "float16", ["ReduceSum", "ReduceMean"]),
}


@pytest.mark.parametrize("case", SUMS.values(), ids=SUMS)
def test_sums_over_channels_are_products_with_a_row(case: tuple[str, str, list[str]]) -> None:
    shape, dtype, operators = case
    body = f"{UP} t = ReduceSum(a, one) d = Sub(a, t) m = ReduceMean<axes=[1]>(d) y = Add(d, m)"
    weights = {name: WEIGHTS[name].astype(dtype) for name in ("wa", "ba")}
    model = parsed(body, {**WEIGHTS, **weights}, shape, dtype=dtype)
    planning = certify_sites(planned(model, REGION), seed=0)
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    written = [node.op_type for node in after.graph.node]
    assert [op for op in written if op in ("MatMul", "ReduceMean", "ReduceSum")] == operators
    given = {"x": feeds(1, 2, 4, 3)["x"].astype(dtype)}
    assert_equal(run(model, given), run(after, given))


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("reduction", ["ReduceMax", "ReduceMean"])
def test_other_ranks(rank: int, reduction: str) -> None:
    weights = {"wa": integers(2, 4, *[4] * rank, seed=1), "w1": integers(3, 4, *[1] * rank)}
    up = f"a = ConvTranspose<strides={[2] * rank}, pads={[1] * 2 * rank}>(x, wa, ba)"
    shape = (2, 2, 3, 4, 5)[: rank + 2]
    body = f"{up} t = Relu(a) m = {reduction}<axes=[1]>(t) u = Sub(t, m) y = Conv(u, w1, b1)"
    model = parsed(body, {**WEIGHTS, **weights}, ",".join(map(str, shape)))
    planning = certify_sites(planned(model, replace(REGION, shuffle="transpose")), seed=0)
    assert region_of(planning) is not None
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert_equal(run(model, feeds(*shape)), run(after, feeds(*shape)))


# What stands behind the layer, and the operators that still can be taken in.
STOPPED: dict[str, tuple[str, list[str] | None]] = {
    "only_pointwise": ("t = Relu(a) y = Sigmoid(t)", None),
    "a_kernel_of_three": ("y = Conv<pads=[1,1,1,1]>(a, w3)", None),
    "conv_with_stride": ("y = Conv<strides=[2,2]>(a, w1)", None),
    "conv_with_pads": ("y = Conv<pads=[1,1,1,1]>(a, w1)", None),
    "reduction_over_rows": ("y = ReduceMax<axes=[2]>(a)", None),
    "reduction_without_the_axis": ("y = ReduceMax<axes=[1], keepdims=0>(a)", None),
    "reduction_of_everything": ("y = ReduceMax(a)", None),
    "softmax_over_a_row": ("y = Softmax<axis=-1>(a)", None),
    "concat_of_rows": ("t = Relu(a) y = Concat<axis=2>(a, t)", None),
    "constant_per_pixel": ("y = Add(a, pixels)", None),
    "constant_joined": ("y = Concat<axis=1>(a, image)", None),
    "another_tensor": ('t = Resize<mode="nearest">(x, , k) y = Concat<axis=1>(a, t)', None),
    "weight_of_the_run": ("t = Relu(w1) v = ReduceMax(x) u = Mul(t, v) y = Conv(a, u)", None),
    "what_mixes_neighbours_behind": (
        "t = Conv(a, w1) y = MaxPool<kernel_shape=[2,2]>(t)",
        ["Conv"],
    ),
    "two_that_leave": (
        "t = Conv(a, w1) u = Relu(t) p = MaxPool<kernel_shape=[1,1]>(t) y = Add(u, p)",
        ["Conv"],
    ),
}


@pytest.mark.parametrize("case", STOPPED.values(), ids=STOPPED)
def test_where_a_region_ends(case: tuple[str, list[str] | None]) -> None:
    body, operators = case
    constants = {
        **{"w3": integers(2, 4, 3, 3), "pixels": integers(1, 1, 8, 6)},
        **{"image": integers(1, 1, 8, 6), "k": floats(1, 1, 2, 2)},
    }
    model = parsed(f"{UP} {body}", {**WEIGHTS, **constants}, "1,2,4,3")
    planning = planned(model, REGION)
    region = region_of(planning)
    assert (None if region is None else operators_of(region)) == operators
    after = apply(planning).proto
    assert_equal(run(model, feeds(1, 2, 4, 3)), run(after, feeds(1, 2, 4, 3)))


OTHERS: Mapping[str, str] = {
    "another_stride_and_kernel": "o = ConvTranspose<strides=[1,1]>(p, wb, bb)",
    "another_border": (
        "o = ConvTranspose<strides=[2,2], pads=[0,0,1,1], output_padding=[0,0]>(q, wb, bb)"
    ),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_layers_whose_phases_lie_otherwise_do_not_join(other: str) -> None:
    """Their outputs fit, the images that their Convs make do not."""
    more: dict[str, Array] = {
        "corner": ints(0, 0, 1, 1, 0, 0, 2, 0),
        "back": ints(0, 0, -1, 0, 0, 0, 0, 0),
    }
    before = "p = Pad(x, corner)" if "(p," in other else "q = Identity(x)"
    fit = "f = Slice(o, zero, eight, two) f2 = Slice(f, zero, six, three) y = Add(a, f2)"
    sizes = {"zero": ints(0), "eight": ints(8), "six": ints(6), "two": ints(2), "three": ints(3)}
    model = parsed(f"{UP} {before} {other} {fit}", {**WEIGHTS, **more, **sizes}, "1,2,4,3")
    planning = planned(model, REGION, second=Choice("crop", "crd"))
    assert region_of(planning) is None
    after = apply(planning).proto
    assert_equal(run(model, feeds(1, 2, 4, 3)), run(after, feeds(1, 2, 4, 3)))


def test_a_layer_that_is_left_alone_does_not_join() -> None:
    model = parsed(f"{UP} {TWIN} y = Add(a, o)", WEIGHTS, "1,2,4,3")
    first, second = plan_model(load(model), RewriteOptions()).reports
    options = RewriteOptions(skip=(second.id,))
    planning = chosen(model, {first.id: REGION}, options)
    assert region_of(planning) is None
    assert planning.reports[1].status == "kept"


def test_a_layer_that_joined_is_reported_with_the_first() -> None:
    model = parsed(f"{UP} {TWIN} y = Add(a, o)", WEIGHTS, "1,2,4,3")
    planning = planned(model, REGION)
    assert [site.joined for site in planning.sites] == [None, planning.reports[0].id]
    assert planning.reports[1].reason is None
    after = apply(planning).proto
    assert ops(after)["DepthToSpace"] == 1


def test_a_wrong_crop_does_not_pass_the_certificate() -> None:
    model = parsed(f"{UP} {LAYER_NORM}", WEIGHTS, "1,2,4,3")
    region = region_of(planned(model, REGION))
    assert region is not None
    assert verdict(region) == "exact"
    (begin, end), across = region.layout.crop
    layout = replace(region.layout, crop=((begin + 1, end - 1), across))
    assert verdict(replace(region, layout=layout)) == "failed"
